"""Report of a detection test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slowfast_maskfeat.figures import draw_boxes, drawing_scale, page, page_report
from slowfast_maskfeat.figures.page_report import Tile, VideoCard
from slowfast_maskfeat.metrics.average_precision import IOU_THRESHOLD
from slowfast_maskfeat.metrics.box_scores import BoxScores, FrameBoxes
from slowfast_maskfeat.metrics.class_report import Accuracy
from slowfast_maskfeat.metrics.intervals import wilson
from slowfast_maskfeat.runs.figures import spread_rows
from slowfast_maskfeat.runs.test_report.examples import ReadFrames, read_or_reason
from slowfast_maskfeat.runs.test_report.write import (
    Report,
    accuracy_content,
    accuracy_tile,
    fact_lines,
    lost_lines,
    not_drawn,
    number_cell,
)
from slowfast_maskfeat.text import printable

_COUNTS = (
    *("num_classes", "num_classes_counted", "num_frames_expected", "num_frames_matched"),
    *("num_frames_unexpected", "num_boxes", "num_boxes_dropped"),
)


def report_boxes(
    scores: BoxScores,
    results: Mapping[str, Any],
    facts: Mapping[str, Any],
    title: str,
    read: ReadFrames,
    num_frames: int,
) -> Report:
    """Report a detection test.

    Args:
        scores: of the boxes.
        results: metrics of the test, see `AvaResult`.
        facts: of the list, the decoders and the test.
        title: of the page.
        read: decodes the key frame of a row.
        num_frames: key frames to draw, spread over the list.
    """
    annotated = scores.annotated_rows()
    places = spread_rows(len(annotated), min(num_frames, len(annotated)))
    frames = [scores.frame(row) for row in annotated[places].tolist()]
    read_frames = [read_or_reason(read, frame.row) for frame in frames]
    expected, hit = results["num_boxes_expected"], results["num_boxes_hit"]
    content = {
        "kind": "detection",
        "facts": dict(facts),
        "num_key_frames": results["num_expected"],
        "num_key_frames_decoded": results["num_decoded"],
        "mean_ap": results["mean_ap"],
        "box_recall": accuracy_content(Accuracy(hit, expected, wilson(hit, expected))),
        **{name: results[name] for name in _COUNTS},
        "warning": results.get("warning", ""),
        "lost": list(results["lost"]),
        "classes": [
            {"name": name, "ap": precision, "num_boxes": results["per_class_boxes"][name]}
            for name, precision in results["per_class_ap"].items()
        ],
        "examples": [
            _example(frame, reason) for frame, (_, reason) in zip(frames, read_frames, strict=True)
        ],
    }
    cards = [
        _card(frame, pixels[0])
        for frame, (pixels, _) in zip(frames, read_frames, strict=True)
        if len(pixels)
    ]
    return Report(content, _page(content, title, cards))


def _example(frame: FrameBoxes, reason: str) -> dict[str, Any]:
    return {
        "row": frame.row,
        "video": printable(frame.video),
        "second": frame.second,
        "truth": [
            {"box": box, "actions": names}
            for box, names in zip(frame.truth.tolist(), frame.truth_names, strict=True)
        ],
        "detected": [
            {"box": box, "actions": [list(pair) for pair in best]}
            for box, best in zip(frame.boxes.tolist(), frame.best, strict=True)
        ],
        "not_drawn": reason,
    }


def _card(frame: FrameBoxes, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> VideoCard:
    scale = drawing_scale(*pixels.shape[:2])
    found = [[f"{name} {score:.2f}" for name, score in best] for best in frame.best]
    drawn = (
        draw_boxes(pixels, frame.truth, frame.truth_names, scale=scale),
        draw_boxes(pixels, frame.boxes, found, scale=scale),
    )
    return VideoCard(drawn, printable(f"{frame.video}, {frame.second:g} s"), ())


def _page(content: Mapping[str, Any], title: str, cards: Sequence[VideoCard]) -> str:
    decoded, listed = content["num_key_frames_decoded"], content["num_key_frames"]
    summary = (
        f"{decoded:,} of {listed:,} key frames are decoded; {content['num_frames_matched']:,} of "
        f"the {content['num_frames_expected']:,} annotated ones have detections. "
        f"{content['num_boxes']:,} boxes are detected."
    )
    missing = {
        f"{of['video']}, {of['second']:g} s": of["not_drawn"]
        for of in content["examples"]
        if of["not_drawn"]
    }
    note = page.paragraph(
        "First the ground truth, then the detected boxes with their best actions."
    )
    return page.html_page(
        title,
        page.paragraph(summary),
        page.paragraph(content["warning"]),
        page_report.tiles(_tiles(content)),
        page.section("Measured with", page.bullets(fact_lines(content["facts"]))),
        page.section("Lost key frames", page.bullets(lost_lines(content["lost"]))),
        page.section("Actions", page_report.tall(_class_table(content["classes"]))),
        page.section(
            "Key frames",
            note if cards else "",
            page_report.video_cards(cards, is_wide=True),
            not_drawn(missing),
        ),
        style=page_report.STYLE,
    )


def _tiles(content: Mapping[str, Any]) -> list[Tile]:
    mean = content["mean_ap"]
    note = (
        f"at IoU {IOU_THRESHOLD}, over {content['num_classes_counted']} of "
        f"{content['num_classes']} actions"
    )
    return [
        Tile("mean_ap", "mean average precision", f"{100 * mean:.2f} %", mean, note),
        accuracy_tile("box_recall", "boxes that are hit", content["box_recall"], "boxes"),
    ]


def _class_table(classes: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        page.Head("name", "Action"),
        page.Head("ap", "average precision", "%"),
        page.Head("num_boxes", "boxes", "ground truth"),
    ]
    rows = [
        page.Row(
            of["name"],
            of["name"],
            [
                number_cell(None if of["ap"] is None else 100 * of["ap"], 1),
                number_cell(of["num_boxes"]),
            ],
        )
        for of in classes
    ]
    return page.sortable_table("classes", heads, rows)
