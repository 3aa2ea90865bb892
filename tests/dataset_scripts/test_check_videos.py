"""Broken videos are named, each with the reason, and nothing waits for them."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import av
import pytest
from helpers import dataset_scripts, tiny_run
from helpers.broken_videos import broken_folder, make_pieces, write_list
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.curation.check_videos import check_video
from slowfast_maskfeat.datasets import read_list

TIMEOUT = 8  # seconds
REASONS = {
    "truncated": "ends early: it has [1-9] frames.* 10",
    "empty": "the file is empty",
    "text": "cannot be opened as a video",
    "zeroed middle": "frame [4-6] of 10 .* cannot be decoded",
    "audio only": "has no video stream",
    "garbage": "cannot be opened as a video",
    "header only": "has no frames",
    "no index": "cannot be opened as a video",
    "missing": "no such file",
    "stalling": f"hung: not done after {TIMEOUT} s",
}
# A front part of these is there: training reads it, and only a check tells that it is not all.
USABLE_IN_PART = {"truncated", "zeroed middle"}


@pytest.fixture(scope="module")
def dirty(tmp_path_factory):
    with broken_folder(tmp_path_factory.mktemp("dirty")) as folder:
        yield folder


@pytest.fixture(scope="module")
def checked(dirty, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checked")
    write_list(folder / "train.csv", dirty.rows)
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    words = (folder / "train.csv", "--output", folder / "clean", "--timeout", TIMEOUT)
    return folder, dataset_scripts.run("check_videos.py", *words, "--processes", 2, code=1)


@pytest.mark.slow
def test_exactly_the_broken_ones_of_400_are_refused_with_the_reason(dirty, checked):
    assert len(dirty.rows) == 400
    assert len(dirty.broken) == 40
    folder, done = checked
    with open(folder / "clean" / "train_refused.csv") as file:
        refused = {row["path"]: row for row in csv.DictReader(file)}
    assert set(refused) == set(dirty.broken)
    assert set(dirty.broken.values()) == set(REASONS)
    for path, way in dirty.broken.items():
        assert re.match(REASONS[way], refused[path]["reason"]), (way, refused[path])
        assert dirty.rows[int(refused[path]["line"]) - 1][0] == path
    assert "400 rows, 40 refused" in done.stdout
    assert "400/400 (100%)" in done.stderr


@pytest.mark.slow
def test_the_clean_list_has_the_other_rows_as_they_were(dirty, checked):
    folder, _ = checked
    clean = folder / "clean"
    kept = [(path, label) for path, label in dirty.rows if path not in dirty.broken]
    assert (clean / "train.csv").read_text() == "".join(f"{path} {label}\n" for path, label in kept)
    assert (clean / "classes.txt").read_text() == "a\nb\nc\nd\n"
    report = json.loads((clean / "train_check.json").read_text())
    assert report["clean_list_sha256"] == read_list(clean / "train.csv").fingerprint
    assert report["list_sha256"] == read_list(folder / "train.csv").fingerprint
    assert (report["num_rows"], report["num_refused"]) == (400, 40)
    assert "pyav" in report["decoders"]
    assert not list(clean.glob(".*")), "the journal of a run that is over"


@pytest.mark.slow
def test_training_on_the_dirty_list_counts_them_and_evaluation_lists_them(dirty, tmp_path):
    for split in ("train", "val", "test"):
        write_list(tmp_path / f"{split}.csv", dirty.rows)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    options = {
        "DATA.MAX_BAD_FRACTION": 0.2,
        "DATA.DECODE_TIMEOUT": 4.0,
        "DATA_LOADER.NUM_WORKERS": 1,
        "TRAIN.BATCH_SIZE": 20,
        "TEST.BATCH_SIZE": 20,
        "SOLVER.MAX_EPOCH": 1,
        "SOLVER.WARMUP_EPOCHS": 0,
        "TEST.NUM_ENSEMBLE_VIEWS": 1,
    }
    done = tiny_run.run(tmp_path, tmp_path / "output", options)
    assert done.returncode == 0, done.stderr[-3000:]
    hopeless = {path for path, way in dirty.broken.items() if way not in USABLE_IN_PART}
    (epoch,) = tiny_run.events(tmp_path / "output", "epoch")
    (test,) = tiny_run.events(tmp_path / "output", "test")
    for event in (epoch, test):
        assert event["num_expected"] == 400
        assert 400 - len(dirty.broken) <= event["num_decoded"] <= 400 - len(hopeless)
    assert hopeless <= set(_lost(test)) <= set(dirty.broken)


def _lost(test: dict) -> list[str]:
    return [entry["path"] if isinstance(entry, dict) else entry[0] for entry in test["lost"]]


@pytest.mark.slow
def test_an_interrupted_check_goes_on_where_it_was(tmp_path):
    whole, _ = make_pieces(tmp_path / "pieces")
    rows = []
    for number in range(60):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(whole)
        rows.append((str(path), 0))
    (tmp_path / "7.mp4").write_bytes(b"")
    write_list(tmp_path / "train.csv", rows)
    words = (tmp_path / "train.csv", "--output", tmp_path / "clean", "--processes", 1)
    journal = tmp_path / "clean" / ".train_check.jsonl"
    running = subprocess.Popen(dataset_scripts.command("check_videos.py", *words))
    try:
        tiny_run.wait_for(lambda: journal.exists() and journal.read_text().count("\n") > 12)
    finally:
        running.kill()
        running.wait()
    if not journal.exists():
        pytest.skip("it was done before it could be interrupted")
    # What was found out is kept: the file is whole now, and was not when it was looked at.
    (tmp_path / "7.mp4").write_bytes(whole)
    with open(journal, "a") as file:
        file.write('["torn li')
    changed = dataset_scripts.run("check_videos.py", *words, "--full", code=2)
    assert "must be those of the interrupted run" in changed.stderr
    done = dataset_scripts.run("check_videos.py", *words, "--processes", 2, code=1)
    assert "line 8" in done.stdout
    assert "60 rows, 1 refused" in done.stdout
    dataset_scripts.run("check_videos.py", *words, code=0)


def test_full_finds_a_damaged_frame_between_those_that_are_looked_at(tmp_path):
    # Key frames alone, so that the first, the middle and the last do not need the damaged one.
    path = write_video(tmp_path / "a.mp4", numbered_frames(10, 32, 32), gop=1)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][7]
        begin, size = packet.pos, packet.size
    content[begin : begin + size] = bytes(size)
    path.write_bytes(bytes(content))
    assert check_video(str(path)) is None
    failure = check_video(str(path), full=True)
    assert failure is not None
    assert "frame 7 of 10" in failure.reason


def test_decord_is_compared_with_the_frames_that_there_are(tmp_path):
    pytest.importorskip("decord")
    frames = numbered_frames(60, 48, 64)
    good = write_video(tmp_path / "good.mp4", frames, bframes=2)
    opened = {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
    bad = write_video(tmp_path / "bad.mp4", frames, bframes=3, options=opened)
    assert check_video(str(good), backend="decord") is None
    assert check_video(str(bad), backend="pyav") is None
    failure = check_video(str(bad), backend="decord")
    assert failure is not None
    assert "decord returns a different picture for frame" in failure.reason


def test_quoted_paths_headers_and_blanks_stay_as_they_are(tmp_path):
    whole, _ = make_pieces(tmp_path / "pieces")
    for name in ("a b.mp4", 'say "hi".mp4', "Übung.mp4"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "gone, with comma.mp4").write_bytes(b"no video")
    text = 'path,label\n"a b.mp4",0\n\n"gone, with comma.mp4",1\n"say ""hi"".mp4",1\nÜbung.mp4,0\n'
    (tmp_path / "train.csv").write_text(text, encoding="utf-8")
    words = (tmp_path / "train.csv", "--output", tmp_path / "clean", "--prefix", tmp_path)
    done = dataset_scripts.run("check_videos.py", *words, "--processes", 1, code=1)
    assert "line 4" in done.stdout
    kept = (tmp_path / "clean" / "train.csv").read_text(encoding="utf-8")
    assert kept == 'path,label\n"a b.mp4",0\n"say ""hi"".mp4",1\nÜbung.mp4,0\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv", "--output", "clean"], "none.csv does not exist"),
        (["train.csv", "--output", "."], "must be another folder"),
        (["train.csv", "--output", "clean", "--processes", "0"], "--processes: must be >= 1"),
        (["train.csv", "--output", "clean", "--timeout", "0"], "must be above 0 seconds, got 0"),
    ],
)
def test_bad_input_is_one_error(tmp_path, words, message):
    (tmp_path / "train.csv").write_text("a.mp4 0\n")
    done = dataset_scripts.run("check_videos.py", *words, code=2, cwd=tmp_path)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_path_that_is_not_utf8_survives(tmp_path):
    whole, _ = make_pieces(tmp_path / "pieces")
    try:
        Path(tmp_path / "caf\udce9.mp4").write_bytes(whole)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    row = f"{tmp_path}/caf".encode() + b"\xe9.mp4 0\n"
    (tmp_path / "train.csv").write_bytes(row)
    words = (tmp_path / "train.csv", "--output", tmp_path / "clean", "--processes", 1)
    dataset_scripts.run("check_videos.py", *words)
    assert (tmp_path / "clean" / "train.csv").read_bytes() == row
