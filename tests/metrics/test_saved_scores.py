"""The file of a test: as it was written, in the form of earlier versions, and damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slowfast_maskfeat.metrics.saved_scores import SavedScores, read_scores

SCORES = SavedScores(
    scores=np.array([[0.9, 0.1], [0.0, 0.0]]),
    labels=np.array([0, -1]),
    num_clips=np.array([2, 0]),
    class_names=("a", "</b>"),
    paths=("x/\udcff.mp4", "y z.mp4"),
    facts={"list": "test.csv", "lost": []},
)


def test_a_file_is_read_as_it_was_written(tmp_path):
    SCORES.save(tmp_path / "a.npz")
    found = read_scores(tmp_path / "a.npz")
    for name in ("scores", "labels", "num_clips"):
        np.testing.assert_array_equal(getattr(found, name), getattr(SCORES, name))
    for name in ("class_names", "paths", "facts"):
        assert getattr(found, name) == getattr(SCORES, name)
    assert found.name(1) == "</b>"
    assert found.path(0) == "x/\udcff.mp4"


def _arrays(**changes):
    arrays = {
        "scores": np.array([[0.9, 0.1], [0.0, 0.0]]),
        "labels": np.array([0, -1]),
        "num_clips": np.array([2, 0]),
        "class_names": np.array([], np.str_),
        "facts": np.array(json.dumps({})),
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def test_a_file_of_an_earlier_version_has_no_paths(tmp_path):
    np.savez_compressed(tmp_path / "old.npz", **_arrays())
    found = read_scores(tmp_path / "old.npz")
    assert found.paths == ()
    assert found.path(1) == "row 2"
    assert found.name(1) == "1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"must be the \.npz of a classification test, but has no 'labels'"),
        ({"scores": np.zeros(2)}, r"'scores' must be floats \(videos, classes\), got float64 \(2,"),
        ({"scores": np.zeros((0, 2))}, "'scores' must be floats"),
        (
            {"labels": np.array([0])},
            r"'labels' must be integers \(2,\), or \(2, 2\) .*, got int64 \(1,\)",
        ),
        ({"labels": np.array([0, 2])}, r"labels must be in \[-1, 2\), got 2"),
        ({"labels": np.array([-1, -1])}, "every scored video must have a label, got -1"),
        ({"labels": np.array([[0, 1], [2, 0]])}, "labels of several classes must be 0 or 1"),
        ({"num_clips": np.array([1.0, 2.0])}, "'num_clips' must be integers"),
        ({"class_names": np.array(["a"])}, r"'class_names' must be texts \(2,\)"),
        ({"paths": np.array(["a"])}, r"'paths' must be texts \(2,\)"),
        ({"facts": np.array("{")}, "'facts' must be JSON"),
        ({"facts": np.array("[1]")}, r"'facts' must be a JSON object, got \[1\]"),
        ({"scores": np.array([[None]])}, "it can't be read as one"),
    ],
)
def test_another_content_is_one_clear_error(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **_arrays(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        read_scores(tmp_path / "a.npz")
    assert str(caught.value).startswith(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_archive_is_one_clear_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"must be the \.npz of a classification test"):
        read_scores(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="no such file"):
        read_scores(tmp_path / "b.npz")
    np.save(tmp_path / "c.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"must be the \.npz of a classification test"):
        read_scores(tmp_path / "c.npy")
