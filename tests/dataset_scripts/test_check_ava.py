"""What is wrong with files of AVA's form is told, with file and line, and taken out."""

from __future__ import annotations

import pytest
from helpers import dataset_scripts
from helpers.ava_data import extract_frames, make_ava

BAD_ROWS = {
    "vid0,0001,0.1,0.2,0.6,1.9,1,0": "the box must be in [0, 1], got 0.1, 0.2, 0.6, 1.9",
    "vid0,0001,0.6,0.2,0.1,0.9,1,0": "x1 <= x2, y1 <= y2, got 0.6, 0.2, 0.1, 0.9",
    "vid0,0001,0.1,0.2,0.6,0.9,9,0": "the action must be in 1..4, as in the label map, got 9",
    "vid0,0001,0.1,0.2,0.6,0.9,0,0": "the action must be in 1..4, as in the label map, got 0",
    "vid0,0001,0.1,0.2,0.6,0.9": "fields must be 7 or 8, as in the first row, got 6",
    "vid0,noon,0.1,0.2,0.6,0.9,1,0": "must be numbers: could not convert string to float: 'noon'",
    "vid0,0077,0.1,0.2,0.6,0.9,1,0": "the key frame at 77 s is outside of the file",
    "gone,0001,0.1,0.2,0.6,0.9,1,0": "the video 'gone' is missing in ",
    "torn,0001,0.1,0.2,0.6,0.9,1,0": "torn_000001.png cannot be decoded: ",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ava")
    make_ava(path)
    extract_frames(path)
    with open(path / "train_frames.csv", "a") as frames:  # one that is listed and not there
        frames.writelines(f'torn 3 {n} torn/torn_{n + 1:06d}.png ""\n' for n in range(150))
    lines = (path / "train.csv").read_text().splitlines()
    (path / "own.csv").write_text("\n".join(line for line in lines if line[:4] == "vid0") + "\n")
    truth = [line for line in lines if line[:4] != "vid0"]
    (path / "truth.csv").write_text("\n".join(truth) + "\n")
    return path


@pytest.fixture
def check(folder):
    """Runs the script in this process, on frames, where it needs no others."""

    def run(*words: object, code: int, on_frames: bool = True) -> tuple[str, str]:
        words = ("--label-map", folder / "actions.pbtxt", *words)
        if on_frames:
            words += ("--frames", folder / "frames", "--frame-begin", 0)
        done = dataset_scripts.run("check_ava.py", *words, code=code)
        return done.stdout, done.stderr

    return run


COUNTS = "own.csv: 8 rows, 1 videos, 3 key frames, 6 boxes, 4 actions; 0 problems"


@pytest.mark.parametrize("listed", [False, True])
def test_files_that_go_together_have_no_problem(folder, check, listed):
    words = ("--train", folder / "own.csv", "--test", folder / "test_boxes.csv")
    words += ("--ground-truth", folder / "truth.csv")
    words += ("--frame-lists", folder / "train_frames.csv") if listed else ()
    out, _ = check(*words, code=0)
    assert COUNTS in out
    assert "test_boxes.csv: 27 rows, 3 videos, 9 key frames, 18 boxes, 0 actions" in out
    assert out.splitlines()[-1] == "0 problems"


def test_videos_are_looked_at(folder):
    (folder / "videos" / "torn.mp4").write_text("no video")
    (folder / "both.csv").write_text((folder / "own.csv").read_text() + "torn,1,0,0,1,1,1,0\n")
    words = ("--label-map", folder / "actions.pbtxt", "--videos", folder / "videos")
    words += ("--train", folder / "own.csv", folder / "both.csv", "--processes", 1)
    out = dataset_scripts.run("check_ava.py", *words, code=1).stdout
    assert COUNTS in out
    told = [line for line in out.splitlines() if "both.csv, line 9" in line]
    assert "torn.mp4 cannot be decoded: cannot be opened as a video" in told[0]
    assert out.splitlines()[-1] == "1 problems"
    named = (folder / "own.csv").read_text() + "vid0.mp4,1,0,0,1,1,1,0\n"  # found by two names
    (folder / "both.csv").write_text(named)
    out = dataset_scripts.run("check_ava.py", *words, code=0).stdout
    assert out.splitlines()[-1] == "0 problems"


def test_each_problem_is_told_with_file_and_line_and_taken_out(folder, check, tmp_path):
    good = (folder / "own.csv").read_text()
    path = tmp_path / "bad.csv"
    path.write_text(good + "\n" + "\n".join(BAD_ROWS) + "\n" + good.splitlines()[0] + "\n")
    lists = ("--frame-lists", folder / "train_frames.csv")
    out, _ = check("--train", path, "--output", tmp_path / "clean", *lists, code=1)
    begin = good.count("\n") + 2  # behind an empty line
    for line, what in enumerate(BAD_ROWS.values(), begin):
        told = [text for text in out.splitlines() if f"{path}, line {line}: " in text]
        assert len(told) == 1, out
        assert what in told[0]
    assert f"{path}, line {begin + len(BAD_ROWS)}: repeats line 1" in out
    assert out.splitlines()[-3:] == [
        f"{len(BAD_ROWS) + 1} problems",
        f"wrote {tmp_path / 'clean' / 'bad.csv'}",
        f"wrote {tmp_path / 'clean' / 'bad_refused.csv'}",
    ]
    assert (tmp_path / "clean" / "bad.csv").read_text() == good + "\n"
    refused = (tmp_path / "clean" / "bad_refused.csv").read_text().splitlines()
    assert len(refused) == len(BAD_ROWS) + 2
    check("--train", tmp_path / "clean" / "bad.csv", *lists, code=0)


def test_files_that_do_not_go_together_are_told(folder, check, tmp_path):
    words = ("--ground-truth", folder / "truth.csv")
    other = tmp_path / "other.csv"
    other.write_text("vid0,0001,0,0,1,1,,0.95\n")
    out, _ = check(*words, "--test", other, "--train", folder / "train.csv", code=1)
    assert f"{other}: has no key frame in common with {folder / 'truth.csv'}" in out
    assert f"{folder / 'train.csv'}: 2 videos are also in {folder / 'truth.csv'}" in out
    (tmp_path / "excluded.csv").write_text("elsewhere,0902\n")
    out, _ = check(*words, "--excluded", tmp_path / "excluded.csv", code=1)
    assert "has no video in common with" in out
    other.write_text("vid0,0001,0,0,1,1,,0.2\n")
    out, _ = check(*words, "--test", other, code=1)
    assert "has no row with a score >= 0.9" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train", "gone.csv", "--videos", "."), "gone.csv does not exist"),
        (("--videos", "."), "must name a file to check, got none"),
        (("--train", "own.csv"), "--videos or --frames must be the folder"),
        (("--train", "own.csv", "--videos", "gone"), "must be a folder, got 'gone'"),
        (
            ("--train", "own.csv", "--videos", ".", "--output", "."),
            "--output must be another folder",
        ),
    ],
)
def test_bad_input_is_one_line(folder, check, words, message):
    words = [folder / word if str(word).endswith(("own.csv", ".")) else word for word in words]
    _, error = check(*words, code=2, on_frames=False)
    assert message in error
    assert error.count("\n") == 1
