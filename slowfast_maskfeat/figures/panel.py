"""What networks predict beside what they saw: frame, masked frame, targets and predictions.

HOG is drawn as strokes along the edges, pixels as pictures; predicted where masked, the original
elsewhere. The figures are laid out as in MaskFeat (arXiv 2112.09133).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, NamedTuple

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
_SEEN_COLOR = np.array([0.46, 0.59, 0.78])
_TARGET_COLOR = np.array([1.0, 1.0, 1.0])
_BACKGROUND = "#0b0d12"
_SIDE = 2.6  # inches of a picture
_DOTS = 130  # per inch
_MOST_LETTERS = 34  # in a line above a picture
# Above this many, the picture has more than the 65536 pixels that it can have.
MOST_ROWS = 180


class HOGDrawing(NamedTuple):
    """What a network predicted of one frame as HOG; arrays or CPU tensors.

    Attributes:
        target: (C, bins, H / cell, W / cell) histograms.
        prediction: the same shape; read only at masked cells.
        mask: (h, w) bool, True = masked; h and w divide the pixels of the frame and the cells.
        name: of the method, above its columns.
    """

    target: Any
    prediction: Any
    mask: Any
    name: str = "HOG"


class PixelDrawing(NamedTuple):
    """What a network predicted of one frame as pixels; arrays or CPU tensors.

    Attributes:
        target: (H, W, 3) uint8.
        prediction: the same shape; read only at masked pixels.
        mask: (h, w) bool, True = masked; h and w divide the pixels.
        name: of the method, above its columns.
    """

    target: Any
    prediction: Any
    mask: Any
    name: str = "pixels"


Drawing = HOGDrawing | PixelDrawing


class PanelRow(NamedTuple):
    """One frame of a panel, with what one or several networks predict of it.

    Attributes:
        frame: (H, W, 3) uint8 RGB.
        drawings: one for each network, the same networks in all rows of a panel.
        name: shown at the left of the row.
    """

    frame: Any
    drawings: Sequence[Drawing]
    name: str = ""


class Column(NamedTuple):
    """What stands in a column of a panel.

    Attributes:
        kind: the frame, what a network sees of it, its target, or its prediction.
        network: number of the network in the drawings of a row.
        title: above the column.
    """

    kind: Literal["frame", "seen", "target", "predicted"]
    network: int
    title: str


def panel_columns(rows: Sequence[PanelRow]) -> list[Column]:
    """The columns of a panel: what is the same of several networks stands there once.

    Args:
        rows: all that are to be drawn in this form, also those of other panels of a film.

    Returns:
        The frame; then of each network what it sees, if no other before it sees the same in all
        rows; its target, if none before it has the same; and what it predicts.
    """
    networks = range(len(rows[0].drawings))
    sees_other = [number for number in networks if _is_first(_sees_the_same, rows, number)]
    columns = [Column("frame", 0, "frame")]
    for number in networks:
        drawing = rows[0].drawings[number]
        if number in sees_other:
            who = drawing.name if len(sees_other) > 1 else "the model"
            columns.append(Column("seen", number, f"what {who} sees"))
        if _is_first(_has_the_same_target, rows, number):
            kind = "HOG" if isinstance(drawing, HOGDrawing) else "pixel"
            columns.append(Column("target", number, f"{kind} target"))
        columns.append(Column("predicted", number, f"{drawing.name} predicted where masked"))
    return columns


def _is_first(is_same: Any, rows: Sequence[PanelRow], number: int) -> bool:
    """Whether no network before this one is the same in all rows."""
    return not any(
        all(is_same(row, row.drawings[number], row.drawings[earlier]) for row in rows)
        for earlier in range(number)
    )


def _sees_the_same(row: PanelRow, one: Drawing, other: Drawing) -> bool:
    """Whether two networks see the same of a frame, on whatever grids their masks are."""
    size = np.shape(row.frame)[:2]
    return np.array_equal(*(_masked_pixels(drawing.mask, size) for drawing in (one, other)))


def _has_the_same_target(row: PanelRow, one: Drawing, other: Drawing) -> bool:
    mine, its = np.asarray(one.target), np.asarray(other.target)
    # On a GPU sums of histograms differ in their last digits.
    return type(one) is type(other) and mine.shape == its.shape and np.allclose(mine, its, 0, 1e-4)


def prediction_panel(path: str | Path, rows: Sequence[PanelRow], *, title: str = "") -> None:
    """Draws a panel of one row per frame and writes it as PNG.

    A histogram is drawn as strokes: the direction of a stroke is that of the edge (at right angles
    to the gradient), its brightness the strength, averaged over the color channels.

    Args:
        path: PNG file to write; its folder is made if need be.
        rows: at least one.
        title: above the panel.

    Raises:
        ValueError: no row, or too many; or a mask that does not divide the pixels or histograms.
    """
    figure = _draw(rows, None, title, str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS, format="png")


def panel_image(
    rows: Sequence[PanelRow], *, title: str = "", columns: Sequence[Column] | None = None
) -> Image:
    """The panel of `prediction_panel` as a picture, for a film of panels.

    Args:
        rows: at least one.
        title: above the panel.
        columns: of all pictures of a film, from `panel_columns`; None for those of these rows.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: as `prediction_panel`.
    """
    canvas = FigureCanvasAgg(_draw(rows, columns, title, "a panel"))
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
    hidden = _masked_pixels(mask, frame.shape[:2])
    return np.where(hidden[..., None], np.asarray(prediction), frame)


def _draw(
    rows: Sequence[PanelRow], columns: Sequence[Column] | None, title: str, what: str
) -> Figure:
    if not rows:
        raise ValueError(f"a panel needs at least one frame; {what} would have none")
    if len(rows) > MOST_ROWS:
        raise ValueError(f"a panel has {MOST_ROWS} rows at most; {what} would have {len(rows)}")
    columns = panel_columns(rows) if columns is None else columns
    frames = [np.asarray(row.frame) for row in rows]
    height = sum(frame.shape[0] / frame.shape[1] for frame in frames)
    head = 0.75 + 0.36 * bool(title)  # inches of titles and legend
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    figure = Figure(figsize=(len(columns) * _SIDE + 0.5, _SIDE * height + head), layout=layout)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, frame, row_axes in zip(rows, frames, axes, strict=True):
        for column, axis in zip(columns, row_axes, strict=True):
            _draw_cell(axis, column, row, frame)
        row_axes[0].set_ylabel(row.name, fontsize=10, color="#333333")
    for axis, column in zip(axes[0], columns, strict=True):
        axis.set_title(fill(column.title, _MOST_LETTERS), fontsize=10, color="#333333")
    if title:
        figure.suptitle(title, fontsize=12)
    _add_legend(figure, rows[0].drawings)
    return figure


def _add_legend(figure: Figure, drawings: Sequence[Drawing]) -> None:
    """What the colors mean, under the panel."""
    meanings = [(_MASK_COLOR / 255, "masked")]
    if any(isinstance(drawing, HOGDrawing) for drawing in drawings):
        meanings += [(_MADE_COLOR, "HOG predicted"), (_SEEN_COLOR, "HOG of what the model sees")]
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=tuple(color), edgecolor="#555555", linewidth=0.5)
        for color, _ in meanings
    ]
    labels = [text for _, text in meanings]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _draw_cell(axis: Any, column: Column, row: PanelRow, frame: Image) -> None:
    """One picture of a panel."""
    height, width = frame.shape[:2]
    drawing = row.drawings[column.network]
    if column.kind == "frame":
        _show(axis, frame)
    elif column.kind == "seen":
        _show(axis, hide_masked(frame, drawing.mask))
    elif isinstance(drawing, HOGDrawing):
        _draw_histograms(axis, drawing, (width, height), predicted=column.kind == "predicted")
    elif column.kind == "target":
        _show(axis, np.asarray(drawing.target))
    else:
        _show(axis, fill_masked(frame, drawing.mask, drawing.prediction))
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)


def _show(axis: Any, image: Image) -> None:
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0), interpolation="nearest")


def _draw_histograms(
    axis: Any, drawing: HOGDrawing, size: tuple[int, int], *, predicted: bool
) -> None:
    target, prediction = _strengths(drawing.target), _strengths(drawing.prediction)
    masked = _enlarge(np.asarray(drawing.mask, dtype=bool), target.shape[1:], "histogram cells")
    brightest = max(float(target.max(initial=0.0)), 1e-12)
    if not predicted:
        _draw_strokes(axis, target / brightest, np.ones_like(masked), size, _TARGET_COLOR)
        return
    _draw_strokes(axis, target / brightest, ~masked, size, _SEEN_COLOR)
    _draw_strokes(axis, prediction / brightest, masked, size, _MADE_COLOR)


def _strengths(histograms: Any) -> FloatArray:
    """(C, bins, rows, columns) of any kind -> (bins, rows, columns), averaged over colors."""
    return np.asarray(histograms, dtype=np.float64).mean(axis=0)


def _masked_pixels(mask: Any, size: tuple[int, ...]) -> Any:
    """(h, w) bool -> (H, W) bool."""
    return _enlarge(np.asarray(mask, dtype=bool), size, "pixels")


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
            linewidths=min(3.0, 40 / max(num_rows, num_columns)),
            capstyle="round",
        )
    )
