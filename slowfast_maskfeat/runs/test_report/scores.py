"""Report of a classification test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slowfast_maskfeat.figures import page, page_matrix, page_report
from slowfast_maskfeat.figures.page_report import ReliabilityBin, Tile, VideoCard
from slowfast_maskfeat.metrics.calibration import calibrate
from slowfast_maskfeat.metrics.class_report import (
    ClassRow,
    Confusions,
    Ranking,
    accuracy,
    class_rows,
    confusion_order,
    count_confusions,
    frequent_confusions,
    rank,
)
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.runs.test_report.examples import (
    Frames,
    ReadFrames,
    choose_examples,
    read_or_reason,
)
from slowfast_maskfeat.runs.test_report.label_sets import report_label_sets
from slowfast_maskfeat.runs.test_report.write import (
    Report,
    accuracy_content,
    accuracy_tile,
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

_NUM_CONFUSIONS = 100  # in the table
_NUM_LINES = 3  # best classes of a video
_SORTS = "A click on a heading sorts the table."


def report_scores(saved: SavedScores, title: str, read: ReadFrames, num_videos: int) -> Report:
    """Report a classification test; that of videos with any number of classes has other parts.

    Args:
        saved: scores of the test.
        title: of the page.
        read: decodes frames of a row.
        num_videos: videos to show of each kind, wrong and right.

    Raises:
        ValueError: no video was scored.
    """
    if saved.has_label_sets:
        return report_label_sets(saved, title, read, num_videos)
    ranking = rank(saved)
    if not len(ranking.rows):
        raise ValueError("a report needs at least one scored video, got none")
    content = _content(saved, ranking, num_videos)
    frames = {}
    for example in (*content["worst"], *content["best"]):
        frames[example["row"]], example["not_drawn"] = read_or_reason(read, example["row"])
    return Report(content, _page(content, title, frames))


def _content(saved: SavedScores, ranking: Ranking, num_videos: int) -> dict[str, Any]:
    """Return the numbers; those of examples without their frames."""
    num_classes = saved.scores.shape[1]
    confusions = count_confusions(ranking, num_classes)
    rows = class_rows(ranking, confusions)
    finite = ranking.is_finite
    is_right = ranking.is_right()
    found = calibrate(ranking.scores[finite, 0], is_right[finite])
    examples = choose_examples(ranking, num_videos)
    most = int(saved.num_clips.max())
    return {
        "kind": "classification",
        "facts": dict(saved.facts),
        "num_videos": len(saved.labels),
        "num_videos_scored": len(ranking.rows),
        "num_videos_incomplete": int(((saved.num_clips > 0) & (saved.num_clips < most)).sum()),
        "num_videos_not_finite": int((~finite).sum()),
        "top1": accuracy_content(accuracy(is_right)),
        "top5": accuracy_content(accuracy(ranking.is_right(5))),
        "lost": lost_videos(saved),
        "classes": [_class(saved, number, row) for number, row in enumerate(rows)],
        "confusion": _confusion(confusions),
        "frequent_confusions": [
            {
                "true": saved.name(true),
                "predicted": saved.name(predicted),
                "num_videos": count,
                "support": rows[true].support,
            }
            for true, predicted, count in frequent_confusions(confusions, _NUM_CONFUSIONS)
        ],
        "calibration": None
        if found is None
        else {"error": found.error, "bins": [part._asdict() for part in found.bins]},
        "worst": [_example(saved, ranking, place) for place in examples.worst.tolist()],
        "best": [_example(saved, ranking, place) for place in examples.best.tolist()],
    }


def _class(saved: SavedScores, number: int, row: ClassRow) -> dict[str, Any]:
    confused = row.confused_with
    return {
        "class": number,
        "name": saved.name(number),
        "support": row.support,
        "num_right": row.num_right,
        "accuracy": 100 * row.num_right / row.support if row.support else None,
        "num_predicted": row.num_predicted,
        "confused_with": None if confused < 0 else saved.name(confused),
        "num_confused": row.num_confused,
    }


def _confusion(confusions: Confusions) -> dict[str, Any]:
    cells = (confusions.true, confusions.predicted, confusions.counts)
    return {
        "order": confusion_order(confusions).tolist(),
        "cells": [list(cell) for cell in zip(*(part.tolist() for part in cells), strict=True)],
    }


def _example(saved: SavedScores, ranking: Ranking, place: int) -> dict[str, Any]:
    row = int(ranking.rows[place])
    best = zip(ranking.best[place].tolist(), ranking.scores[place].tolist(), strict=True)
    return {
        "row": row,
        "path": printable(saved.path(row)),
        "true": saved.name(int(ranking.labels[place])),
        "predicted": [[saved.name(number), finite(score)] for number, score in best],
    }


def _page(content: Mapping[str, Any], title: str, frames: Mapping[int, Frames]) -> str:
    return page.html_page(
        title,
        page.paragraph(summary(content, of_not_finite="wrong")),
        page_report.tiles(_tiles(content)),
        page.section("Measured with", page.bullets(fact_lines(content["facts"]))),
        page.section("Lost videos", page.bullets(lost_lines(content["lost"]))),
        page.section("Classes", page_report.tall(_class_table(content)), _soft(_SORTS)),
        _confusion_section(content),
        _calibration_section(content["calibration"]),
        _example_section("Wrong with the highest score", content["worst"], frames),
        _example_section("Right with the highest score", content["best"], frames),
        style=page_report.STYLE + page_matrix.STYLE,
        script=page_matrix.SCRIPT,
    )


def _soft(text: str) -> str:
    return page.paragraph(text, is_soft=True)


def _tiles(content: Mapping[str, Any]) -> list[Tile]:
    tiles = [
        accuracy_tile("top1", "top-1 accuracy", content["top1"]),
        accuracy_tile("top5", "top-5 accuracy", content["top5"]),
    ]
    found = content["calibration"]
    if found is not None:
        error = found["error"]
        note = f"mean distance of score and accuracy in {len(found['bins'])} bins"
        tiles.append(Tile("ece", "calibration error", f"{100 * error:.2f} %", error, note))
    return tiles


def _class_table(content: Mapping[str, Any]) -> str:
    heads = [
        page.Head("class", "Class"),
        page.Head("support", "videos"),
        page.Head("num_right", "right"),
        page.Head("accuracy", "accuracy", "%"),
        page.Head("num_predicted", "predicted", "videos of any class"),
        page.Head("confused_with", "most often taken for", kind="text"),
        page.Head("num_confused", "videos", "so confused"),
    ]
    rows = [
        page.Row(
            str(of["class"]),
            of["name"],
            [
                number_cell(of["support"]),
                number_cell(of["num_right"]),
                number_cell(of["accuracy"], 1),
                number_cell(of["num_predicted"]),
                page.Cell(of["confused_with"] or "-", of["confused_with"], kind="text"),
                number_cell(of["num_confused"]),
            ],
        )
        for of in content["classes"]
    ]
    return page.sortable_table("classes", heads, rows)


def _confusion_section(content: Mapping[str, Any]) -> str:
    classes, confusion = content["classes"], content["confusion"]
    matrix = page_matrix.confusion_matrix(
        [of["name"] for of in classes],
        confusion["order"],
        [of["support"] for of in classes],
        confusion["cells"],
    )
    note = "Classes that are confused stand together."
    return page.section("Confusions", _soft(note), matrix, _confusion_table(content))


def _confusion_table(content: Mapping[str, Any]) -> str:
    frequent: Sequence[Mapping[str, Any]] = content["frequent_confusions"]
    if not frequent:
        return page.paragraph("No video is wrong.")
    heads = [
        page.Head("true", "True class"),
        page.Head("predicted", "predicted as", kind="text"),
        page.Head("num_videos", "videos"),
        page.Head("share", "share", "% of the class"),
    ]
    rows = [
        page.Row(
            str(number),
            of["true"],
            [
                page.Cell(of["predicted"], of["predicted"], kind="text"),
                number_cell(of["num_videos"]),
                number_cell(100 * of["num_videos"] / of["support"], 1),
            ],
        )
        for number, of in enumerate(frequent)
    ]
    note = f"The {len(rows)} most frequent confusions."
    return page_report.tall(page.sortable_table("confusions", heads, rows)) + _soft(note)


def _calibration_section(found: Mapping[str, Any] | None) -> str:
    if found is None:
        text = "Scores are outside of 0 to 1: they are no probabilities, and have no calibration."
        return page.section("Calibration", page.paragraph(text))
    bins = [ReliabilityBin(**part) for part in found["bins"]]
    caption = (
        f"Expected calibration error {100 * found['error']:.2f} %. Blue, strong and pale: share "
        "of right videos among those with such a top-1 score; pale: more of them are right than "
        "their mean score says; orange: fewer. Gray: their number."
    )
    heads = [
        page.Head("bin", "Score"),
        page.Head("num_videos", "videos"),
        page.Head("score", "mean score"),
        page.Head("accuracy", "right", "%"),
    ]
    rows = [
        page.Row(
            str(number),
            f"{part.low:.3f} to {part.high:.3f}",
            [
                number_cell(part.num_videos),
                number_cell(part.score, 3),
                number_cell(None if part.accuracy is None else 100 * part.accuracy, 1),
            ],
        )
        for number, part in enumerate(bins)
    ]
    table = page.details("Bins as a table", page.sortable_table("calibration", heads, rows))
    return page.section("Calibration", page_report.reliability_diagram(bins, caption), table)


def _example_section(
    title: str, examples: Sequence[Mapping[str, Any]], frames: Mapping[int, Frames]
) -> str:
    cards, missing = [], dict[str, str]()
    for of in examples:
        ranked = [ranked_class(*pair) for pair in of["predicted"][:_NUM_LINES]]
        lines = [f"{ranked[0]} (true: {of['true']})", f"then {', '.join(ranked[1:])}"]
        if of["not_drawn"]:
            missing[f"{of['path']}: {ranked[0]} (true: {of['true']})"] = of["not_drawn"]
        else:
            kept = lines[: 1 + (len(ranked) > 1)]
            cards.append(VideoCard(frames[of["row"]], of["path"], kept))
    return page.section(title, page_report.video_cards(cards), not_drawn(missing))
