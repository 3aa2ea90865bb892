"""`maskfeat report`: a page from scores alone, two tests compared, one error for bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers.load_tool import run_command
from helpers.report_page import numbers, read_report
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.metrics.intervals import paired_difference
from slowfast_maskfeat.metrics.saved_scores import SavedScores

NAMES = ("jump", "</script><i>", "run")


def make_scores(path, *, seed: int = 0, count: int = 30, **changes) -> SavedScores:
    """Write scores of random videos, of which the labels do not depend on the seed."""
    labels = np.random.default_rng(9).integers(0, 3, count)
    scores = np.random.default_rng(seed).random((count, 3)) + 0.6 * np.eye(3)[labels]
    values = {
        "scores": scores / scores.sum(1, keepdims=True),
        "labels": labels,
        "num_clips": np.full(count, 2),
        "class_names": NAMES,
        "paths": tuple(f"videos/{number}.mp4" for number in range(count)),
        "facts": {"list": "test.csv", "list_sha256": "a" * 64},
    }
    saved = SavedScores(**{**values, **changes})
    path.parent.mkdir(parents=True, exist_ok=True)
    saved.save(path)
    return saved


def _report(*words, output):
    return run_command("report", "--scores", *words, "--output", output)


def _right(saved):
    return saved.scores.argmax(1) == saved.labels


def test_a_report_of_scores_alone(tmp_path):
    saved = make_scores(tmp_path / "a.npz")
    done = _report(tmp_path / "a.npz", output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "out" / name for name in ("report.html", "report.json")]
    assert done.stdout.splitlines() == [f"wrote {path}" for path in files]
    content, page = read_report(tmp_path / "out")
    assert float(page.tiles["top1"]) == content["top1"]["percent"]
    assert content["top1"]["percent"] == pytest.approx(100 * _right(saved).mean())
    assert page.pictures == []
    assert "Without pictures, no such file:" in page.texts
    assert {of["not_drawn"] for of in content["worst"]} == {"no such file"}
    assert any("a" * 64 in text for text in page.texts)


def test_videos_whose_files_are_there_are_shown(tmp_path):
    videos = [str(tmp_path / f"{number}.mp4") for number in range(4)]
    for path in videos[:3]:
        write_video(path, numbered_frames(9), fps=30)
    scores = np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.7, 0.2, 0.1]])
    make_scores(
        tmp_path / "a.npz",
        scores=scores,
        labels=np.array([0, 2, 1, 0]),
        num_clips=np.ones(4, np.int64),
        paths=tuple(videos),
    )
    done = _report(tmp_path / "a.npz", output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    content, page = read_report(tmp_path / "out")
    assert [of["row"] for of in content["worst"]] == [1]
    assert [of["row"] for of in content["best"]] == [0, 2, 3]
    assert page.pictures == [f"frames of {videos[row]}" for row in (1, 0, 2)]
    assert content["best"][2]["not_drawn"] == "no such file"
    assert f"{videos[3]}: jump 0.700 (true: jump)" in page.texts


def test_addresses_of_a_file_are_not_opened(tmp_path):
    paths = tuple(f"http://localhost:1/{number}.mp4" for number in range(30))
    make_scores(tmp_path / "a.npz", paths=paths)
    assert _report(tmp_path / "a.npz", output=tmp_path / "out").returncode == 0
    content, _ = read_report(tmp_path / "out")
    assert {of["not_drawn"] for of in content["worst"]} == {"only local files are read"}


def test_a_file_of_an_earlier_version_has_a_report(tmp_path):
    make_scores(tmp_path / "a.npz", paths=(), class_names=(), facts={"list": "test.csv"})
    assert _report(tmp_path / "a.npz", output=tmp_path / "out").returncode == 0
    content, page = read_report(tmp_path / "out")
    assert [of["name"] for of in content["classes"]] == ["0", "1", "2"]
    assert content["worst"][0]["path"].startswith("row ")
    assert "Without pictures, the file of scores has no paths:" in page.texts


def test_scores_that_are_no_probabilities_have_no_calibration(tmp_path):
    saved = make_scores(tmp_path / "b.npz")
    make_scores(tmp_path / "a.npz", scores=saved.scores * 20 - 9)
    assert _report(tmp_path / "a.npz", output=tmp_path / "out").returncode == 0
    content, page = read_report(tmp_path / "out")
    assert content["calibration"] is None
    assert "ece" not in page.tiles
    assert any("they are no probabilities" in text for text in page.texts)


@pytest.fixture
def compared(tmp_path):
    clips = np.full(30, 2)
    clips[4] = 0
    first = make_scores(tmp_path / "a" / "s.npz", num_clips=clips)
    second = make_scores(tmp_path / "b" / "s.npz", seed=1)
    done = _report(tmp_path / "a" / "s.npz", tmp_path / "b" / "s.npz", output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    kept = np.arange(30) != 4
    return kept, first, second, read_report(tmp_path / "out")


def test_two_tests_are_compared_video_by_video(compared):
    kept, first, second, (content, page) = compared
    one, other = _right(first)[kept], _right(second)[kept]
    lost, gained = int((one & ~other).sum()), int((~one & other).sum())
    assert lost
    assert gained
    assert content["num_videos_compared"] == 29
    for test, right, name in zip(content["tests"], (one, other), ("first", "second"), strict=True):
        assert test["top1"]["percent"] == pytest.approx(100 * right.mean())
        assert float(page.tiles[name]) == test["top1"]["percent"]
    difference = content["difference"]
    assert difference["points"] == pytest.approx(100 * (other.mean() - one.mean()))
    counts = (int((one & other).sum()), lost, gained, int((~one & ~other).sum()))
    bounds = paired_difference(*counts)
    assert [difference[x] for x in ("low", "high")] == pytest.approx([100 * x for x in bounds])
    assert float(page.tiles["difference"]) == difference["points"]
    total = lost + gained
    tail = sum(math.comb(total, k) for k in range(min(lost, gained) + 1)) / 2**total
    assert content["mcnemar_p"] == pytest.approx(min(1, 2 * tail))
    assert float(page.tiles["mcnemar_p"]) == content["mcnemar_p"]
    square = page.tables["square"]
    assert numbers(square, "right") + numbers(square, "wrong") == [
        *(counts[0], counts[2], counts[1], counts[3])
    ]


def test_changed_videos_are_listed_and_counted_by_class(compared):
    kept, first, second, (content, page) = compared
    one, other = _right(first), _right(second)
    changed = {
        str(row): "right to wrong" if one[row] else "wrong to right"
        for row in np.flatnonzero((one != other) & kept)
    }
    table = page.tables["changed"]
    assert {row: cells["change"][0] for row, cells in table.items()} == changed
    for row, cells in table.items():
        number = int(row)
        assert cells["path"][1] == first.paths[number]
        assert cells["true"][1] == NAMES[first.labels[number]]
        assert cells["first"][1] == NAMES[first.scores[number].argmax()]
        assert cells["second"][1] == NAMES[second.scores[number].argmax()]
    assert [(of["row"], of["change"]) for of in content["changed"]] == [
        (int(row), change) for row, change in changed.items()
    ]
    classes = page.tables["classes"]
    for label, name in ((0, "support"), (1, "support"), (2, "support")):
        of_class = (first.labels == label) & kept
        row = classes[str(label)]
        assert float(row[name][0]) == of_class.sum()
        assert float(row["first"][0]) == pytest.approx(100 * one[of_class].mean())
        assert float(row["second"][0]) == pytest.approx(100 * other[of_class].mean())
        assert float(row["num_right_to_wrong"][0]) == (one & ~other)[of_class].sum()
        assert float(row["num_wrong_to_right"][0]) == (~one & other)[of_class].sum()


def test_equal_tests_do_not_differ(tmp_path):
    make_scores(tmp_path / "a.npz")
    done = _report(tmp_path / "a.npz", tmp_path / "a.npz", output=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    content, page = read_report(tmp_path / "out")
    assert content["difference"]["points"] == 0
    assert content["mcnemar_p"] == 1
    assert content["changed"] == []
    assert "No video is right in one only." in page.texts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 29}, "must be tests of the same list, got 30 and 29 videos"),
        ({"scores": np.ones((30, 4)), "class_names": ()}, "the same list, got 3 and 4 classes"),
        ({"labels": np.zeros(30, np.int64)}, "labels differ: that of row 1, 'videos/0.mp4', is"),
        ({"class_names": ("jump", "x", "run")}, "class names differ: '</script><i>' in the one is"),
        (
            {"paths": tuple(f"x/{n}.mp4" for n in range(30)), "facts": {"list_sha256": "b" * 64}},
            "row 1 is 'videos/0.mp4' in the one and 'x/0.mp4' in the other",
        ),
        ({"num_clips": np.zeros(30, np.int64)}, "have no video that both have scored"),
    ],
)
def test_tests_of_different_lists_are_one_error(tmp_path, changes, said):
    make_scores(tmp_path / "a.npz")
    make_scores(tmp_path / "b.npz", **changes)
    done = _report(tmp_path / "a.npz", tmp_path / "b.npz", output=tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --scores: ")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_the_same_list_in_another_folder_is_compared(tmp_path):
    make_scores(tmp_path / "a.npz")
    make_scores(tmp_path / "b.npz", paths=tuple(f"elsewhere/{n}.mp4" for n in range(30)))
    done = _report(tmp_path / "a.npz", tmp_path / "b.npz", output=tmp_path / "out")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["missing.npz", "text.npz", "other.npz", "detections.csv"])
def test_a_file_that_has_no_scores_is_one_error(tmp_path, name):
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "detections.csv").write_text("v,902,0,0,1,1,3,0.5\n")
    np.savez(tmp_path / "other.npz", features=np.zeros(3))
    done = _report(tmp_path / name, output=tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --scores: {tmp_path / name}")
    assert not (tmp_path / "out").exists()


def test_scores_of_no_video_are_one_error(tmp_path):
    make_scores(tmp_path / "a.npz", num_clips=np.zeros(30, np.int64))
    done = _report(tmp_path / "a.npz", output=tmp_path / "out")
    assert done.returncode == 2
    assert "at least one scored video, got none" in done.stderr


def test_another_report_is_not_overwritten(tmp_path):
    first, output = make_scores(tmp_path / "a.npz"), tmp_path / "out"
    make_scores(tmp_path / "b.npz", seed=1)
    for _ in range(2):  # the same again is no other content
        assert _report(tmp_path / "a.npz", output=output).returncode == 0
    done = _report(tmp_path / "b.npz", output=output)
    assert done.returncode == 2
    assert f"--output: {output / 'report.json'} exists and has another content" in done.stderr
    content = json.loads((output / "report.json").read_text())
    assert content["top1"]["num_right"] == _right(first).sum()
    assert _report(tmp_path / "b.npz", "--force", output=output).returncode == 0
    assert json.loads((output / "report.json").read_text()) != content
    (output / "report.json").unlink()
    (output / "report.html").write_text("mine")
    assert _report(tmp_path / "b.npz", output=output).returncode == 2
    (tmp_path / "file").write_text("")
    done = _report(tmp_path / "b.npz", output=tmp_path / "file")
    assert done.returncode == 2
    assert f"--output: must be a folder, got the file {tmp_path / 'file'}" in done.stderr


def test_a_folder_with_other_files_is_refused_without_force(tmp_path):
    make_scores(tmp_path / "a.npz")
    output = tmp_path / "mine"
    output.mkdir()
    (output / "notes.txt").write_text("kept")
    done = _report(tmp_path / "a.npz", output=output)
    assert done.returncode == 2
    said = f"--output must be a new folder, or have the same report, got {output} with 'notes.txt'"
    assert said in done.stderr
    assert [path.name for path in output.iterdir()] == ["notes.txt"]
    assert _report(tmp_path / "a.npz", "--force", output=output).returncode == 0
    assert _report(tmp_path / "a.npz", output=output).returncode == 0  # the same report


def test_a_folder_of_scores_is_named_as_such(tmp_path):
    done = _report(tmp_path, output=tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --scores: {tmp_path} must be the .npz of a classification test, got a folder; "
        "name its test_scores_*.npz\n"
    )


def test_three_files_and_negative_numbers_are_refused(tmp_path):
    done = _report("a", "b", "c", output=tmp_path)
    assert done.returncode == 2
    assert "--scores takes one file or two, got 3" in done.stderr
    done = run_command("report", "--scores", "a", "--output", tmp_path, "--videos", "-1")
    assert done.returncode == 2
    assert "--num-videos: must be >= 0, got -1" in done.stderr
