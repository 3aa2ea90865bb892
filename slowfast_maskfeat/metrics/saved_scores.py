"""The file of a classification test: the scores of every video of its list."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.text import quoted

_REQUIRED = ("scores", "labels", "num_clips", "class_names", "facts")


@dataclass(frozen=True)
class SavedScores:
    """Scores of V videos for K classes, in the order of the list.

    Attributes:
        scores: (V, K) float64, higher is better.
        labels: (V,) int64 class numbers; -1 where no clip was decoded. Or (V, K) int64 of videos
            with any number of classes: 1 for those that it has, else 0.
        num_clips: (V,) int64, clips that were scored.
        class_names: of the K classes; empty if unknown.
        paths: of the V videos; empty in files of earlier versions.
        facts: of the list, the decoders and the test.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    num_clips: NDArray[np.int64]
    class_names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_label_sets(self) -> bool:
        """Whether a video has any number of classes."""
        return self.labels.ndim == 2

    def name(self, number: int) -> str:
        """Return the name of a class, or its number as text."""
        return self.class_names[number] if self.class_names else str(number)

    def path(self, row: int) -> str:
        """Return the path of a video, or the number of its row, from 1, as text."""
        return self.paths[row] if self.paths else f"row {row + 1}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the .npz."""
        with open(path, "wb") as file:  # savez would add a suffix to a path
            np.savez_compressed(
                file,
                scores=self.scores,
                labels=self.labels,
                num_clips=self.num_clips,
                class_names=np.array(self.class_names, dtype=np.str_),
                paths=np.array(self.paths, dtype=np.str_),
                facts=np.array(json.dumps(dict(self.facts))),
            )


def read_scores(path: str | os.PathLike[str]) -> SavedScores:
    """Read the .npz of a test.

    Raises:
        ValueError: there is no such file, or it is not the file of a classification test.
    """
    name = os.fspath(path)
    arrays = _read_arrays(name)
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise ValueError(
            f"{name} must be the .npz of a classification test, but has no {missing[0]!r}"
        )
    scores, labels, clips = (arrays[key] for key in ("scores", "labels", "num_clips"))
    names, paths = arrays["class_names"], arrays.get("paths", np.array([], np.str_))
    num_videos, num_classes = scores.shape if scores.ndim == 2 else (0, 0)
    is_table = scores.ndim == 2 and scores.size > 0 and scores.dtype.kind == "f"
    is_labels = _has_shape(labels, "i", num_videos)
    is_labels |= labels.dtype.kind == "i" and labels.shape == scores.shape
    rules = {
        "scores": (is_table, "floats (videos, classes)"),
        "labels": (
            is_labels,
            f"integers ({num_videos},), or ({num_videos}, {num_classes}) for several of a video",
        ),
        "num_clips": (_has_shape(clips, "i", num_videos), f"integers ({num_videos},)"),
        "class_names": (_has_shape(names, "US", num_classes, 0), f"texts ({num_classes},)"),
        "paths": (_has_shape(paths, "US", num_videos, 0), f"texts ({num_videos},)"),
    }
    for key, (is_right, accepted) in rules.items():
        if not is_right:
            got = arrays[key]
            raise ValueError(f"{name}: {key!r} must be {accepted}, got {got.dtype} {got.shape}")
    if labels.ndim == 2:
        if labels.min() < 0 or labels.max() > 1:
            raise ValueError(f"{name}: labels of several classes must be 0 or 1")
    elif labels.min() < -1 or labels.max() >= num_classes:
        wrong = int(labels[(labels < -1) | (labels >= num_classes)][0])
        raise ValueError(f"{name}: labels must be in [-1, {num_classes}), got {wrong}")
    if labels.ndim == 1 and (labels[clips > 0] < 0).any():
        raise ValueError(f"{name}: every scored video must have a label, got -1")
    return SavedScores(
        scores=scores.astype(np.float64),
        labels=labels.astype(np.int64),
        num_clips=clips.astype(np.int64),
        class_names=tuple(names.tolist()),
        paths=tuple(paths.tolist()),
        facts=_facts(name, arrays["facts"]),
    )


def _read_arrays(name: str) -> dict[str, NDArray[Any]]:
    if os.path.isdir(name):
        raise ValueError(
            f"{name} must be the .npz of a classification test, got a folder; name its "
            "test_scores_*.npz"
        )
    try:
        file = np.load(name, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise ValueError("it is a single array")
        with file:
            arrays = {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it can't be read as one"
        raise ValueError(
            f"{name} must be the .npz of a classification test, but {reason}"
        ) from error
    return {key: array for key, array in arrays.items() if isinstance(array, np.ndarray)}


def _has_shape(array: NDArray[Any], kinds: str, *lengths: int) -> bool:
    return array.ndim == 1 and len(array) in lengths and array.dtype.kind in kinds


def _facts(name: str, array: NDArray[Any]) -> Mapping[str, Any]:
    try:
        facts = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: 'facts' must be JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{name}: 'facts' must be a JSON object, got {quoted(facts)}")
    return facts
