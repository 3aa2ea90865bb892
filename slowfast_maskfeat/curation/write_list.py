"""List files: their text, and a split of rows into training and validation."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slowfast_maskfeat.files import is_address


class ListRow(NamedTuple):
    """A row to write: path with forward slashes, and class number or None."""

    path: str
    label: int | None


def relative_rows(paths: Sequence[str], labels: Sequence[int] | None, folder: str) -> list[ListRow]:
    """Make rows with paths relative to the folder of the videos, and unchanged addresses."""
    rows = []
    for index, path in enumerate(paths):
        if not is_address(path):
            path = os.path.relpath(path, folder).replace(os.sep, "/")
        rows.append(ListRow(path, None if labels is None else int(labels[index])))
    return rows


def separator_for(rows: Sequence[ListRow]) -> str:
    """Separator for a list: a space, as in published lists, or a comma if a path has a space."""
    return "," if any(re.search(r"\s", row.path) for row in rows) else " "


def list_text(rows: Sequence[ListRow], separator: str) -> str:
    """Text of a list file.

    Raises:
        ValueError: a path contains a line break.
    """
    for row in rows:
        if "\n" in row.path or "\r" in row.path:
            raise ValueError(f"paths in a list must not contain line breaks, got {row.path!r}")
    fields = ([path] if label is None else [path, str(label)] for path, label in rows)
    if separator == " ":
        return "".join(" ".join(row) + "\n" for row in fields)
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(fields)
    return text.getvalue()


def split_rows(
    rows: Sequence[ListRow], share: float, *, seed: int, group: str = ""
) -> tuple[list[ListRow], list[ListRow]]:
    """Split the rows of each class into training and held-out rows, for validation or test.

    Each class with at least two groups has one or more in both parts. Rows of a group stay together
    within their class. The draw of a class depends only on its own rows and the seed.

    Args:
        rows: rows to split.
        share: share of each class's rows that is held out, in (0, 1).
        seed: seed of the draw.
        group: regular expression whose match in a path is the group of a row, such as `_g\\d+_`
            for the films of UCF101; without it each path is a group.

    Returns:
        Training and held-out rows, each in the order of `rows`.

    Raises:
        ValueError: `share` is out of range, `group` is invalid or does not match a path, or no
            class has two groups.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of held-out rows must be in (0, 1), got {share:g}")
    by_label: dict[int | None, dict[str, list[int]]] = {}
    for index, row in enumerate(rows):
        groups = by_label.setdefault(row.label, {})
        groups.setdefault(_group_of(row.path, group), []).append(index)
    chosen: set[int] = set()
    for label, groups in by_label.items():
        generator = np.random.default_rng([seed, 0 if label is None else label + 1])
        members = [groups[name] for name in sorted(groups)]
        target = max(1, round(share * sum(map(len, members))))
        taken = 0
        for place in generator.permutation(len(members))[:-1].tolist():  # one stays in training
            if taken >= target:
                break
            chosen.update(members[place])
            taken += len(members[place])
    if not chosen:
        raise ValueError("a class must have at least two videos to split, got none that has")
    train = [row for index, row in enumerate(rows) if index not in chosen]
    return train, [row for index, row in enumerate(rows) if index in chosen]


def _group_of(path: str, pattern: str) -> str:
    if not pattern:
        return path
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise ValueError(
            f"the group must be a regular expression, got {pattern!r}: {error}"
        ) from error
    if match is None:
        raise ValueError(f"the group {pattern!r} must match every path, got {path!r}")
    return match.group()
