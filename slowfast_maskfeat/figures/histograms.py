"""Histograms of properties of the videos in an annotation file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_COLOR = "#0072b2"
_MAX_BARS = 12


def histograms(
    path: str | Path, panels: Mapping[str, Sequence[float] | Sequence[str]], *, title: str = ""
) -> None:
    """Draw one histogram per panel and write the figure as PNG.

    Args:
        path: PNG file to write; its folder is created.
        panels: Label with unit -> values: numbers, which are binned, or strings, which get a bar
            each, the most frequent first (those after the first 12 share one).
        title: Title of the figure.

    Raises:
        ValueError: There are no panels, or one has no values.
    """
    empty = [label for label, values in panels.items() if len(values) == 0]
    if not panels or empty:
        raise ValueError(
            "panels must contain at least one panel, each with at least one value, "
            f"got no {'values for ' + ', '.join(empty) if empty else 'panel'} for {path}"
        )
    num_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.0, 0.5 + 2.8 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
    for axis, (label, values) in zip(axes, panels.items(), strict=False):
        if isinstance(values[0], str):
            _draw_bars(axis, [str(value) for value in values])
            axis.set(xlabel="videos", ylabel=label)
        else:
            numbers = np.asarray(values, dtype=float)
            axis.hist(numbers, bins=_bins(numbers), color=_COLOR, edgecolor="white", linewidth=0.4)
            axis.set(xlabel=label, ylabel="videos")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, format="png")


def _bins(numbers: Any) -> Any:
    """Bin edges; if all values are equal, 11 bins around them."""
    low, high = float(numbers.min()), float(numbers.max())
    if high - low < 1e-6 * max(1.0, abs(high)):
        margin = max(0.5, 0.05 * abs(high))
        return np.linspace(low - margin, high + margin, 12)
    return np.linspace(low, high, 31)


def _draw_bars(axis: Any, values: Sequence[str]) -> None:
    counts = Counter(values).most_common()
    shown = counts[:_MAX_BARS]
    if len(counts) > _MAX_BARS:
        rest = sum(count for _, count in counts[_MAX_BARS:])
        shown.append((f"{len(counts) - _MAX_BARS} others", rest))
    names = [name for name, _ in shown][::-1]
    bars = axis.barh(range(len(names)), [count for _, count in shown][::-1], color=_COLOR)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.bar_label(bars, fontsize=8, padding=2)
