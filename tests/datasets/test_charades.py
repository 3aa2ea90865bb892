"""Videos with any number of labels: Charades' lists of frames, and lists with several numbers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.tiny_run import MODEL, pairs
from helpers.videos_on_disk import numbered_frames, read_numbers
from PIL import Image

from slowfast_maskfeat.builders import DataSource, build_loader
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import (
    DataFolder,
    MissingListError,
    read_charades,
    read_csv,
    read_list,
)

HEADER = "original_vido_id video_id frame_id path labels\n"
MULTI = {"MODEL.LOSS_FUNC": "bce_logit", "MODEL.HEAD_ACT": "sigmoid", "MODEL.NUM_CLASSES": 5}
FULL = {
    "DATA.TRAIN_CROP_SIZE": 48,
    "DATA.TEST_CROP_SIZE": 48,
    "DATA.TRAIN_JITTER_SCALES": [48, 48],
    "DATA.RANDOM_FLIP": False,
}


def _row(name: str, frame: int, labels: str) -> str:
    return f'{name} 0 {frame} {name}/{name}-{frame + 1:06d}.jpg "{labels}"\n'


def _labels(frame: int) -> str:
    """Labels of 40 frames: 1 in [0, 10), 1 and 3 in [10, 20), none in [20, 30), 4 from there."""
    return ("1", "3,1", "", "4")[frame // 10]


@pytest.fixture
def folder(tmp_path):
    """Two videos of 40 frames; the second has label 0 throughout."""
    rows = HEADER + "".join(_row("AAAAA", n, _labels(n)) for n in range(40))
    rows += "".join(_row("BBBBB", n, "0") for n in range(40))
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text(rows)
    for name in ("AAAAA", "BBBBB"):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(numbered_frames(40, 48, 48)):
            Image.fromarray(frame).save(tmp_path / name / f"{name}-{number + 1:06d}.jpg")
    return tmp_path


def _data(folder, **options) -> DataFolder:
    return DataFolder(str(folder), prefix=str(folder), **options)


def test_videos_of_a_frame_list(folder):
    videos = read_charades(_data(folder), "train")
    assert len(videos) == 2
    assert [videos.path(row) for row in range(2)] == [str(folder / n) for n in ("AAAAA", "BBBBB")]
    assert videos.labels is None
    assert [videos.labels_of(row).tolist() for row in range(2)] == [[1, 3, 4], [0]]
    assert videos.first_files(5) == [
        str(folder / n / f"{n}-000001.jpg") for n in ("AAAAA", "BBBBB")
    ]


def test_labels_of_a_clip_are_those_of_its_frames(folder):
    videos = read_charades(_data(folder), "train")
    for first in range(0, 40, 3):
        for last in range(first, 40, 4):
            texts = [_labels(frame) for frame in range(first, last + 1)]
            expected = {int(label) for text in texts for label in text.split(",") if label}
            assert videos.labels_of(0, (first, last)).tolist() == sorted(expected)
            assert videos.labels_of(1, (first, last)).tolist() == [0]


def test_the_test_reads_the_validation_list(folder):
    (folder / "train.csv").unlink()
    same = [read_charades(_data(folder), split).fingerprint for split in ("val", "test")]
    assert same[0] == same[1]
    with pytest.raises(MissingListError, match=r"train\.csv does not exist"):
        read_charades(_data(folder), "train")


def test_the_hash_is_of_frames_and_labels_alone(folder):
    first = read_charades(_data(folder), "val").fingerprint
    assert read_charades(DataFolder(str(folder), prefix="/elsewhere"), "val").fingerprint == first
    text = (folder / "val.csv").read_text()
    (folder / "val.csv").write_text(text.replace('"0"', '"2"'))
    assert read_charades(_data(folder), "val").fingerprint != first


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"3,1"', '"3,x"', r"train\.csv, line 12: the label must be an integer >= 0, got 'x'"),
        ("AAAAA-000005", "AAAAA-000050", r"line 6: the next frame must be .*000005\.jpg, got"),
        ("BBBBB 0 5 ", "AAAAA 0 5 ", r"line 47: the rows of 'AAAAA' must be adjacent"),
        ('"0"\nBBBBB', "\nBBBBB", r"line 42: a row must be `name number number path"),
        ("labels", "tags of path", "a row must be|the label"),
    ],
)
def test_malformed_rows_are_named(folder, old, new, message):
    path = folder / "train.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    if old == "labels":  # only the column of the paths is required
        assert len(read_charades(_data(folder), "train")) == 2
        return
    with pytest.raises(ValueError, match=message):
        read_charades(_data(folder), "train")


def test_labels_are_checked_against_class_names(folder):
    with pytest.raises(ValueError, match=r"line 12: the label must be in \[0, 3\), got 3"):
        read_charades(_data(folder), "train", ("a", "b", "c"))


def _loader(folder, split, *options):
    names = {"TRAIN.DATASET": "charades", "TEST.DATASET": "charades"}
    names |= {"DATA.PATH_TO_DATA_DIR": folder, "DATA.PATH_PREFIX": folder, "TRAIN.BATCH_SIZE": 2}
    cfg = load_config([], pairs(MODEL, FULL, MULTI, names, *options))
    return build_loader(cfg, split, data=DataSource(cfg))


def test_a_training_clip_has_the_labels_of_its_frames(folder):
    clips = {"DATA.NUM_FRAMES": 2, "DATA.SAMPLING_RATE": 3, "AUG.NUM_SAMPLE": 2}
    loader, seen = _loader(folder, "train", clips), set()
    for epoch in range(8):
        (batch,) = loader.epoch(epoch)
        assert batch.labels.shape == (4, 5)
        for clip, labels, row in zip(batch.clips, batch.labels, batch.index.tolist(), strict=True):
            if row:
                assert labels.tolist() == [1, 0, 0, 0, 0]
                continue
            shown = read_numbers(clip.permute(1, 2, 3, 0).numpy())
            assert np.diff(shown).max() <= 4  # the rate counts frames
            texts = [_labels(frame) for frame in range(shown[0], shown[-1] + 1)]
            present = {int(label) for text in texts for label in text.split(",") if label}
            assert set(np.flatnonzero(labels).tolist()) == present
            seen.add(tuple(labels.tolist()))
    assert len(seen) > 1


def test_validation_and_test_have_the_labels_of_the_video(folder):
    for split, views in (("val", 1), ("test", 2)):
        (batch,) = _loader(folder, split).epoch(0)
        expected = [[0, 1, 0, 1, 1]] * views + [[1, 0, 0, 0, 0]] * views
        assert batch.labels.tolist() == expected


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ('a.mp4 7,3,3\nb.mp4 0\nc.mp4 ""\n', " "),
        ('a.mp4,"3,7"\nb.mp4,0\nc.mp4,\n', ","),
        ('path,label\na.mp4,"3, 7"\nb.mp4,0\nc.mp4,""\n', ","),
        ("a.mp4\t3,7\nb.mp4\t0\nc.mp4\t\n", "\t"),
        ("labels;video\n;c.mp4\n3,7;a.mp4\n0;b.mp4\n", ";"),
    ],
)
def test_lists_with_several_labels(tmp_path, text, separator):
    path = tmp_path / "train.csv"
    path.write_text(text)
    for videos in (
        read_list(path, separator=separator),
        read_csv(DataFolder(str(tmp_path)), "train"),
    ):
        assert videos.labels is None
        found = {videos.path(row): videos.labels_of(row).tolist() for row in range(3)}
        assert found == {"a.mp4": [3, 7], "b.mp4": [0], "c.mp4": []}
        assert (
            videos.placed("elsewhere", None).labels_of(0).tolist() == videos.labels_of(0).tolist()
        )
        with pytest.raises(ValueError, match="must have one label in each row here, got several"):
            videos.single_labels()


def test_lists_of_single_labels_stay_what_they_are(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("a,b.mp4 3\nc.mp4 0\n")
    videos = read_csv(DataFolder(str(tmp_path)), "train")
    assert videos.labels.tolist() == [3, 0] == videos.single_labels()
    assert videos.label_sets is None
    assert videos.path(0) == "a,b.mp4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a.mp4 3\nb.mp4 ""\n', r"line 2: no label"),
        ("a.mp4 3,x\n", r"line 1: the label must be an integer >= 0, got 'x'"),
        ("a.mp4 3,\nb.mp4 1,2\n", r"line 1: no label"),
        ("a.mp4 3,7\na.mp4 3\n", r"line 2: 'a.mp4' has the label 3, but 3,7 in line 1"),
        ("a.mp4 3,7\na.mp4 7,3\n", ""),
    ],
)
def test_malformed_sets_of_labels(tmp_path, text, message):
    path = tmp_path / "train.csv"
    path.write_text(text)
    if not message:
        assert read_list(path).notes[0].startswith("1 rows repeat a path")
        return
    with pytest.raises(ValueError, match=message):
        read_list(path)


def test_the_hash_depends_on_every_label(tmp_path):
    hashes = set()
    for labels in ("3,7", "3", "7", "3,8"):
        (tmp_path / "a.csv").write_text(f"a.mp4 {labels}\nb.mp4 1,2\n")
        hashes.add(read_list(tmp_path / "a.csv").fingerprint)
    assert len(hashes) == 4
