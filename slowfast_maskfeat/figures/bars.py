"""Bar chart of one value per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from slowfast_maskfeat.files import atomic_write

_COLOR, _GRAY = "#0072b2", "#777777"


def class_bars(
    path: str | Path,
    values: Mapping[str, float | None],
    counts: Mapping[str, int],
    *,
    title: str = "",
    x_label: str = "average precision (%)",
) -> None:
    """Draw a bar per class, the highest first, and write the figure as PNG.

    Args:
        path: PNG file to write; its folder is created.
        values: Class name -> value in 0..1, or None, which is left out.
        counts: Class name -> number of examples behind the value, shown after the name.
        title: Title of the figure.
        x_label: Label of the x axis.

    Raises:
        ValueError: No class has a value.
    """
    percents = {name: 100 * value for name, value in values.items() if value is not None}
    if not percents:
        raise ValueError(f"values must have a number for at least one class, got none for {path}")
    names = sorted(percents, key=lambda name: percents[name])
    figure = Figure(figsize=(7.0, 1.3 + 0.24 * len(names)), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(range(len(names)), [percents[name] for name in names], color=_COLOR)
    for text in axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2):
        # A background, so that the line of the mean does not cross the numbers.
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    labels = [f"{name} ({counts[name]})" for name in names]
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    mean = float(np.mean(list(percents.values())))
    axis.axvline(mean, color=_GRAY, linewidth=0.9, linestyle=(0, (4, 3)), label=f"mean {mean:.1f}")
    axis.set_xlabel(x_label)
    axis.set_xlim(0, 108)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right", edgecolor="none", framealpha=0.9)
    if title:
        figure.suptitle(title, fontsize=12)
    with atomic_write(path) as part:
        figure.savefig(part, dpi=130, format=Path(path).suffix[1:] or "png")
