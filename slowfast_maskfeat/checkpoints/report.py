"""Reports on loading weights, for people and programs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slowfast_maskfeat.text import cut

CLASSIFIER = "head."
# Parts that tasks add to the backbone: heads, decoders and the mask token.
_PARTS = (
    "pred_head.",
    "decoder_",
    "dec_",
    "mask_token",
    "masked_embed",
    "projector.",
    "predictor.",
)
HEAD_NAMES = (CLASSIFIER, *_PARTS)
_PRETRAINING_NAMES = (*_PARTS, "head.mlp.", "head.last_layer", "hogs.")
_MOST_LINES = 6
_IN_BLOCK = re.compile(r"((?:.*\.)?blocks)\.\d+\.(.+)")


@dataclass(frozen=True)
class LoadReport:
    """Result of loading weights; `str()` gives a short table.

    Attributes:
        path: the file.
        loaded: names in the model that were filled, reshaped ones included.
        missing: names in the model that kept their values.
        unexpected: names in the file that were not used, not even to compute other tables.
        reshaped: loaded name -> how its weight was reshaped.
        refused: missing name -> why the file's weight was not used.
        left_out: names in the file that were excluded.
        coverage: filled share of the backbone, 0 to 1: the smaller of the shares of its entries and
            of its elements. The backbone is all but the heads, decoders, the mask token, and a last
            norm that the file lacks.
        classifier: why the classifier kept its values; empty if it did not or there is none.
        unchecked_order: whether a classifier was loaded from a file without class names, although
            those of the data set are known.
        initialized: whether the model had its initial values before, not those of another file.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    coverage: float = 1.0
    classifier: str = ""
    unchecked_order: bool = False
    initialized: bool = True

    def __str__(self) -> str:
        many, one = "as they were", "as it was"
        if self.initialized:
            many = one = "as initialized"
        harmless = [name for name in self.unexpected if _is_of_pretraining(name)]
        strange = [name for name in self.unexpected if not _is_of_pretraining(name)]
        rows: list[tuple[str, int, Sequence[str]]] = [
            ("loaded", len(self.loaded), [f"{self.coverage:.1%} of the backbone"]),
            ("reshaped", len(self.reshaped), _by_note(self.reshaped)),
            (f"left {many}", len(self.missing), [shorten(_grouped(self.missing))]),
            ("does not fit", len(self.refused), _by_note(self.refused)),
            ("left out", len(self.left_out), [shorten(_grouped(self.left_out))]),
            ("unused (pre-training)", len(harmless), [shorten(_grouped(harmless))]),
            ("unused (not in model)", len(strange), [shorten(_grouped(strange))]),
        ]
        lines = [f"weights from {self.path}"]
        for title, count, texts in rows:
            if count:
                lines.append(f"  {title:<24} {count:>5}  {texts[0]}")
                lines += [f"{'':<34}{text}" for text in texts[1:]]
        if self.classifier:
            lines.append(f"  classifier left {one}: {self.classifier}")
        if self.unchecked_order:
            lines.append(
                "  the file has no class names: the order of its classes could not be checked"
            )
        return "\n".join(lines)


class LoadError(ValueError):
    """Weights that do not fit a model; `str()` is the summary and, below it, the report.

    Attributes:
        summary: the problem and what to do.
        report: report of what would have been loaded.
    """

    def __init__(self, summary: str, report: LoadReport) -> None:
        super().__init__(summary, report)  # both, since pickle builds the error from its args
        self.summary = summary
        self.report = report

    def __str__(self) -> str:
        return f"{self.summary}\n{self.report}"


def _is_of_pretraining(name: str) -> bool:
    return name.removeprefix("backbone.").startswith(_PRETRAINING_NAMES)


def _by_note(notes: Mapping[str, str]) -> list[str]:
    """One line per note, with the first of its names."""
    names: dict[str, list[str]] = {}
    for name, note in notes.items():
        names.setdefault(note, []).append(name)
    lines = [
        f"{cut(group[0])}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: {note}"
        for note, group in names.items()
    ]
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more kinds"]


def _grouped(names: Sequence[str]) -> list[str]:
    """Group similar names: `pred_head.* (4)`, `blocks.*.norm1.bias (2)`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        in_block = _IN_BLOCK.fullmatch(name)
        common = f"{in_block[1]}.*.{in_block[2]}" if in_block else f"{name.partition('.')[0]}.*"
        groups.setdefault(common, []).append(name)
    return [
        group[0] if len(group) == 1 else f"{common} ({len(group)})"
        for common, group in groups.items()
    ]


def shorten(parts: Sequence[str]) -> str:
    """Join the first four parts, each cut to a length, and the number of the others."""
    more = [f"and {len(parts) - 4} more"] if len(parts) > 4 else []
    return ", ".join([*map(cut, parts[:4]), *more])
