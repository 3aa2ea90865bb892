"""Folders and official lists become list files that are read back as they were meant."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from helpers import dataset_scripts
from helpers.load_tool import ROOT

from slowfast_maskfeat.curation.write_list import ListRow, split_rows
from slowfast_maskfeat.datasets import read_list


def _class_folders(folder: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"clip_{number:02d}.mp4").touch()
    return folder


def _run(folder, *words, code=0):
    return dataset_scripts.run(
        "make_manifest.py", "--data", folder, "--output", folder.parent / "lists", *words, code=code
    )


def test_class_folders_become_lists_that_are_split_class_by_class(tmp_path):
    folder = _class_folders(tmp_path / "data", {"run": 40, "jump": 20, "sit": 2, "once": 1})
    done = _run(folder, "--val-share", "0.1")
    lists = tmp_path / "lists"
    train, val = (read_list(lists / f"{split}.csv") for split in ("train", "val"))
    assert (lists / "classes.txt").read_text().split() == ["jump", "once", "run", "sit"]
    assert Counter(val.labels.tolist()) == {0: 2, 2: 4, 3: 1}
    assert Counter(train.labels.tolist()) == {0: 18, 1: 1, 2: 36, 3: 1}
    paths = {videos.path(row) for videos in (train, val) for row in range(len(videos))}
    assert len(paths) == 63
    assert "run/clip_07.mp4" in paths
    assert f"train: 56 rows, 4 classes, sha256 {train.fingerprint}" in done.stdout
    assert f"val: 7 rows, 3 classes, sha256 {val.fingerprint}" in done.stdout
    assert f"DATA.PATH_PREFIX {folder}" in done.stdout


def test_a_share_of_the_rows_becomes_the_test(tmp_path):
    folder = _class_folders(tmp_path / "data", {"run": 40, "jump": 20, "three": 3})
    assert "no val.csv and no test.csv, which fine-tuning needs: --val-share, --test-share" in (
        _run(folder).stdout
    )
    _run(folder, "--val-share", "0.1", "--force")
    alone = (tmp_path / "lists" / "val.csv").read_text()
    done = _run(folder, "--val-share", "0.1", "--test-share", "0.2", "--force")
    assert "fine-tuning needs" not in done.stdout
    lists = {s: read_list(tmp_path / "lists" / f"{s}.csv") for s in ("train", "val", "test")}
    counts = {split: Counter(videos.labels.tolist()) for split, videos in lists.items()}
    assert counts == {
        "train": {0: 14, 1: 28, 2: 1},
        "val": {0: 2, 1: 4, 2: 1},
        "test": {0: 4, 1: 8, 2: 1},
    }
    assert (tmp_path / "lists" / "val.csv").read_text() == alone  # it has the same draw
    paths = [videos.path(row) for videos in lists.values() for row in range(len(videos))]
    assert len(paths) == len(set(paths)) == 63


def test_a_test_share_keeps_groups_together_and_replaces_the_test(tmp_path):
    folder = tmp_path / "data"
    for split, films in (("train", range(10)), ("test", range(10, 12))):
        (folder / split / "a").mkdir(parents=True)
        for name in (f"x_g{film:02d}_c{clip}.mp4" for film in films for clip in range(3)):
            (folder / split / "a" / name).touch()
    done = _run(folder, "--test-share", "0.2", "--group", r"_g\d+_")
    assert "ignored the 6 test rows of the data set (--test-share)" in done.stdout
    train, test = (read_list(tmp_path / "lists" / f"{s}.csv") for s in ("train", "test"))
    films = [{videos.path(row)[:-6] for row in range(len(videos))} for videos in (train, test)]
    assert list(map(len, films)) == [8, 2]
    assert not films[0] & films[1]


def test_the_draw_is_that_of_the_seed(tmp_path):
    folder = _class_folders(tmp_path / "data", {"a": 30, "b": 30})
    texts = []
    for seed in (0, 0, 1):
        _run(folder, "--val-share", "0.2", "--seed", seed, "--force")
        texts.append((tmp_path / "lists" / "val.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_lists_are_not_overwritten_without_force(tmp_path):
    folder = _class_folders(tmp_path / "data", {"a": 2, "b": 2})
    _run(folder, "--val-share", "0.5")
    done = _run(folder, code=2)
    assert "--force" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # and the progress
    _run(folder, "--force")
    # A validation list left from before would be read beside the new training list.
    assert not (tmp_path / "lists" / "val.csv").exists()


def test_blanks_quotes_and_other_scripts_come_back(tmp_path):
    names = ["riding a bike", 'the "best", of all', "跑步"]
    folder = _class_folders(tmp_path / "data", dict.fromkeys(names, 2))
    done = _run(folder)
    assert 'DATA.PATH_LABEL_SEPARATOR ","' in done.stdout
    videos = read_list(tmp_path / "lists" / "train.csv", separator=",")
    paths = [videos.path(row) for row in range(len(videos))]
    assert paths == [f"{name}/clip_{n:02d}.mp4" for name in sorted(names) for n in range(2)]


def test_an_official_list_keeps_its_splits(tmp_path):
    folder = tmp_path / "ucf"
    for name in ("Jump", "Run"):
        (folder / "UCF-101" / name).mkdir(parents=True)
    (folder / "classInd.txt").write_text("1 Jump\n2 Run\n")
    rows = [f"Jump/v_Jump_g{g:02d}_c01.avi 1" for g in range(8, 12)]
    (folder / "trainlist01.txt").write_text("\n".join(rows) + "\n")
    (folder / "testlist01.txt").write_text("Run/v_Run_g01_c01.avi\n")
    done = _run(folder, "--dataset", "ucf101")
    assert "train: 4 rows, 1 classes" in done.stdout
    assert "val: 1 rows" in done.stdout
    test = read_list(tmp_path / "lists" / "test.csv")
    assert (test.path(0), test.labels.tolist()) == ("UCF-101/Run/v_Run_g01_c01.avi", [1])


def test_groups_stay_together():
    rows = [ListRow(f"a/v_g{g:02d}_c{c:02d}.avi", 0) for g in range(10) for c in range(4)]
    train, val = split_rows(rows, 0.2, seed=3, group=r"_g\d+_")
    assert (len(train), len(val)) == (32, 8)
    groups = [{row.path[:7] for row in part} for part in (train, val)]
    assert not groups[0] & groups[1]
    # Rows of one path are one group even without an expression.
    twice = [ListRow(f"{n}.mp4", 0) for n in range(10) for _ in range(2)]
    parts = split_rows(twice, 0.5, seed=0)
    assert not {row.path for row in parts[0]} & {row.path for row in parts[1]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--val-share", "1.5"], "must be in (0, 1), got 1.5"),
        (["--test-share", "0"], "--test-share: must be in (0, 1), got 0"),
        (["--val-share", "0.5", "--test-share", "0.5"], "below 1 together, got 0.5 and 0.5"),
        (["--val-share", "0.5", "--group", "("], "must be a regular expression, got '('"),
        (["--val-share", "0.5", "--group", "_g1_"], "'_g1_' must match"),
        (["--group", "x"], "--val-share"),
        (["--dataset", "ucf101"], "trainlist01.txt"),
    ],
)
def test_bad_input_is_one_error(tmp_path, words, message):
    folder = _class_folders(tmp_path / "data", {"a": 2, "b": 2})
    done = _run(folder, *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "lists").exists()


def test_it_starts_without_torch():
    """Lists are made on machines, and in shells, where waiting for torch is all there is to do."""
    script = ROOT / "datasets" / "make_manifest.py"
    code = f"""
import runpy, sys
sys.argv = ["make_manifest.py", "--help"]
try:
    runpy.run_path({str(script)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code == 0
assert "slowfast_maskfeat.datasets.registry" in sys.modules
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_data_sets_that_no_list_can_hold_are_no_choice():
    help_text = dataset_scripts.run("make_manifest.py", "--help").stdout
    assert "{csv,folder,hmdb51,imagenet,kinetics,ssv2,ucf101}" in help_text
