"""Class names, annotation files, shard indices and ground truth are read once per run."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from helpers.ava_data import make_ava
from helpers.opened_files import opened_files
from helpers.tar_shards import write_shard
from helpers.tiny_run import FINETUNING, MODEL, events, make_videos, pairs

from slowfast_maskfeat.builders import DataSource, build_loader, build_model, build_task
from slowfast_maskfeat.builders.data import read_videos
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import registry
from slowfast_maskfeat.runs.run import run

SPLITS = ("train", "val", "test")
# Everything in a run that depends on the classes.
MIXED = {"MIXUP.ENABLE": True, "MODEL.LOSS_FUNC": "soft_cross_entropy", "SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), num_videos=8)


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """Weights that a fine-tuning starts from."""
    state = build_model(load_config([], pairs(MODEL, FINETUNING))).state_dict()
    return save_checkpoint(tmp_path_factory.mktemp("start") / "a.pyth", {"model_state": state})


def _opened(cfg, folder: Path, record: Path) -> Counter[str]:
    """Run; the most that any process opened each file in the folder that is no video."""

    def counted(path: str) -> bool:
        return path.startswith(f"{folder}{os.sep}") and not path.endswith((".mp4", ".tar", ".part"))

    with opened_files(record, counted) as counts:
        run(cfg)
    most: Counter[str] = Counter()
    for (_, path), count in counts.items():
        name = os.path.relpath(path, folder)
        most[name] = max(most[name], count)
    return most


def _config(folder: Path, output: Path, start: Path, *options: dict):
    names = {
        "DATA.PATH_TO_DATA_DIR": folder,
        "OUTPUT_DIR": output,
        "TRAIN.CHECKPOINT_FILE_PATH": start,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
        "TRAIN.CHECKPOINT_MIN_COVERAGE": 0.5,
    }
    return load_config([], pairs(MODEL, FINETUNING, MIXED, names, *options))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fine_tuning_reads_class_names_and_each_list_once(videos, start, tmp_path, num_workers):
    options = {"DATA_LOADER.NUM_WORKERS": num_workers, "LOG_MODEL_INFO": num_workers == 0}
    cfg = _config(videos, tmp_path / "out", start, options)
    once = {"classes.txt": 1, "train.csv": 1, "val.csv": 1, "test.csv": 1}
    assert _opened(cfg, videos, tmp_path / "opened") == once
    assert [len(events(tmp_path / "out", kind)) for kind in ("validation", "test")] == [1, 1]
    # And so does a run that goes on, whose classes are compared with those of its checkpoint.
    cfg = _config(videos, tmp_path / "out", start, options, {"SOLVER.MAX_EPOCH": 2})
    assert _opened(cfg, videos, tmp_path / "opened") == once
    assert [event["epoch"] for event in events(tmp_path / "out", "start")] == [0, 1]


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_a_probe_reads_class_names_and_each_list_once(videos, start, tmp_path, kind):
    options = {"PROBE.KIND": kind, "PROBE.NUM_NEIGHBORS": 2, "PROBE.EPOCHS": 1}
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train.csv", "val.csv", "test.csv", "classes.txt"):
        shutil.copy(videos / name, folder)
    (folder / "val.csv").write_text((videos / "val.csv").read_text().split("\n", 1)[1])
    opened = _opened(_config(folder, tmp_path / "out", start, options), folder, tmp_path / "opened")
    once = {"classes.txt": 1, "train.csv": 1, "test.csv": 1}
    assert opened == once | ({} if kind == "knn" else {"val.csv": 1})


@pytest.mark.parametrize("name", ["csv", "kinetics", "folder"])
def test_names_in_the_lists_are_read_with_them(videos, start, tmp_path, name):
    """One list file a split, which says separator, class names and samples."""
    folder = tmp_path / "data"
    folder.mkdir()
    comma = {"DATA.PATH_LABEL_SEPARATOR": ","} if name == "kinetics" else {}
    for split in SPLITS:
        rows = (videos / f"{split}.csv").read_text().replace(" ", ",class ")
        (folder / f"{split}.csv").write_text(f"path,label\n{rows}")
    if name == "folder":  # its class folders have the names, its lists win as to the samples
        for number in range(3):
            (folder / "train" / f"class {number}").mkdir(parents=True)
    names = {"TRAIN.DATASET": name, "TEST.DATASET": name}
    cfg = _config(folder, tmp_path / "out", start, names, comma)
    source = DataSource(cfg)
    assert source.class_names == ("class 0", "class 1", "class 2")
    expected = str(folder) if name == "folder" else "labels of the training split"
    assert source.class_names_source == expected
    (folder / "classes.txt").write_text("x\ny\nz\n")
    assert DataSource(cfg).class_names_source == str(folder / "classes.txt")
    (folder / "classes.txt").unlink()
    opened = _opened(cfg, folder, tmp_path / "opened")
    assert opened == {f"{split}.csv": 1 for split in SPLITS}


@pytest.mark.parametrize("has_names", [False, True])
def test_each_index_of_a_shard_is_read_once(videos, start, tmp_path, has_names):
    folder = tmp_path / "shards"
    folder.mkdir()
    for split in ("train", "val"):
        for shard in range(4):
            members: dict[str, bytes] = {}
            for row in range(2 * shard, 2 * shard + 2):
                label = f"class {row % 3}" if has_names else f"{row % 3}"
                members[f"{row}.mp4"] = (videos / f"{row}.mp4").read_bytes()
                members[f"{row}.cls"] = label.encode()
            write_shard(folder / f"{split}-{shard}.tar", members)
    if not has_names:
        shutil.copy(videos / "classes.txt", folder)
    shards = {"TRAIN.DATASET": "webdataset", "TEST.DATASET": "webdataset"}
    shards |= {f"DATA.{split}_SHARDS": "val-{0..3}.tar" for split in ("VAL", "TEST")}
    shards["DATA.SHARD_CACHE"] = folder / "cache"
    indices = {f"{s}-{n}.tar.index.json" for s in ("train", "val") for n in range(4)}
    names = {} if has_names else {"classes.txt": 1}
    # Those that the run makes itself are not read again. Validation and test have the same ones.
    opened = _opened(_config(folder, tmp_path / "a", start, shards), folder, tmp_path / "opened")
    assert opened == names
    assert {path.name for path in folder.glob("*.json")} == indices
    opened = _opened(_config(folder, tmp_path / "b", start, shards), folder, tmp_path / "opened")
    assert opened == dict.fromkeys(indices, 1) | names


def test_a_detection_reads_each_file_of_ava_once(tmp_path):
    folder = tmp_path / "ava"
    cfg = load_config([], pairs(MODEL, make_ava(folder)))
    with opened_files(tmp_path / "opened", lambda path: path.endswith((".csv", ".pbtxt"))) as found:
        data = DataSource(cfg)
        task = build_task(cfg, build_model(cfg, data=data), data=data)
        loaders = {split: build_loader(cfg, split, data=data) for split in SPLITS}
        for split in ("val", "val", "test"):
            task.evaluation(loaders[split].dataset.videos, 1)
    opened = {os.path.relpath(path, folder): count for (_, path), count in found.items()}
    # The boxes of a detector are those of two splits.
    assert opened == {"actions.pbtxt": 1, "train.csv": 1, "test_boxes.csv": 2, "truth.csv": 1}


def test_without_a_source_a_builder_reads_afresh(videos, tmp_path):
    for name in ("train.csv", "classes.txt"):
        shutil.copy(videos / name, tmp_path)
    cfg = load_config([], pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": tmp_path}))
    data = DataSource(cfg)
    assert build_loader(cfg, "train", data=data).dataset.videos is data.videos("train")
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    heads = [build_model(cfg, data=given).head.projection for given in (data, None)]
    assert [head.out_features for head in heads] == [3, 4]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("kinetics", {"train.csv": "a.mp4 2\n"}, r"MODEL.NUM_CLASSES\), got 2 for .*a\.mp4"),
        ("kinetics", {"train.csv": "a.mp4\n"}, r"train\.csv: .*`path label`.*paths without labels"),
        (
            "ssv2",
            {"train.json": '[{"id": "1", "template": "x"}]'},
            r"classes\.txt must .*train\.json",
        ),
        ("kinetics", {"val.csv": "a.mp4 0\n"}, r"train\.csv does not exist"),
    ],
)
def test_labels_must_be_there_and_be_classes(name, files, message, tmp_path):
    for file, content in files.items():
        (tmp_path / file).write_text(content)
    options = {"TRAIN.DATASET": name, "MODEL.NUM_CLASSES": 2, "DATA.PATH_TO_DATA_DIR": tmp_path}
    cfg = load_config([], pairs(MODEL, options))
    with pytest.raises(ValueError, match=message):
        read_videos(cfg, "train", DataSource(cfg))


def test_a_model_is_built_without_its_data_set():
    """A checkpoint of another's data set is used where that is not registered."""
    options = {"TRAIN.DATASET": "theirs", "TEST.DATASET": "theirs", "MODEL.NUM_CLASSES": 7}
    assert "theirs" not in registry._KINDS
    assert DataSource(load_config([], pairs(MODEL, options))).num_classes == 7


@pytest.mark.parametrize("name", ["kinetics", "csv"])
@pytest.mark.parametrize("separator", ["\\t", "\t"])
def test_a_tab_is_given_as_shells_pass_it(name, separator, tmp_path):
    (tmp_path / "train.csv").write_text("a b.mp4\t3\n")
    options = {
        "DATA.PATH_TO_DATA_DIR": tmp_path,
        "DATA.PATH_LABEL_SEPARATOR": separator,
        "TRAIN.DATASET": name,
    }
    videos = DataSource(load_config([], pairs(MODEL, options))).videos("train")
    assert (videos.path(0), videos.labels.tolist()) == ("a b.mp4", [3])
