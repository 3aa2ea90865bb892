"""Bars of a figure for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

_COLOR, _QUIET = "#0072b2", "#777777"


def class_bars(
    path: str | Path,
    values: Mapping[str, float | None],
    counts: Mapping[str, int],
    *,
    title: str = "",
    x_label: str = "average precision (%)",
) -> None:
    """Draws a bar for each class, the highest first, and writes it as PNG.

    Args:
        path: PNG file to write; its folder is made if need be.
        values: name -> figure in 0..1; None for a class that has none, which is left out.
        counts: name -> how many examples the figure stands on, written beside the name.
        title: above the figure.
        x_label: under the figure.

    Raises:
        ValueError: no class has a figure.
    """
    counted = {name: 100 * value for name, value in values.items() if value is not None}
    if not counted:
        raise ValueError(f"bars need at least one class with a figure; {path} would have none")
    names = sorted(counted, key=lambda name: counted[name])
    figure = Figure(figsize=(7.0, 1.3 + 0.24 * len(names)), layout="constrained")
    axis = figure.subplots()
    bars = axis.barh(range(len(names)), [counted[name] for name in names], color=_COLOR)
    figures = axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    for text in figures:  # so that the line of the mean does not cross them
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    labels = [f"{name} ({counts[name]})" for name in names]
    axis.set_yticks(range(len(names)), labels, fontsize=8)
    mean = float(np.mean(list(counted.values())))
    axis.axvline(mean, color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)), label=f"mean {mean:.1f}")
    axis.set_xlabel(x_label)
    axis.set_xlim(0, 108)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="lower right", edgecolor="none", framealpha=0.9)
    if title:
        figure.suptitle(title, fontsize=12)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
