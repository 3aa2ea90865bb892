"""What came of loading weights, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CLASSIFIER = "head."
# What a task puts behind, or for the time of pre-training into, the backbone.
HEAD_NAMES = (CLASSIFIER, "pred_head.", "decoder_", "dec_", "mask_token")
_PRETRAINING_NAMES = ("pred_head.", "decoder_", "dec_", "mask_token", "hogs.")
_MOST_LINES = 6


@dataclass(frozen=True)
class LoadReport:
    """What came of loading weights; ``str()`` of it is a short table.

    Attributes:
        path: The file.
        loaded: Names in the model that were filled, those reshaped included.
        missing: Names in the model that kept their initial values.
        unexpected: Names in the file that the model has no use for.
        reshaped: Of the loaded, name to what was done to its shape.
        refused: Of the missing, name to why what the file has for it was not used.
        coverage: Filled share of the backbone, 0 to 1: the smaller of the share of its entries and
            of its elements. The backbone is all but the heads, decoders and the mask token.
        classifier: Why the classifier kept its initial values; empty where it did not, or where
            there is none.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    coverage: float = 1.0
    classifier: str = ""

    @property
    def missing_head(self) -> tuple[str, ...]:
        """The missing names outside the backbone."""
        return tuple(name for name in self.missing if name.startswith(HEAD_NAMES))

    def __str__(self) -> str:
        harmless = [name for name in self.unexpected if name.startswith(_PRETRAINING_NAMES)]
        strange = [name for name in self.unexpected if not name.startswith(_PRETRAINING_NAMES)]
        rows: list[tuple[str, int, Sequence[str]]] = [
            ("loaded", len(self.loaded), [f"{self.coverage:.1%} of the backbone"]),
            ("reshaped", len(self.reshaped), _by_note(self.reshaped)),
            ("left as initialised", len(self.missing), [shorten(_grouped(self.missing))]),
            ("does not fit", len(self.refused), _by_note(self.refused)),
            ("unused, of pre-training", len(harmless), [shorten(_grouped(harmless))]),
            ("unused, not in the model", len(strange), [shorten(_grouped(strange))]),
        ]
        lines = [f"weights from {self.path}"]
        for title, count, texts in rows:
            if count:
                lines.append(f"  {title:<24} {count:>5}  {texts[0]}")
                lines += [f"{'':<34}{text}" for text in texts[1:]]
        if self.classifier:
            lines.append(f"  classifier left as initialised: {self.classifier}")
        return "\n".join(lines)


def _by_note(notes: Mapping[str, str]) -> list[str]:
    """A line for each note, with the first of its names."""
    names: dict[str, list[str]] = {}
    for name, note in notes.items():
        names.setdefault(note, []).append(name)
    lines = [
        f"{group[0]}{f' and {len(group) - 1} more' if len(group) > 1 else ''}: {note}"
        for note, group in names.items()
    ]
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more kinds"]


def _grouped(names: Sequence[str]) -> list[str]:
    """Names with a common first part as one: ``pred_head.* (4)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return [
        group[0] if len(group) == 1 else f"{first}.* ({len(group)})"
        for first, group in groups.items()
    ]


def shorten(parts: Sequence[str]) -> str:
    """The first four, and how many more."""
    more = [f"and {len(parts) - 4} more"] if len(parts) > 4 else []
    return ", ".join([*parts[:4], *more])
