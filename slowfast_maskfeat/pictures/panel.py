"""What a network predicts beside what it saw: frame, masked frame, targets and predictions.

HOG is drawn as strokes along the edges, pixels as pictures; predicted where masked, the original
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

_MASK_COLOR = np.array([107, 115, 128], dtype=np.uint8)
# Strokes that the model made, and strokes of cells that it could see.
_MADE_COLOR = np.array([1.0, 0.86, 0.55])
_SEEN_COLOR = np.array([0.36, 0.45, 0.58])
_TARGET_COLOR = np.array([1.0, 1.0, 1.0])
_BACKGROUND = "#0b0d12"
_SIDE = 2.6  # inches of a picture
_DOTS = 130  # per inch


class HOGDrawing(NamedTuple):
    """What was predicted of one frame as HOG; arrays or CPU tensors.

    Attributes:
        target: (C, bins, H / cell, W / cell) histograms.
        prediction: the same shape; read only at masked cells.
        name: of the method, above its column.
    """

    target: Any
    prediction: Any
    name: str = "HOG"


class PixelDrawing(NamedTuple):
    """What was predicted of one frame as pixels; arrays or CPU tensors.

    Attributes:
        target: (H, W, 3) uint8.
        prediction: the same shape; read only at masked pixels.
        name: of the method, above its column.
    """

    target: Any
    prediction: Any
    name: str = "pixels"


class PanelRow(NamedTuple):
    """One frame of a panel, with what one or several networks predict of it.

    Attributes:
        frame: (H, W, 3) uint8 RGB.
        mask: (h, w) bool, True = masked; h and w divide the pixels and the cells of histograms.
        drawings: one for each network, of the same kinds in all rows of a panel.
        name: shown at the left of the row.
    """

    frame: Any
    mask: Any
    drawings: Sequence[HOGDrawing | PixelDrawing]
    name: str = ""


def prediction_panel(path: str | Path, rows: Sequence[PanelRow], *, title: str = "") -> None:
    """Draws a panel of one row per frame and writes it as PNG.

    A histogram is drawn as strokes: the direction of a stroke is that of the edge (at right angles
    to the gradient), its brightness the strength, averaged over the colour channels. A kind of
    target is drawn once, before the first network that predicts it.

    Args:
        path: PNG file to write; its folder is made if need be.
        rows: at least one.
        title: above the panel.

    Raises:
        ValueError: no row, or a mask that does not divide the pixels or histograms.
    """
    figure = _draw(rows, title, str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS)


def panel_image(rows: Sequence[PanelRow], *, title: str = "") -> Image:
    """The panel of `prediction_panel` as a picture, uint8 (H, W, 3), for a film of panels."""
    canvas = FigureCanvasAgg(_draw(rows, title, "a panel"))
    canvas.figure.set_dpi(_DOTS)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def hide_masked(frame: Any, mask: Any) -> Image:
    """What the network sees: (H, W, 3) uint8 with gray where `mask` (h, w) is True."""
    return fill_masked(frame, mask, np.broadcast_to(_MASK_COLOR, np.shape(frame)))


def fill_masked(frame: Any, mask: Any, prediction: Any) -> Image:
    """The prediction where masked and the original elsewhere.

    Args:
        frame: (H, W, 3) uint8.
        mask: (h, w) bool, True = masked.
        prediction: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: a mask that does not divide the pixels.
    """
    frame = np.asarray(frame)
    hidden = _enlarge(np.asarray(mask, dtype=bool), frame.shape[:2], "pixels")
    return np.where(hidden[..., None], np.asarray(prediction), frame)


def _draw(rows: Sequence[PanelRow], title: str, what: str) -> Figure:
    if not rows:
        raise ValueError(f"a panel needs at least one frame; {what} would have none")
    frames = [np.asarray(row.frame) for row in rows]
    height = sum(frame.shape[0] / frame.shape[1] for frame in frames)
    titles = ["frame", "what the model sees", *_titles(rows[0].drawings)]
    head = 0.42 + 0.36 * bool(title)  # inches
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure(figsize=(len(titles) * _SIDE + 0.5, _SIDE * height + head), layout=layout)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, frame, row_axes in zip(rows, frames, axes, strict=True):
        _draw_row(row_axes, row, frame)
    for axis, name in zip(axes[0], titles, strict=True):
        axis.set_title(name, fontsize=10, color="#333333")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _titles(drawings: Sequence[HOGDrawing | PixelDrawing]) -> Iterator[str]:
    """Above the columns after the first two."""
    for drawing, is_first in _with_first(drawings):
        if is_first:
            yield "HOG target" if isinstance(drawing, HOGDrawing) else "pixel target"
        yield f"{drawing.name} predicted where masked"


def _with_first(
    drawings: Sequence[HOGDrawing | PixelDrawing],
) -> Iterator[tuple[HOGDrawing | PixelDrawing, bool]]:
    """Each drawing, and whether it is the first of its kind."""
    kinds: set[type] = set()
    for drawing in drawings:
        yield drawing, type(drawing) not in kinds
        kinds.add(type(drawing))


def _draw_row(axes: Sequence[Any], row: PanelRow, frame: Image) -> None:
    height, width = frame.shape[:2]
    left = iter(axes)
    _show(next(left), frame)
    _show(next(left), hide_masked(frame, row.mask))
    for drawing, is_first in _with_first(row.drawings):
        target_axis = next(left) if is_first else None
        if isinstance(drawing, HOGDrawing):
            _draw_histograms(target_axis, next(left), drawing, row.mask, (width, height))
            continue
        if target_axis is not None:
            _show(target_axis, np.asarray(drawing.target))
        _show(next(left), fill_masked(frame, row.mask, drawing.prediction))
    for axis in axes:
        axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(row.name, fontsize=10, color="#333333")


def _show(axis: Any, image: Image) -> None:
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0), interpolation="nearest")


def _draw_histograms(
    target_axis: Any, axis: Any, drawing: HOGDrawing, mask: Any, size: tuple[int, int]
) -> None:
    target, prediction = _strengths(drawing.target), _strengths(drawing.prediction)
    masked = _enlarge(np.asarray(mask, dtype=bool), target.shape[1:], "histogram cells")
    brightest = max(float(target.max(initial=0.0)), 1e-12)
    if target_axis is not None:
        _draw_strokes(target_axis, target / brightest, np.ones_like(masked), size, _TARGET_COLOR)
    _draw_strokes(axis, target / brightest, ~masked, size, _SEEN_COLOR)
    _draw_strokes(axis, prediction / brightest, masked, size, _MADE_COLOR)


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
