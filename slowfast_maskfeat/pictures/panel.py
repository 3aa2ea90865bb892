"""A panel of clips: frame, masked frame, HOG target and predicted HOG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

FloatArray = npt.NDArray[np.float64]

_COLUMNS = ("frame", "what the model sees", "HOG target", "HOG predicted where masked")
_MASK_COLOR = np.array([0.42, 0.45, 0.50])
# Strokes that the model made, and strokes of cells that it could see.
_MADE_COLOR = np.array([1.0, 0.86, 0.55])
_SEEN_COLOR = np.array([0.36, 0.45, 0.58])
_TARGET_COLOR = np.array([1.0, 1.0, 1.0])
_BACKGROUND = "#0b0d12"


class HOGPanelRow(NamedTuple):
    """One clip of a panel; arrays or CPU tensors.

    Attributes:
        frame: (H, W, 3) uint8 RGB.
        mask: (h, w) bool, True = masked; h and w divide the cells of the histograms.
        target: (C, bins, H / cell, W / cell) histograms.
        prediction: the same shape; read only at masked cells.
        name: shown at the left of the row.
    """

    frame: Any
    mask: Any
    target: Any
    prediction: Any
    name: str = ""


def hog_panel(path: str | Path, rows: Sequence[HOGPanelRow], *, title: str = "") -> None:
    """Draws a panel of one row per clip and writes it as PNG.

    A histogram is drawn as strokes: the direction of a stroke is that of the edge (at right angles
    to the gradient), its brightness the strength, averaged over the colour channels.

    Args:
        path: PNG file to write; its folder is made if need be.
        rows: at least one clip.
        title: above the panel.

    Raises:
        ValueError: no row, or a mask that does not divide the cells of its histograms.
    """
    if not rows:
        raise ValueError(f"a HOG panel needs at least one clip; {path} would have none")
    frames = [np.asarray(row.frame) for row in rows]
    height = sum(frame.shape[0] / frame.shape[1] for frame in frames)
    side, head = 2.6, 0.42 + 0.36 * bool(title)  # inches
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure(figsize=(4 * side + 0.5, side * height + head), layout=layout)
    axes = figure.subplots(len(rows), len(_COLUMNS), squeeze=False)
    for row, frame, row_axes in zip(rows, frames, axes, strict=True):
        _draw_row(row_axes, row, frame)
    for axis, name in zip(axes[0], _COLUMNS, strict=True):
        axis.set_title(name, fontsize=10, color="#333333")
    if title:
        figure.suptitle(title, fontsize=12)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_row(axes: Sequence[Any], row: HOGPanelRow, frame: npt.NDArray[np.uint8]) -> None:
    height, width = frame.shape[:2]
    target = _strengths(row.target)
    prediction = _strengths(row.prediction)
    mask = np.asarray(row.mask, dtype=bool)
    masked_cells = _enlarge(mask, target.shape[1:], "histogram cells")
    masked_pixels = _enlarge(mask, (height, width), "pixels")
    seen = np.where(masked_pixels[..., None], _MASK_COLOR, frame / 255)
    extent = (0, width, height, 0)
    axes[0].imshow(frame, extent=extent, interpolation="nearest")
    axes[1].imshow(seen, extent=extent, interpolation="nearest")
    brightest = max(float(target.max(initial=0.0)), 1e-12)
    everywhere = np.ones_like(masked_cells)
    _draw_strokes(axes[2], target / brightest, everywhere, (width, height), _TARGET_COLOR)
    _draw_strokes(axes[3], target / brightest, ~masked_cells, (width, height), _SEEN_COLOR)
    _draw_strokes(axes[3], prediction / brightest, masked_cells, (width, height), _MADE_COLOR)
    for axis in axes:
        axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(row.name, fontsize=10, color="#333333")


def _strengths(histograms: Any) -> FloatArray:
    """(C, bins, rows, columns) of any kind -> (bins, rows, columns), averaged over colours."""
    return np.asarray(histograms, dtype=np.float64).mean(axis=0)


def _enlarge(mask: npt.NDArray[np.bool_], size: tuple[int, ...], what: str) -> Any:
    """Repeats the cells of a mask up to `size`."""
    if size[0] % mask.shape[0] or size[1] % mask.shape[1]:
        raise ValueError(
            f"a mask of {mask.shape[0]}x{mask.shape[1]} cells does not divide "
            f"{size[0]}x{size[1]} {what}"
        )
    return mask.repeat(size[0] // mask.shape[0], 0).repeat(size[1] // mask.shape[1], 1)


def _draw_strokes(
    axis: Any,
    strengths: FloatArray,
    shown: npt.NDArray[np.bool_],
    size: tuple[int, int],
    color: FloatArray,
) -> None:
    """Draws the strokes of the cells that are `shown`, the strong ones above the weak.

    Args:
        axis: where to draw, in pixels of the image.
        strengths: (bins, rows, columns), 1 for full brightness.
        shown: (rows, columns).
        size: width and height of the image in pixels.
        color: (3,) of a stroke of full strength.
    """
    num_bins, num_rows, num_columns = strengths.shape
    axis.add_patch(Rectangle((0, 0), *size, color=_BACKGROUND, zorder=0))
    bins, rows, columns = np.nonzero(shown & (strengths > 0.05))
    strength = strengths[bins, rows, columns].clip(0, 1)
    order = strength.argsort()
    bins, rows, columns, strength = bins[order], rows[order], columns[order], strength[order]
    step = np.array([size[0] / num_columns, size[1] / num_rows])
    center = (np.stack((columns, rows), axis=1) + 0.5) * step
    # A bin's gradient points at (sin, cos) of its angle; the edge lies across.
    angle = (bins + 0.5) * np.pi / num_bins
    half = 0.46 * step * np.stack((np.cos(angle), -np.sin(angle)), axis=1)
    axis.add_collection(
        LineCollection(
            list(np.stack((center - half, center + half), axis=1)),
            colors=np.concatenate((np.broadcast_to(color, (len(bins), 3)), strength[:, None]), 1),
            linewidths=min(3.0, 26 / max(num_rows, num_columns)),
            capstyle="round",
        )
    )
