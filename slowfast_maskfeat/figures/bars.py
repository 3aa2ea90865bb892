"""Bar chart of one value per class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slowfast_maskfeat.figures.canvas import (
    COLORS,
    GRAY,
    new_figure,
    own_style,
    write_figure,
)
from slowfast_maskfeat.figures.names import shorten

_MAX_NAME_LENGTH = 40  # characters of a class name
# More bars would not fit into the pixels of a figure; those in the middle are left out.
_MAX_BARS = 200


def class_bars(
    path: str | Path,
    values: Mapping[str, float | None],
    counts: Mapping[str, int],
    *,
    title: str = "",
) -> None:
    """Draw a bar per class, the highest first, and write the figure as PNG.

    Args:
        path: PNG file to write; its folder is created.
        values: class name -> value in 0..1, or None, which is left out.
        counts: class name -> number of examples behind the value, shown after the name.
        title: title of the figure.

    Raises:
        ValueError: no class has a value.
    """
    percents = {name: 100 * value for name, value in values.items() if value is not None}
    if not percents:
        raise ValueError(f"values must have a number for at least one class, got none for {path}")
    names = sorted(percents, key=lambda name: percents[name])
    if len(names) > _MAX_BARS:
        title += f"\n(the {_MAX_BARS // 2} lowest and highest of {len(names)} classes)"
        names = names[: _MAX_BARS // 2] + names[-_MAX_BARS // 2 :]
    with own_style([*names, title]) as drawable:
        figure = new_figure(7.0, 1.3 + 0.24 * len(names))
        axis = figure.subplots()
        bars = axis.barh(range(len(names)), [percents[name] for name in names], color=COLORS[0])
        for text in axis.bar_label(bars, fmt="%.1f", fontsize=8, padding=2):
            # A background, so that the line of the mean does not cross the numbers.
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        shown = (shorten(drawable(name), _MAX_NAME_LENGTH) for name in names)
        labels = [f"{text} ({counts[name]})" for text, name in zip(shown, names, strict=True)]
        axis.set_yticks(range(len(names)), labels, fontsize=8)
        mean = float(np.mean(list(percents.values())))
        dashed = (0, (4, 3))
        axis.axvline(mean, color=GRAY, linewidth=0.9, linestyle=dashed, label=f"mean {mean:.1f}")
        axis.set_xlabel("average precision (%)")
        axis.set_xlim(0, 108)
        axis.set_ylim(-0.7, len(names) - 0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="lower right", edgecolor="none", framealpha=0.9)
        if title:
            figure.suptitle(drawable(title), fontsize=12)
        write_figure(figure, path)
