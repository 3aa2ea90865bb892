"""Rows of a data set -> a list file of this project's own form, and a split of them in two."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class ListRow(NamedTuple):
    """A row to write: a path with forward slashes, and a class number or None."""

    path: str
    label: int | None


def relative_rows(paths: Sequence[str], labels: Sequence[int] | None, folder: str) -> list[ListRow]:
    """Rows with paths relative to the folder of the videos; addresses (http://...) stay."""
    rows = []
    for index, path in enumerate(paths):
        if "://" not in path:
            path = os.path.relpath(path, folder).replace(os.sep, "/")
        rows.append(ListRow(path, None if labels is None else int(labels[index])))
    return rows


def separator_for(rows: Sequence[ListRow]) -> str:
    """A blank, as in published lists, or a comma where a path holds a blank."""
    return "," if any(re.search(r"\s", row.path) for row in rows) else " "


def list_text(rows: Sequence[ListRow], separator: str) -> str:
    """The text of a list file.

    Raises:
        ValueError: A path that no list file can hold, as it has a line end.
    """
    for row in rows:
        if "\n" in row.path or "\r" in row.path:
            raise ValueError(f"the path {row.path!r} holds a line end, which no list can have")
    fields = ([path] if label is None else [path, str(label)] for path, label in rows)
    if separator == " ":
        return "".join(" ".join(row) + "\n" for row in fields)
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(fields)
    return text.getvalue()


def split_rows(
    rows: Sequence[ListRow], share: float, *, seed: int, group: str = ""
) -> tuple[list[ListRow], list[ListRow]]:
    """Split rows into those to train and those to validate on, class by class.

    Each class with two groups or more keeps one at least on either side. Rows of a group stay
    together within their class. The draw of a class depends on its own rows and the seed alone.

    Args:
        rows: All of them.
        share: Of each class's rows that go to the validation set, above 0 and below 1.
        seed: Of the draw.
        group: Regular expression whose match in a path names the group of a row, such as
            `_g\\d+_` for the films of UCF101; without it a path is a group of its own.

    Returns:
        The two parts, each in the order of the rows.

    Raises:
        ValueError: A share out of range, an expression that is none or matches no path of a row,
            or nothing that could be validated on.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of the validation set must be between 0 and 1, got {share:g}")
    by_label: dict[int | None, dict[str, list[int]]] = {}
    for index, row in enumerate(rows):
        groups = by_label.setdefault(row.label, {})
        groups.setdefault(_group_of(row.path, group), []).append(index)
    chosen: set[int] = set()
    for label, groups in by_label.items():
        generator = np.random.default_rng([seed, 0 if label is None else label + 1])
        members = [groups[name] for name in sorted(groups)]
        wanted = max(1, round(share * sum(map(len, members))))
        taken = 0
        for place in generator.permutation(len(members))[:-1].tolist():  # one is left to train on
            if taken >= wanted:
                break
            chosen.update(members[place])
            taken += len(members[place])
    if not chosen:
        raise ValueError("no class has two videos, so that one could go to the validation set")
    train = [row for index, row in enumerate(rows) if index not in chosen]
    return train, [row for index, row in enumerate(rows) if index in chosen]


def _group_of(path: str, pattern: str) -> str:
    if not pattern:
        return path
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    if match is None:
        raise ValueError(f"{pattern!r}, which is to name the group, does not match {path!r}")
    return match.group()
