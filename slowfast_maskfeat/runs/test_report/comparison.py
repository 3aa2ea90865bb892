"""Comparison of two classification tests of the same list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.figures import page, page_report
from slowfast_maskfeat.figures.page_report import Tile
from slowfast_maskfeat.metrics.class_report import Ranking, accuracy, rank
from slowfast_maskfeat.metrics.intervals import mcnemar, paired_difference
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.runs.test_report.write import (
    Report,
    accuracy_content,
    accuracy_tile,
    fact_lines,
    number_cell,
)
from slowfast_maskfeat.text import printable, quoted

_MAX_ROWS = 1000  # of changed videos on the page
_GAINED, _LOST = "wrong to right", "right to wrong"


def compare_tests(first: SavedScores, second: SavedScores, names: tuple[str, str]) -> Report:
    """Compare two tests of the same list.

    Only videos that both have scored count, so that the difference is paired.

    Args:
        first: scores of a test.
        second: of another model, or with other views.
        names: of both, for messages and the page.

    Raises:
        ValueError: the lists or the classes differ, or no video was scored by both.
    """
    for saved, name in zip((first, second), names, strict=True):
        if saved.has_label_sets:
            raise ValueError(
                f"{name} must have one label for each video to compare tests, got several; make a "
                "report of each"
            )
    _check_same(first, second, names)
    rows = np.flatnonzero((first.num_clips > 0) & (second.num_clips > 0))
    if not len(rows):
        raise ValueError(f"{names[0]} and {names[1]} have no video that both have scored")
    rankings = (rank(first).of_rows(rows), rank(second).of_rows(rows))
    content = _content((first, second), rankings, rows, names)
    return Report(content, _page(content))


def _check_same(first: SavedScores, second: SavedScores, names: tuple[str, str]) -> None:
    both = f"{names[0]} and {names[1]} must be tests of the same list"
    if len(first.labels) != len(second.labels):
        raise ValueError(f"{both}, got {len(first.labels)} and {len(second.labels)} videos")
    if first.scores.shape[1] != second.scores.shape[1]:
        got = f"{first.scores.shape[1]} and {second.scores.shape[1]}"
        raise ValueError(f"{both}, got {got} classes")
    known = (first.labels >= 0) & (second.labels >= 0)
    different = np.flatnonzero(known & (first.labels != second.labels)).tolist()
    if different:
        row = different[0]
        raise ValueError(
            f"{both}, but {len(different)} labels differ: that of {_place(first, row)} is "
            f"{first.labels[row]} in the one and {second.labels[row]} in the other"
        )
    if first.class_names and second.class_names and first.class_names != second.class_names:
        pairs = zip(first.class_names, second.class_names, strict=True)
        one, other = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"{both}, but class names differ: {quoted(one)} in the one is {quoted(other)} in the "
            "other"
        )
    hashes = [saved.facts.get("list_sha256") for saved in (first, second)]
    if hashes[0] and hashes[0] == hashes[1]:
        return  # the videos may have been moved
    pairs = zip(first.paths, second.paths, strict=bool(first.paths and second.paths))
    for row, (one, other) in enumerate(pairs):
        if one != other:
            raise ValueError(
                f"{both}, but row {row + 1} is {quoted(one)} in the one and {quoted(other)} in the "
                "other"
            )


def _place(saved: SavedScores, row: int) -> str:
    return f"row {row + 1}" + (f", {quoted(saved.paths[row])}," if saved.paths else "")


def _content(
    tests: tuple[SavedScores, SavedScores],
    rankings: tuple[Ranking, Ranking],
    rows: NDArray[np.int64],
    names: tuple[str, str],
) -> dict[str, Any]:
    first, second = (ranking.is_right() for ranking in rankings)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    bounds = paired_difference(both, only_first, only_second, neither)
    return {
        "kind": "comparison",
        "num_videos": len(tests[0].labels),
        "num_videos_compared": len(rows),
        "tests": [
            {
                "file": name,
                "facts": dict(saved.facts),
                "num_videos_scored": int((saved.num_clips > 0).sum()),
                "top1": accuracy_content(accuracy(ranking.is_right())),
                "top5": accuracy_content(accuracy(ranking.is_right(5))),
            }
            for name, saved, ranking in zip(names, tests, rankings, strict=True)
        ],
        "difference": {
            "points": 100 * (only_second - only_first) / len(rows),
            "low": 100 * bounds.low,
            "high": 100 * bounds.high,
        },
        "mcnemar_p": mcnemar(only_first, only_second),
        "num_both_right": both,
        "num_only_first_right": only_first,
        "num_only_second_right": only_second,
        "num_both_wrong": neither,
        "classes": _classes(tests, rankings[0].labels, first, second),
        "changed": [
            _changed(tests, rankings, int(place)) for place in np.flatnonzero(first != second)
        ],
    }


def _name(tests: tuple[SavedScores, SavedScores], number: int) -> str:
    return (tests[0] if tests[0].class_names else tests[1]).name(number)


def _classes(
    tests: tuple[SavedScores, SavedScores],
    labels: NDArray[np.int64],
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """Accuracy of each class in both tests."""
    number = tests[0].scores.shape[1]
    masks = (np.ones_like(first), first, second, first & ~second, ~first & second)
    counts = [np.bincount(labels[mask], minlength=number).tolist() for mask in masks]
    return [
        {
            "class": place,
            "name": _name(tests, place),
            "support": support,
            "first": 100 * one / support if support else None,
            "second": 100 * other / support if support else None,
            "points": 100 * (other - one) / support if support else None,
            "num_right_to_wrong": lost,
            "num_wrong_to_right": gained,
        }
        for place, (support, one, other, lost, gained) in enumerate(zip(*counts, strict=True))
    ]


def _changed(
    tests: tuple[SavedScores, SavedScores], rankings: tuple[Ranking, Ranking], place: int
) -> dict[str, Any]:
    row = int(rankings[0].rows[place])
    predicted = [_name(tests, int(ranking.best[place, 0])) for ranking in rankings]
    return {
        "row": row,
        "path": printable((tests[0] if tests[0].paths else tests[1]).path(row)),
        "true": _name(tests, int(rankings[0].labels[place])),
        "first": predicted[0],
        "second": predicted[1],
        "change": _LOST if bool(rankings[0].is_right()[place]) else _GAINED,
    }


def _page(content: Mapping[str, Any]) -> str:
    one, other = content["tests"]
    return page.html_page(
        "Two tests of the same list",
        page.bullets([f"first: {printable(one['file'])}", f"second: {printable(other['file'])}"]),
        page.paragraph(_summary(content)),
        page_report.tiles(_tiles(content)),
        page.section("Both together", _square(content)),
        page.section("Classes", page_report.tall(_class_table(content["classes"]))),
        _changed_section(content["changed"]),
        page.section("First test: measured with", page.bullets(fact_lines(one["facts"]))),
        page.section("Second test: measured with", page.bullets(fact_lines(other["facts"]))),
        style=page_report.STYLE,
    )


def _summary(content: Mapping[str, Any]) -> str:
    number, listed = content["num_videos_compared"], content["num_videos"]
    text = f"{number:,} of {listed:,} videos are scored by both tests."
    if number < listed:
        text += " The others do not count."
    found = content["difference"]
    is_clear = found["low"] > 0 or found["high"] < 0
    return text + (
        f" The second is {abs(found['points']):.2f} points "
        f"{'better' if found['points'] > 0 else 'worse'}; the interval of the difference does not "
        "include 0."
        if is_clear
        else " The interval of the difference includes 0: these videos do not tell which is better."
    )


def _tiles(content: Mapping[str, Any]) -> list[Tile]:
    one, other = content["tests"]
    found, p = content["difference"], content["mcnemar_p"]
    points, low, high = (found[key] for key in ("points", "low", "high"))
    changed = content["num_only_first_right"] + content["num_only_second_right"]
    return [
        accuracy_tile("first", "top-1 of the first", one["top1"]),
        accuracy_tile("second", "top-1 of the second", other["top1"]),
        Tile(
            "difference",
            "second minus first",
            f"{points:+.2f} points",
            points,
            f"95 % interval {low:+.2f} to {high:+.2f}, paired",
            (low / 100, points / 100, high / 100),
            is_difference=True,
        ),
        Tile("mcnemar_p", "McNemar's exact p", f"{p:.3g}", p, f"two-sided, {changed:,} changed"),
        accuracy_tile("first_top5", "top-5 of the first", one["top5"]),
        accuracy_tile("second_top5", "top-5 of the second", other["top5"]),
    ]


def _square(content: Mapping[str, Any]) -> str:
    heads = [
        page.Head("first", "First"),
        page.Head("right", "second right"),
        page.Head("wrong", "second wrong"),
    ]
    counts = {
        "right": ("num_both_right", "num_only_first_right"),
        "wrong": ("num_only_second_right", "num_both_wrong"),
    }
    rows = [
        page.Row(name, f"first {name}", [number_cell(content[key]) for key in keys])
        for name, keys in counts.items()
    ]
    return page.sortable_table("square", heads, rows)


def _class_table(classes: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        page.Head("class", "Class"),
        page.Head("support", "videos"),
        page.Head("first", "first", "%"),
        page.Head("second", "second", "%"),
        page.Head("points", "difference", "points"),
        page.Head("num_right_to_wrong", _LOST, "videos"),
        page.Head("num_wrong_to_right", _GAINED, "videos"),
    ]
    digits = {"first": 1, "second": 1, "points": 1}
    rows = [
        page.Row(
            str(of["class"]),
            of["name"],
            [number_cell(of[head.name], digits.get(head.name, 0)) for head in heads[1:]],
        )
        for of in classes
    ]
    return page.sortable_table("classes", heads, rows)


def _changed_section(changed: Sequence[Mapping[str, Any]]) -> str:
    if not changed:
        return page.section("Changed videos", page.paragraph("No video is right in one only."))
    heads = [
        page.Head("path", "Video"),
        page.Head("change", "change", kind="text"),
        page.Head("true", "true class", kind="text"),
        page.Head("first", "first", "predicted", "text"),
        page.Head("second", "second", "predicted", "text"),
    ]
    rows = [
        page.Row(
            str(of["row"]),
            of["path"],
            [page.Cell(of[head.name], of[head.name], kind="text") for head in heads[1:]],
        )
        for of in changed[:_MAX_ROWS]
    ]
    rest = len(changed) - len(rows)
    note = f"The first {len(rows):,} of {len(changed):,}; all are in the JSON file." if rest else ""
    table = page_report.tall(page.sortable_table("changed", heads, rows))
    return page.section("Changed videos", table, page.paragraph(note, is_soft=True))
