"""Histograms of properties of the videos in an annotation file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slowfast_maskfeat.figures.canvas import COLORS, new_figure, own_style, write_figure
from slowfast_maskfeat.figures.names import shorten

_MAX_BARS = 12
_MAX_TITLE_LENGTH = 80  # characters


def histograms(
    path: str | Path, panels: Mapping[str, Sequence[float] | Sequence[str]], *, title: str = ""
) -> None:
    """Draw one histogram per panel and write the figure as PNG.

    Args:
        path: PNG file to write; its folder is created.
        panels: label with unit -> values: numbers, which are binned, or strings, which get a bar
            each, the most frequent first (those after the first 12 share one).
        title: title of the figure.

    Raises:
        ValueError: there are no panels, or one has no values.
    """
    empty = [label for label, values in panels.items() if len(values) == 0]
    if not panels or empty:
        raise ValueError(
            "panels must contain at least one panel, each with at least one value, "
            f"got no {'values for ' + ', '.join(empty) if empty else 'panel'} for {path}"
        )
    num_rows = -(-len(panels) // 2)
    with own_style([title]) as drawable:
        figure = new_figure(9.0, 0.5 + 2.8 * num_rows)
        axes = figure.subplots(num_rows, 2, squeeze=False).ravel()
        for axis, (label, values) in zip(axes, panels.items(), strict=False):
            if isinstance(values[0], str):
                _draw_bars(axis, [str(value) for value in values])
                axis.set(xlabel="videos", ylabel=label)
            else:
                _draw_histogram(axis, np.asarray(values, dtype=float))
                axis.set(xlabel=label, ylabel="videos")
            axis.spines[["top", "right"]].set_visible(False)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        if title:
            figure.suptitle(shorten(drawable(title), _MAX_TITLE_LENGTH), fontsize=12)
        write_figure(figure, path)


def _draw_histogram(axis: Any, numbers: Any) -> None:
    axis.hist(numbers, bins=_bins(numbers), color=COLORS[0], edgecolor="white", linewidth=0.4)


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
    bars = axis.barh(range(len(names)), [count for _, count in shown][::-1], color=COLORS[0])
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.bar_label(bars, fontsize=8, padding=2)
