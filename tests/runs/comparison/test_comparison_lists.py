"""Parts of a data set: fewer labels, a held-out validation split, on lists and shards."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers.comparison import write_recipe
from helpers.tar_shards import write_shard
from helpers.tiny_run import make_videos
from PIL import Image

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.comparison.lists import replace_folder
from slowfast_maskfeat.runs.comparison.recipe import read_recipe
from slowfast_maskfeat.runs.comparison.study import prepare_data, read_stages

NUM_IMAGES, NUM_CLASSES = 40, 4


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for split, number in (("train", NUM_IMAGES), ("test", 8)):
        members: dict[str, bytes] = {}
        for row in range(number):
            file = io.BytesIO()
            Image.new("RGB", (32, 32), (row, 0, 0)).save(file, format="PNG")
            members[f"{row:05d}.png"] = file.getvalue()
            members[f"{row:05d}.cls"] = str(row % NUM_CLASSES).encode()
        write_shard(folder / f"images_{split}.tar", members)
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    return folder


def _prepare(folder: Path, data: Path, keys: dict, **sections):
    content = {"pretrain": keys, "finetune": keys}
    path = write_recipe(folder / "recipe.yaml", data=content, **sections)
    recipe = read_recipe(path, data=str(data))
    return prepare_data(recipe, read_stages(recipe), folder / "data")


def _videos(keys: dict, split: str):
    pairs = [str(word) for pair in keys.items() for word in pair]
    return DataSource(load_config([], ["DATA.NUM_FRAMES", "1", *pairs])).videos(split)


def _make_videos(folder: Path, number: int) -> Path:
    (folder / "videos").mkdir()
    return make_videos(folder / "videos", num_videos=number)


SHARD_KEYS = {
    "TRAIN.DATASET": "webdataset",
    "TEST.DATASET": "webdataset",
    "DATA.PATH_TO_DATA_DIR": "{data}",
    "DATA.TRAIN_SHARDS": "{data}/images_train.tar",
    "DATA.TEST_SHARDS": "{data}/images_test.tar",
}


def test_shards_are_split_and_thinned(shards, tmp_path):
    sections = {"hold_out": 0.2, "labels_per_class": 5, "few_labels": 2, "judges": ["few"]}
    data = _prepare(tmp_path, shards, SHARD_KEYS, **sections)
    contents = {
        part: {
            split: [_videos(keys, split).content(row) for row in range(len(_videos(keys, split)))]
            for split in ("train", "val", "test")
        }
        for part, keys in data.items()
    }
    sizes = {part: {s: len(rows) for s, rows in of.items()} for part, of in contents.items()}
    assert sizes == {
        "pretrain": {"train": 32, "val": 8, "test": 8},
        "finetune": {"train": 20, "val": 8, "test": 8},
        "few": {"train": 8, "val": 8, "test": 8},
    }
    whole = _videos({k: v.replace("{data}", str(shards)) for k, v in SHARD_KEYS.items()}, "train")
    all_images = {whole.content(row) for row in range(NUM_IMAGES)}
    pretrain = contents["pretrain"]
    assert set(pretrain["train"]) | set(pretrain["val"]) == all_images
    assert not set(pretrain["train"]) & set(pretrain["val"])
    for part in ("finetune", "few"):
        assert contents[part]["val"] == pretrain["val"]
        assert set(contents[part]["train"]) <= set(pretrain["train"])
        labels = _videos(data[part], "train").labels
        assert len(set(np.bincount(labels).tolist())) == 1
    assert set(contents["few"]["train"]) <= set(contents["finetune"]["train"])
    assert np.bincount(_videos(data["pretrain"], "val").labels).tolist() == [2, 2, 2, 2]


def test_lists_are_thinned_and_classes_keep_their_names(tmp_path):
    videos = _make_videos(tmp_path, 12)
    keys = {"DATA.PATH_TO_DATA_DIR": "{data}"}
    data = _prepare(tmp_path, videos, keys, few_labels=2, judges=["few"])
    assert set(data) == {"pretrain", "finetune", "few"}
    few = _videos(data["few"], "train")
    assert np.bincount(few.labels).tolist() == [2, 2, 2]
    assert all(Path(few.path(row)).is_file() for row in range(len(few)))
    assert len(_videos(data["few"], "test")) == 12
    folder = Path(data["few"]["DATA.PATH_TO_DATA_DIR"])
    assert (folder / "classes.txt").read_text() == (videos / "classes.txt").read_text()


def test_lists_may_be_moved_with_the_comparison(tmp_path):
    videos = _make_videos(tmp_path, 6)
    keys = {"DATA.PATH_TO_DATA_DIR": "{data}"}
    sections = {"few_labels": 1, "judges": ["few"]}
    before = _prepare(tmp_path, videos, keys, **sections)["few"]
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "data").rename(moved / "data")
    folder = moved / "data" / Path(before["DATA.PATH_TO_DATA_DIR"]).name
    written = (folder / "train.csv").stat().st_mtime_ns
    after = _prepare(moved, videos, keys, **sections)["few"]
    assert after["DATA.PATH_TO_DATA_DIR"] == str(folder)
    assert {**after, "DATA.PATH_TO_DATA_DIR": before["DATA.PATH_TO_DATA_DIR"]} == before
    assert (folder / "train.csv").stat().st_mtime_ns == written


def test_what_is_there_is_not_written_again(tmp_path):
    videos = _make_videos(tmp_path, 6)
    keys = {"DATA.PATH_TO_DATA_DIR": "{data}"}
    _prepare(tmp_path, videos, keys, few_labels=1, judges=["few"])
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*") if p.is_file()}
    assert files
    _prepare(tmp_path, videos, keys, few_labels=1, judges=["few"])
    assert {p: p.stat().st_mtime_ns for p in files} == files
    rows = (videos / "train.csv").read_text().splitlines()[:5]
    (videos / "train.csv").write_text("\n".join(rows) + "\n")
    few = _prepare(tmp_path, videos, keys, few_labels=5, judges=["few"])["few"]
    folder = Path(few["DATA.PATH_TO_DATA_DIR"])
    assert len((folder / "train.csv").read_text().splitlines()) == 5
    # Other rows are in another folder: what was trained on the first ones is still theirs.
    assert {p: p.stat().st_mtime_ns for p in files} == files


@pytest.mark.parametrize("damage", ["cut record", "list as record", "lost list"])
def test_a_damaged_part_is_written_again(tmp_path, damage):
    videos = _make_videos(tmp_path, 6)
    sections = {"few_labels": 1, "judges": ["few"]}
    few = _prepare(tmp_path, videos, {"DATA.PATH_TO_DATA_DIR": "{data}"}, **sections)["few"]
    folder = Path(few["DATA.PATH_TO_DATA_DIR"])
    whole = {path.name: path.read_text() for path in folder.iterdir()}
    if damage == "lost list":
        (folder / "train.csv").unlink()
    else:
        record = whole["part.json"][:40] if damage == "cut record" else "[]"
        (folder / "part.json").write_text(record)
    again = _prepare(tmp_path, videos, {"DATA.PATH_TO_DATA_DIR": "{data}"}, **sections)["few"]
    assert again == few
    assert {path.name: path.read_text() for path in folder.iterdir()} == whole


def test_a_folder_is_replaced_where_a_path_begins_with_it():
    def replaced(text: str) -> str:
        return replace_folder(text, "/a/im", "{output}")

    assert replaced("/a/im") == "{output}"
    assert replaced("/a/im/x.csv") == "{output}/x.csv"
    assert replaced("['/a/im/x', '/a/im']") == "['{output}/x', '{output}']"
    assert replaced("/a/im_data/list") == "/a/im_data/list"


def test_a_grid_does_not_choose_on_the_test_split(tmp_path):
    videos = _make_videos(tmp_path, 6)  # the same list for val and test
    keys = {"DATA.PATH_TO_DATA_DIR": "{data}"}
    with pytest.raises(ValueError, match="grid requires a validation split that is not the test"):
        _prepare(tmp_path, videos, keys, grid={"finetune": [1.0]})
    data = _prepare(tmp_path, videos, keys, grid={"finetune": [1.0]}, hold_out=0.5)
    assert len(_videos(data["finetune"], "val")) == 3


def test_lists_without_labels_have_no_few_of_them(tmp_path):
    videos = _make_videos(tmp_path, 4)
    (videos / "train.csv").write_text("".join(f"{videos / f'{n}.mp4'}\n" for n in range(4)))
    keys = {"DATA.PATH_TO_DATA_DIR": "{data}"}
    with pytest.raises(ValueError, match="must have labels, to take 1 of each class"):
        _prepare(tmp_path, videos, keys, few_labels=1, judges=["few"])
