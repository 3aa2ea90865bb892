"""Lists become shards that give the same rows, also where the work was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers import dataset_scripts
from helpers.full_disk import TOO_LARGE, files_limited_to, unfinished

from slowfast_maskfeat.commands import data_shards
from slowfast_maskfeat.curation.write_shards import PackedRow, cut_into_shards, member_names
from slowfast_maskfeat.datasets import DataFolder, Shards, read_class_names, read_webdataset


def _files(folder: Path, count: int, *, size: int = 300) -> Path:
    """Files that only look like videos, with a list that has names for labels."""
    rows = []
    for number in range(count):
        name = f"{('run', 'jump')[number % 2]}/clip.{number:03d}.mp4"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{number} ".encode() * (size + number))
        rows.append(f"{name},{('run', 'jump')[number % 2]}\n")
    text = "path,label\n" + "".join(rows)
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text(text)
    return folder


def _run(folder, *words, splits=("train",), code=0):
    lists = [folder / f"{split}.csv" for split in splits]
    options = ["--prefix", folder, "--output", folder / "shards", "--processes", "1"]
    return dataset_scripts.run("make_shards.py", *lists, *options, *words, code=code)


def _read(folder, split):
    data = DataFolder(str(folder), shards=Shards())
    return read_webdataset(data, split, read_class_names(folder))


def _content(videos) -> list[tuple[bytes, int]]:
    return [(videos.content(row), int(videos.labels[row])) for row in range(len(videos))]


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.tar")}


def test_shards_hold_the_rows_of_the_lists(tmp_path):
    folder = _files(tmp_path / "data", 23)
    done = _run(folder, "--max-count", "5", "--processes", "2", splits=("train", "val"))
    shards = folder / "shards"
    assert read_class_names(shards) == ("jump", "run")
    assert f"DATA.PATH_TO_DATA_DIR {shards}" in done.stdout
    paths = [f"{('run', 'jump')[n % 2]}/clip.{n:03d}.mp4" for n in range(23)]
    expected = [((folder / path).read_bytes(), 1 - n % 2) for n, path in enumerate(paths)]
    train, val = (_read(shards, split) for split in ("train", "val"))
    assert _content(val) == expected  # in the order of the list
    assert sorted(_content(train)) == sorted(expected)
    assert _content(train) != expected
    assert val.path(3) == f"{shards}/val-000000.tar/jump/clip_003.mp4"
    assert (shards / "train_shards.txt").read_text() == "train-{000000..000004}.tar\n"
    # The indices that were written with them are those that reading makes.
    written = {path: path.read_text() for path in shards.glob("*.index.json")}
    assert len(written) == 10
    for path in written:
        path.unlink()
    _read(shards, "train"), _read(shards, "val")
    assert {path: path.read_text() for path in written} == written
    # The same rows give the same bytes, whatever number of processes writes them.
    before = _digests(shards)
    for path in shards.iterdir():
        path.unlink()
    _run(folder, "--max-count", "5", splits=("train", "val"))
    assert _digests(shards) == before


def test_sizes_and_order_are_as_asked_for(tmp_path):
    folder = _files(tmp_path / "data", 12, size=1000)
    _run(folder, "--max-size", "10K", "--keep-order", splits=("train", "val"))
    shards = folder / "shards"
    assert _content(_read(shards, "train")) == _content(_read(shards, "val"))
    sizes = []
    for path in shards.glob("train-*.tar"):
        with tarfile.open(path) as tar:
            sizes.append(sum(member.size for member in tar))
    assert max(sizes) < 10_000 + 100
    assert len(sizes) > 1
    rows = [PackedRow("", "", None, size) for size in (5, 5, 20, 1, 9, 1, 1)]
    cut = [
        [row.size for row in shard] for shard in cut_into_shards(rows, max_count=3, max_bytes=10)
    ]
    assert cut == [[5, 5], [20], [1, 9], [1, 1]]
    assert [len(s) for s in cut_into_shards(rows, max_count=2, max_bytes=99)] == [2, 2, 2, 1]


def test_keys_are_safe_and_there_once():
    paths = ["/d/a/x.mp4", "/d/a/x.webm", "/d/a.b/y.1.mp4", "/d/a.b/y_1.mp4", "/else/z.mp4"]
    names = ["a/x.mp4", "a/x_2.webm", "a.b/y_1.mp4", "a.b/y_1_2.mp4", "else/z.mp4"]
    assert member_names(paths, "/d") == names
    assert member_names(["s3://bucket/k/v.mp4", "/d/x.mp4"], "/d") == ["k/v.mp4", "x.mp4"]


def test_files_that_can_not_be_packed_are_listed(tmp_path):
    folder = _files(tmp_path / "data", 8)
    (folder / "run/clip.000.mp4").unlink()
    (folder / "jump/clip.003.mp4").write_bytes(b"")
    for split in ("train", "val"):
        with open(folder / f"{split}.csv", "a") as file:
            file.write("run/notes.docx,run\n")
    done = _run(folder, splits=("val",), code=1)
    assert "9 rows, 3 refused, 1 shards" in done.stdout
    assert (folder / "shards/val_refused.csv").read_text().splitlines() == [
        "path,reason",
        f"{folder}/run/clip.000.mp4,no such file",
        f"{folder}/jump/clip.003.mp4,the file is empty (0 bytes)",
        f"{folder}/run/notes.docx,the extension is not that of a video or image",
    ]
    assert Counter(_read(folder / "shards", "val").labels.tolist()) == {0: 3, 1: 3}


def test_a_full_disk_is_one_line_and_the_command_goes_on(tmp_path):
    folder = _files(tmp_path / "data", 12)
    with files_limited_to(3000):
        done = _run(folder, "--max-count", "4", code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert lines == [f"error: {folder / 'shards' / 'train-000000.tar'}: {TOO_LARGE}"]
    assert "read them with" not in done.stdout
    assert not unfinished(folder)
    assert "read them with" in _run(folder, "--max-count", "4").stdout
    assert len(_read(folder / "shards", "train")) == 12


def test_missing_shards_are_not_to_be_read(tmp_path, monkeypatch):
    folder = _files(tmp_path / "data", 6)
    monkeypatch.setattr(data_shards, "write_shards", lambda jobs, *_: ({jobs[0].path: "hung"}, []))
    done = _run(folder, code=1)
    assert "1 shards are missing; repeat the command" in done.stdout
    assert "read them with" not in done.stdout


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    folder = _files(tmp_path / "data", 60, size=20_000)
    words = [folder / "train.csv", "--prefix", folder, "--max-count", "2", "--processes", "1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    dataset_scripts.run("make_shards.py", *words, "--output", whole)
    command = dataset_scripts.command("make_shards.py", *words, "--output", cut)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(list(cut.glob("*.tar"))) < 3:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.5)  # its helper may be at one still
    there = {path: path.stat().st_ino for path in cut.glob("*.tar")}
    assert 3 <= len(there) < 30
    assert not (cut / "train_shards.txt").exists()
    # What was cut off has no name of a shard.
    assert {path.name: _digests(cut)[path.name] for path in there}.items() <= _digests(
        whole
    ).items()
    dataset_scripts.run("make_shards.py", *words, "--output", cut)
    assert _digests(cut) == _digests(whole)
    assert {path: path.stat().st_ino for path in there} == there  # not made again
    assert not list(cut.glob("*.part"))


def test_shards_of_other_rows_are_not_mixed(tmp_path):
    folder = _files(tmp_path / "data", 6)
    _run(folder)
    assert "shards of another list train" in _run(folder, "--seed", "1", code=2).stderr
    (folder / "run/clip.000.mp4").write_bytes(b"longer or shorter")
    done = _run(folder, code=2)
    assert "files that have changed" in done.stderr
    facts = json.loads((folder / "shards/train_shards.json").read_text())
    assert (facts["num_rows"], facts["num_shards"]) == (6, 1)
    (folder / "shards/train_shards.json").unlink()
    assert "of another program" in _run(folder, code=2).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-size", "lots"], "a number of bytes such as 500M"),
        (["--max-size", "0"], "a number of bytes"),
        (["--max-count", "0"], "--max-count: must be >= 1, got 0"),
        (["--prefix", "/nowhere"], "none of its 4 files can be packed"),
    ],
)
def test_bad_input_is_one_error(words, message, tmp_path):
    done = _run(_files(tmp_path / "data", 4), *words, code=2)
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
