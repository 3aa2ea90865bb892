"""Report of a classification test of videos with any number of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.figures import page, page_report
from slowfast_maskfeat.figures.page_report import Tile, VideoCard
from slowfast_maskfeat.metrics.multi_label import average_precisions, mean_average_precision
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.runs.test_report.examples import Frames, ReadFrames, read_or_reason
from slowfast_maskfeat.runs.test_report.write import (
    Report,
    fact_lines,
    finite,
    lost_lines,
    lost_videos,
    not_drawn,
    number_cell,
    ranked_class,
    summary,
)
from slowfast_maskfeat.text import printable

_NUM_BEST = 5  # classes of a video
_NUM_LINES = 3  # of them on its card


def report_label_sets(saved: SavedScores, title: str, read: ReadFrames, num_videos: int) -> Report:
    """Report a test of videos with any number of classes.

    Args:
        saved: scores of the test, with labels (V, K).
        title: of the page.
        read: decodes frames of a row.
        num_videos: videos to show of each kind, wrong and right.

    Raises:
        ValueError: no video was scored.
    """
    rows = np.flatnonzero(saved.num_clips > 0)
    if not len(rows):
        raise ValueError("a report needs at least one scored video, got none")
    content = _content(saved, rows, num_videos)
    frames = {}
    for example in (*content["worst"], *content["best"]):
        frames[example["row"]], example["not_drawn"] = read_or_reason(read, example["row"])
    return Report(content, _page(content, title, frames))


def _content(saved: SavedScores, rows: NDArray[np.int64], num_videos: int) -> dict[str, Any]:
    """Return the numbers; those of examples without their frames."""
    scores, labels = saved.scores[rows], saved.labels[rows]
    precisions = average_precisions(scores, labels)
    counts = labels.sum(0).tolist()
    most = int(saved.num_clips.max())
    examples = _choose(scores, labels, num_videos)
    return {
        "kind": "multi-label",
        "facts": dict(saved.facts),
        "num_videos": len(saved.labels),
        "num_videos_scored": len(rows),
        "num_videos_incomplete": int(((saved.num_clips > 0) & (saved.num_clips < most)).sum()),
        "num_videos_not_finite": int((~np.isfinite(scores).all(1)).sum()),
        "mean_ap": finite(mean_average_precision(precisions)),
        "num_classes": len(counts),
        "num_classes_counted": int((~np.isnan(precisions)).sum()),
        "lost": lost_videos(saved),
        "classes": [
            {
                "class": number,
                "name": saved.name(number),
                "ap": finite(precision),
                "num_videos": count,
                "share": count / len(rows),
            }
            for number, (precision, count) in enumerate(
                zip(precisions.tolist(), counts, strict=True)
            )
        ],
        "worst": [_example(saved, int(rows[place])) for place in examples.worst],
        "best": [_example(saved, int(rows[place])) for place in examples.best],
    }


class _Chosen(NamedTuple):
    """Places of videos that are worth a look.

    Attributes:
        worst: with the highest score of a class that they do not have, the highest first.
        best: whose class with the highest score is one of theirs.
    """

    worst: list[int]
    best: list[int]


def _choose(scores: NDArray[np.float64], labels: NDArray[np.int64], count: int) -> _Chosen:
    """Choose up to `count` videos of each kind; of equal scores the earlier rows."""
    known = np.where(np.isfinite(scores), scores, -np.inf)
    absent = np.where(labels > 0, -np.inf, known).max(1)
    present = np.where(labels > 0, known, -np.inf).max(1)
    found = []
    for values, is_kind in ((absent, absent >= present), (present, present > absent)):
        order = np.argsort(-values, kind="stable")
        found.append(order[(is_kind & np.isfinite(values))[order]][:count].tolist())
    return _Chosen(*found)


def _example(saved: SavedScores, row: int) -> dict[str, Any]:
    scores = saved.scores[row]
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")[:_NUM_BEST]
    return {
        "row": row,
        "path": printable(saved.path(row)),
        "true": [saved.name(number) for number in np.flatnonzero(saved.labels[row]).tolist()],
        "predicted": [[saved.name(n), finite(float(scores[n]))] for n in order.tolist()],
    }


def _page(content: Mapping[str, Any], title: str, frames: Mapping[int, Frames]) -> str:
    return page.html_page(
        title,
        page.paragraph(summary(content)),
        page_report.tiles(_tiles(content)),
        page.section("Measured with", page.bullets(fact_lines(content["facts"]))),
        page.section("Lost videos", page.bullets(lost_lines(content["lost"]))),
        page.section("Classes", page_report.tall(_class_table(content["classes"]))),
        _example_section("Wrong: the class with the highest score", content["worst"], frames),
        _example_section("Right: the class with the highest score", content["best"], frames),
        style=page_report.STYLE,
    )


def _tiles(content: Mapping[str, Any]) -> list[Tile]:
    mean = content["mean_ap"]
    note = (
        f"over {content['num_classes_counted']} of {content['num_classes']} classes, those with "
        "videos"
    )
    shown = "-" if mean is None else f"{100 * mean:.2f} %"
    return [Tile("mean_ap", "mean average precision", shown, mean, note)]


def _class_table(classes: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        page.Head("class", "Class"),
        page.Head("ap", "average precision", "%"),
        page.Head("num_videos", "videos"),
        page.Head("share", "share", "% of the videos: the precision of guessing"),
    ]
    rows = [
        page.Row(
            str(of["class"]),
            of["name"],
            [
                number_cell(None if of["ap"] is None else 100 * of["ap"], 1),
                number_cell(of["num_videos"]),
                number_cell(100 * of["share"], 1),
            ],
        )
        for of in classes
    ]
    return page.sortable_table("classes", heads, rows)


def _example_section(
    title: str, examples: Sequence[Mapping[str, Any]], frames: Mapping[int, Frames]
) -> str:
    cards, missing = [], dict[str, str]()
    for of in examples:
        ranked = [ranked_class(*pair) for pair in of["predicted"][:_NUM_LINES]]
        lines = [", ".join(ranked), f"true: {', '.join(of['true']) or 'none'}"]
        if of["not_drawn"]:
            missing[f"{of['path']}: {'; '.join(lines)}"] = of["not_drawn"]
        else:
            cards.append(VideoCard(frames[of["row"]], of["path"], lines))
    return page.section(title, page_report.video_cards(cards), not_drawn(missing))
