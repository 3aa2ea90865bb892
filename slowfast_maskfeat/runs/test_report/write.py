"""The two files of a report, and what its pages have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slowfast_maskfeat.figures import page
from slowfast_maskfeat.figures.page_report import Tile
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.metrics.class_report import Accuracy
from slowfast_maskfeat.metrics.saved_scores import SavedScores
from slowfast_maskfeat.text import printable, quoted


class Report(NamedTuple):
    """A report.

    Attributes:
        content: numbers, strings, lists and dicts, for report.json.
        page: the whole report.html.
    """

    content: Mapping[str, Any]
    page: str


def write_report(report: Report, folder: Path, name: str = "report") -> list[Path]:
    """Write the page and the numbers.

    Args:
        report: to write.
        folder: of the files; it is created.
        name: of the files without their suffix.

    Returns:
        The files.

    Raises:
        OSError: a file can't be written.
    """
    texts = {f"{name}.html": report.page, f"{name}.json": as_json(report)}
    for file, text in texts.items():
        with atomic_write(folder / file) as part:
            part.write_bytes(text.encode("utf-8", "backslashreplace"))  # of names of files
    return [folder / file for file in texts]


def as_json(report: Report) -> str:
    """Return report.json as text."""
    return json.dumps(report.content, indent=1, allow_nan=False) + "\n"


def refuse_other(report: Report, folder: Path) -> None:
    """Refuse to write into a folder with anything else than this report.

    Raises:
        ValueError: the folder has another report, or other files.
    """
    numbers = folder / "report.json"
    is_same = numbers.is_file() and numbers.read_bytes() == as_json(report).encode()
    for path in (numbers, folder / "report.html"):
        if path.exists() and not is_same:
            raise ValueError(
                f"--output: {path} exists and has another content; name another folder, or "
                "--force overwrites it"
            )
    others = [] if is_same or not folder.is_dir() else sorted(os.listdir(folder))
    if others:
        raise ValueError(
            f"--output must be a new folder, or have the same report, got {folder} with "
            f"{quoted(others[0])}; name another folder, or --force writes into it"
        )


def finite(number: float) -> float | None:
    """Return a number for JSON: None for one that is not finite."""
    return number if abs(number) < float("inf") else None


def accuracy_content(found: Accuracy) -> dict[str, Any]:
    """Return an accuracy in percent, with its interval and the counts behind it."""
    return {
        "percent": finite(found.percent),
        "low": 100 * found.interval.low,
        "high": 100 * found.interval.high,
        "num_right": found.num_right,
        "num_videos": found.total,
    }


def accuracy_tile(name: str, title: str, content: Mapping[str, Any], unit: str = "videos") -> Tile:
    """Return the tile of `accuracy_content`."""
    percent, low, high = (content[key] for key in ("percent", "low", "high"))
    return Tile(
        name,
        title,
        "-" if percent is None else f"{percent:.2f} %",
        percent,
        f"95 % interval {low:.2f} to {high:.2f}; {content['num_right']:,} of "
        f"{content['num_videos']:,} {unit}",
        None if percent is None else (low / 100, percent / 100, high / 100),
    )


def number_cell(value: float | None, digits: int = 0) -> page.Cell:
    """Return a number as a cell; a dash for None."""
    if value is None:
        return page.Cell("-")
    return page.Cell(f"{value:,.{digits}f}", value)


def ranked_class(name: str, score: float | None) -> str:
    """Return a class and its score, if that is finite, in words."""
    return name if score is None else f"{name} {score:.3f}"


def summary(content: Mapping[str, Any], *, of_not_finite: str = "") -> str:
    """Return how many videos are scored, in words.

    Args:
        content: of a report of videos.
        of_not_finite: what videos with scores that are not finite count as; empty if they are only
            named.
    """
    lost = content["num_videos"] - content["num_videos_scored"]
    text = f"{content['num_videos_scored']:,} of {content['num_videos']:,} videos are scored"
    text += f"; {lost:,} could not be decoded and do not count." if lost else "."
    if content["num_videos_incomplete"]:
        text += f" {content['num_videos_incomplete']:,} are scored on some of their views."
    if content["num_videos_not_finite"]:
        text += f" {content['num_videos_not_finite']:,} have scores that are not finite"
        text += f": {of_not_finite}." if of_not_finite else "."
    return text


def fact_lines(facts: Mapping[str, Any]) -> list[str]:
    """Describe what a test stands on, as far as it is known."""
    lines = []
    if facts.get("list"):
        sha256 = facts.get("list_sha256")
        lines.append(f"list {facts['list']}{f', SHA-256 {sha256}' if sha256 else ''}")
    notes = facts.get("list_notes")
    lines += [f"note on the list: {note}" for note in notes] if isinstance(notes, list) else []
    if facts.get("checkpoint"):
        sha256 = facts.get("checkpoint_sha256") or "unknown: the file can't be read"
        lines.append(f"checkpoint {facts['checkpoint']}, SHA-256 {sha256}")
    if facts.get("num_views"):
        crops = facts.get("num_crops", "unknown")
        lines.append(f"views: {facts['num_views']} clips x {crops} crops of a video")
    if isinstance(facts.get("decoders"), dict):
        versions = (f"{name} {version}" for name, version in facts["decoders"].items())
        lines.append(f"decoders: {', '.join(versions)}")
    if "class_names_source" in facts:
        source = facts["class_names_source"]
        lines.append(f"class names: {source or 'unknown; classes are numbers'}")
    if facts.get("scores"):
        lines.append(f"scores: {facts['scores']}")
    return [printable(line) for line in lines]


def not_drawn(reasons: Mapping[str, str]) -> str:
    """Return a list of what has no picture, with the reasons; one that all share is said once."""
    if not reasons:
        return ""
    texts = [f"{printable(name)}; {printable(reason)}" for name, reason in reasons.items()]
    title = "Without pictures:"
    if len(set(reasons.values())) == 1:
        title = f"Without pictures, {printable(next(iter(reasons.values())))}:"
        texts = [printable(name) for name in reasons]
    return page.paragraph(title, is_soft=True) + page.bullets(texts)


def lost_videos(saved: SavedScores) -> list[dict[str, str]]:
    """Videos without a clip; earlier files do not have the reasons."""
    known = saved.facts.get("lost")
    if isinstance(known, list) and all(isinstance(of, dict) and "path" in of for of in known):
        return [{"path": str(of["path"]), "reason": str(of.get("reason", ""))} for of in known]
    rows = np.flatnonzero(saved.num_clips == 0).tolist()
    return [{"path": saved.path(row), "reason": ""} for row in rows]


_MOST_LOST = 200


def lost_lines(lost: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe lost videos with their reasons."""
    lines = [
        printable(f"{of['path']}: {of.get('reason') or 'unknown'}") for of in lost[:_MOST_LOST]
    ]
    rest = len(lost) - _MOST_LOST
    return lines + ([f"... and {rest:,} more, in the JSON file"] if rest > 0 else [])
