"""The readers of published data sets: the files they come with, and how videos lie on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slowfast_maskfeat import datasets as index
from slowfast_maskfeat.datasets import DataFolder, MissingListError
from slowfast_maskfeat.datasets.ssv2 import read_ssv2_labels


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def _write(folder: Path, files: dict[str, str]) -> DataFolder:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return DataFolder(str(folder))


def _rows(videos, folder) -> list[tuple[str, int | None]]:
    labels = [None] * len(videos) if videos.labels is None else videos.labels.tolist()
    paths = [Path(videos.path(row)).relative_to(folder) for row in range(len(videos))]
    return [(str(path), label) for path, label in zip(paths, labels, strict=True)]


KINETICS = "label,youtube_id,time_start,time_end,split\n" + "".join(
    f"{label},{name},12,22,train\n"
    for label, name in [
        ("riding a bike", "-3b7l_o2IsQ"),
        ("abseiling", "0347ZoDXyP0"),
        ("riding a bike", "missing0000"),
        ("skiing (not slalom)", "xyzxyzxyzxy"),
    ]
)
NAMES = [f"{name}_000012_000022.mp4" for name in ("-3b7l_o2IsQ", "0347ZoDXyP0", "xyzxyzxyzxy")]
LABELS = ["riding a bike", "abseiling", "skiing (not slalom)"]


@pytest.mark.parametrize("prefix", ["", "somewhere"])
@pytest.mark.parametrize("base", ["", "train", "videos_train", "train_256"])
@pytest.mark.parametrize("spelling", ["blanks", "underscores", "flat"])
def test_the_layouts_in_which_kinetics_is_downloaded(prefix, base, spelling, tmp_path):
    def path(label: str, name: str) -> str:
        parts = {"blanks": [label, name], "underscores": [label.replace(" ", "_"), name]}
        return str(Path(base, *parts.get(spelling, [name])))

    on_disk = [path(label, name) for label, name in zip(LABELS, NAMES, strict=True)]
    _touch(tmp_path / prefix, *on_disk)
    _write(tmp_path, {"train.csv": KINETICS})
    data = DataFolder(str(tmp_path), prefix=str(tmp_path / prefix) if prefix else "")
    videos = index.read_kinetics(data, "train")
    rows = _rows(videos, tmp_path / prefix)
    assert [rows[row] for row in (0, 1, 3)] == list(zip(on_disk, [1, 0, 2], strict=True))
    # What lies where does not make another list of it.
    elsewhere = index.read_kinetics(DataFolder(str(tmp_path), prefix="/nowhere"), "train")
    assert elsewhere.fingerprint == videos.fingerprint
    assert elsewhere.path(0) == f"/nowhere/riding a bike/{NAMES[0]}"
    assert videos.class_names == ("abseiling", "riding a bike", "skiing (not slalom)")


def test_validation_of_kinetics_is_numbered_by_the_training_list(tmp_path):
    lines = KINETICS.splitlines()
    data = _write(
        tmp_path, {"train.csv": KINETICS, "val.csv": "\n".join([lines[0], lines[1], lines[4]])}
    )
    names = index.read_kinetics(data, "train").class_names
    assert index.read_kinetics(data, "val", names).labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("path,label\na b.mp4,1\n", [("a b.mp4", 1)]),
        ("label\tpath\n1\ta, b.mp4\n", [("a, b.mp4", 1)]),
        ('fold,file,class,note\n3,"a, ""b"".mp4",0,"x, y"\n', [('a, "b".mp4', 0)]),
        ("a,b.mp4 3\n", [("a,b.mp4", 3)]),
        ("a b.mp4,3\n", [("a b.mp4", 3)]),
        ("a.mp4\nb.mp4\n", [("a.mp4", None), ("b.mp4", None)]),
        ("a, b.mp4;3\n", [("a, b.mp4", 3)]),
        ("a;b.mp4,3\n", [("a;b.mp4", 3)]),
        ("a;b.mp4 3\n", [("a;b.mp4", 3)]),
        ("a;b.mp4\nc.mp4\n", [("a;b.mp4", None), ("c.mp4", None)]),
        ("path;label;score\na.mp4;1;0,5\n", [("a.mp4", 1)]),
        ("clip path;class\na b.mp4;1\n", [("a b.mp4", 1)]),
    ],
)
def test_any_csv_shows_its_separator(content, rows, tmp_path):
    data = _write(tmp_path, {"train.csv": content})
    prefixed = DataFolder(data.path, prefix=data.path)
    videos = index.read_csv(prefixed, "train")
    assert _rows(videos, tmp_path) == rows
    assert videos.class_names is None


TEMPLATES = {
    "Holding something": "1",
    "Putting something next to something": "0",
    "Poking a hole": "2",
}
SSV2_TRAIN = [
    {"id": "78687", "label": "putting a cup next to a mug", "placeholders": ["a cup", "a mug"]}
    | {"template": "Putting [something] next to [something]"},
    {"id": "42326", "label": "holding a cup", "template": "Holding [something]"},
]


def _ssv2(folder: Path, form: str) -> DataFolder:
    return _write(
        folder,
        {
            form.format("labels"): json.dumps(TEMPLATES),
            form.format("train"): json.dumps(SSV2_TRAIN),
            form.format("validation"): json.dumps(SSV2_TRAIN[1:]),
            form.format("test"): json.dumps([{"id": "7"}, {"id": "8"}]),
        },
    )


@pytest.mark.parametrize("form", ["something-something-v2-{}.json", "{}.json", "labels/{}.json"])
@pytest.mark.parametrize("videos", ["", "20bn-something-something-v2", "videos"])
def test_something_something(form, videos, tmp_path):
    data = _ssv2(tmp_path, form)
    (tmp_path / videos).mkdir(exist_ok=True)
    names = index.ssv2_class_names(data)
    assert names == ("Putting something next to something", "Holding something", "Poking a hole")
    rows = _rows(index.read_ssv2(data, "train"), tmp_path / videos)
    assert rows == [("78687.webm", 0), ("42326.webm", 1)]
    for split in ("val", "test"):
        assert _rows(index.read_ssv2(data, split), tmp_path / videos) == [("42326.webm", 1)]
    unlabeled = read_ssv2_labels(str(tmp_path / form.format("test")), "/v")
    assert unlabeled.labels is None
    assert unlabeled.path(1) == "/v/8.webm"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"template": "Holding [something]"}], "entry 1: no id"),
        ([SSV2_TRAIN[0], {"id": "9"}], "entry 2: no template"),
        (
            [{"id": "9", "template": "Holdin [something]"}],
            "got 'Holdin something'.*'Holding some",
        ),
        ([SSV2_TRAIN[0], 3], "entry 2: an entry must be an object, got 3"),
        (
            [SSV2_TRAIN[0], {**SSV2_TRAIN[1], "id": "78687"}],
            "entry 2: '78687.webm' has the label 'H",
        ),
        ({}, "must contain a list, got dict"),
        ([], "has no rows"),
    ],
)
def test_malformed_something_something_is_named(entries, message, tmp_path):
    data = _ssv2(tmp_path, "{}.json")
    (tmp_path / "train.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message) as caught:
        index.read_ssv2(data, "train")
    assert "train.json" in str(caught.value)


def test_lists_win_and_lists_of_frames_are_passed_over(tmp_path):
    data = _ssv2(tmp_path, "{}.json")
    (tmp_path / "train.csv").write_text("a.webm 2\n")
    assert _rows(index.read_ssv2(DataFolder(data.path, prefix=data.path), "train"), tmp_path) == [
        ("a.webm", 2)
    ]
    header = "original_vido_id video_id frame_id path labels\n"
    (tmp_path / "train.csv").write_text(header + '78687 0 0 78687/78687_000001.jpg ""\n')
    assert len(index.read_ssv2(data, "train")) == 2


UCF_TRAIN = "Archery/v_Archery_g08_c01.avi 1\r\nBasketball/v_Basketball_g08_c02.avi 2\r\n"


@pytest.mark.parametrize("lists", ["", "ucfTrainTestlist"])
@pytest.mark.parametrize("videos", ["", "UCF-101"])
def test_ucf101(lists, videos, tmp_path):
    files = {
        "classInd.txt": "1 Archery\r\n2 Basketball\r\n",
        "trainlist01.txt": UCF_TRAIN,
        "testlist01.txt": "Basketball/v_Basketball_g01_c01.avi\r\n",
        "trainlist02.txt": "Archery/v_Archery_g01_c01.avi 1\n",
    }
    data = _write(tmp_path, {str(Path(lists, name)): text for name, text in files.items()})
    (tmp_path / videos).mkdir(exist_ok=True)
    assert index.ucf101_class_names(data) == ("Archery", "Basketball")
    assert _rows(index.read_ucf101(data, "train"), tmp_path / videos) == [
        ("Archery/v_Archery_g08_c01.avi", 0),
        ("Basketball/v_Basketball_g08_c02.avi", 1),
    ]
    for split in ("val", "test"):
        assert _rows(index.read_ucf101(data, split), tmp_path / videos) == [
            ("Basketball/v_Basketball_g01_c01.avi", 1)
        ]
    second = DataFolder(data.path, official_split=2)
    assert len(index.read_ucf101(second, "train")) == 1
    with pytest.raises(MissingListError, match=r"neither val.csv nor testlist02.txt"):
        index.read_ucf101(second, "val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trainlist01.txt", "Archery/v.avi 2\n", "line 1: .*'Archery' must be 1, got 2"),
        ("trainlist01.txt", UCF_TRAIN + "v.avi 1\n", "line 3: no label"),
        (
            "trainlist01.txt",
            "Archry/v.avi 1\n",
            "line 1: .*got 'Archry'.*'Archery'",
        ),
        ("classInd.txt", "1 Archery\n3 Basketball\n", "line 2: .*must be `2 <name>`, got '3 Bask"),
        ("classInd.txt", "\n", "must contain class names, got none"),
    ],
)
def test_malformed_ucf101_is_named(name, content, message, tmp_path):
    data = _write(
        tmp_path, {"classInd.txt": "1 Archery\n2 Basketball\n", "trainlist01.txt": UCF_TRAIN}
    )
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        index.read_ucf101(data, "train")
    assert name in str(caught.value)


def test_hmdb51(tmp_path):
    folder = "testTrainMulti_7030_splits"
    data = _write(
        tmp_path,
        {
            f"{folder}/wave_test_split1.txt": "a (1)_wave_u.avi 1 \nb#1_wave.avi 2 \nc.avi 0 \n",
            f"{folder}/brush_hair_test_split1.txt": "d_brush.avi 2 \ne_brush.avi 1 \n",
            f"{folder}/wave_test_split2.txt": "a_wave_u.avi 2 \n",
        },
    )
    (tmp_path / "hmdb51_org").mkdir()
    assert index.hmdb51_class_names(data) == ("brush_hair", "wave")
    assert _rows(index.read_hmdb51(data, "train"), tmp_path / "hmdb51_org") == [
        ("brush_hair/e_brush.avi", 0),
        ("wave/a (1)_wave_u.avi", 1),
    ]
    for split in ("val", "test"):
        assert _rows(index.read_hmdb51(data, split), tmp_path / "hmdb51_org") == [
            ("brush_hair/d_brush.avi", 0),
            ("wave/b#1_wave.avi", 1),
        ]
    (tmp_path / folder / "wave_test_split1.txt").write_text("a.avi 1\nb.avi 3\nc.avi\n")
    with pytest.raises(ValueError, match="2 malformed rows") as caught:
        index.read_hmdb51(data, "train")
    for line in (
        "wave_test_split1.txt, line 2: the line must be `<file name> 0, 1 or 2`",
        "line 3: ",
    ):
        assert line in str(caught.value)
    with pytest.raises(MissingListError, match="test_split3"):
        index.read_hmdb51(DataFolder(data.path, official_split=3), "train")


def test_imagenet(tmp_path):
    _touch(
        tmp_path,
        "train/n01440764/n01440764_1.JPEG",
        "train/n01440764/n01440764_10.JPEG",
        "train/n01443537/n01443537_2.JPEG",
        "train/n01484850/x.JPEG",
        "val/n01443537/ILSVRC2012_val_00000236.JPEG",
        "val/n01443537/readme.txt",
        "val/devkit/x.JPEG",
    )
    data = DataFolder(str(tmp_path))
    assert index.imagenet_class_names(data) == ("n01440764", "n01443537", "n01484850")
    train = index.read_imagenet(data, "train")
    assert _rows(train, tmp_path / "train") == [
        ("n01440764/n01440764_1.JPEG", 0),
        ("n01440764/n01440764_10.JPEG", 0),
        ("n01443537/n01443537_2.JPEG", 1),
        ("n01484850/x.JPEG", 2),
    ]
    assert train.notes == ()
    for split in ("val", "test"):
        # Numbered by the classes of the training set although one of them has no image here.
        videos = index.read_imagenet(data, split, ("tench", "goldfish", "great white shark"))
        assert _rows(videos, tmp_path / "val") == [("n01443537/ILSVRC2012_val_00000236.JPEG", 1)]
        assert videos.notes[0].startswith("ignored 2 entries")
    with pytest.raises(ValueError, match=r"got 1 names and 3 folders"):
        index.read_imagenet(data, "val", ("tench",))
    _touch(tmp_path / "other", "train/cat/1.jpg")
    with pytest.raises(ValueError, match=r"named after WordNet ids .*got none"):
        index.read_imagenet(DataFolder(str(tmp_path / "other")), "train")


def test_a_folder_a_class(tmp_path):
    _touch(
        tmp_path,
        "train/zoom in/b.MP4",
        "train/zoom in/deep/a.webm",
        "train/été/ü ö.jpg",
        "train/.cache/x.mp4",
        "train/été/notes.txt",
        "val/zoom in/c.mp4",
    )
    data = DataFolder(str(tmp_path))
    assert index.folder_class_names(data) == ("zoom in", "été")
    train = index.read_folder(data, "train")
    assert _rows(train, tmp_path / "train") == [
        ("zoom in/b.MP4", 0),
        ("zoom in/deep/a.webm", 0),
        ("été/ü ö.jpg", 1),
    ]
    assert train.notes == (
        "ignored 1 entries that are not videos or images of a class, such as 'été/notes.txt'",
    )
    assert _rows(index.read_folder(data, "val"), tmp_path / "val") == [("zoom in/c.mp4", 0)]
    with pytest.raises(MissingListError, match=r"no test.csv, and .*test does not exist"):
        index.read_folder(data, "test")
    _touch(tmp_path, "val/wipe/c.mp4")
    with pytest.raises(ValueError, match="must be a class name, got 'wipe'"):
        index.read_folder(data, "val")


def test_a_flat_folder_learns_that_a_list_without_labels_is_enough(tmp_path):
    _touch(tmp_path, "a.jpg", "b.jpg")
    enough = r"train does not exist; pre-training needs no labels: a train\.csv with one path per"
    with pytest.raises(MissingListError, match=enough):
        index.read_imagenet(DataFolder(str(tmp_path)), "train")
    with pytest.raises(MissingListError, match=r"val does not exist$"):
        index.read_imagenet(DataFolder(str(tmp_path)), "val")
    (tmp_path / "train.csv").write_text(f"{tmp_path}/a.jpg\n{tmp_path}/b.jpg\n")
    assert len(index.read_imagenet(DataFolder(str(tmp_path)), "train")) == 2


def test_a_folder_without_classes_or_splits(tmp_path):
    _touch(tmp_path, "b.mp4", "a.mov", "list.md")
    videos = index.read_folder(DataFolder(str(tmp_path)), "train")
    assert _rows(videos, tmp_path) == [("a.mov", None), ("b.mp4", None)]
    assert index.folder_class_names(DataFolder(str(tmp_path))) is None
    assert len(videos.notes) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no videos or images"):
        index.read_folder(DataFolder(str(tmp_path / "empty")), "train")
