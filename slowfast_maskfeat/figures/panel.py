"""Panels of frame, masked input, targets and predictions of one or several networks.

HOG is drawn as strokes along the edges, pixels as images: predictions where masked, the original
elsewhere. The layout follows the figures of MaskFeat (arXiv 2112.09133).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slowfast_maskfeat.figures.canvas import DPI, new_figure, own_style, write_figure
from slowfast_maskfeat.figures.rows import (
    Column,
    Drawing,
    HOGDrawing,
    MapDrawing,
    PanelRow,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

_MASK_COLOR = np.array([107, 115, 128], dtype=np.uint8)
# Strokes of predicted cells, and strokes of visible cells.
_PREDICTED_COLOR = np.array([1.0, 0.86, 0.55])
_VISIBLE_COLOR = np.array([0.46, 0.59, 0.78])
_TARGET_COLOR = np.array([1.0, 1.0, 1.0])
_BACKGROUND = "#0b0d12"
_IMAGE_INCHES = 2.6  # side of one image of a panel
_TITLE_SIZE = 12  # points
_MAX_TITLE_CHARS = 34  # per line above a column
# More rows would exceed matplotlib's limit of 65536 pixels for the height of a figure.
MAX_ROWS = 180


def panel_columns(rows: Sequence[PanelRow]) -> list[Column]:
    """Columns of a panel; masked inputs and targets that networks share are shown once.

    Args:
        rows: all rows that get these columns, including those of other frames of an animation.

    Returns:
        The frame; then for each network its masked input, unless an earlier network has the same
        one in all rows; its target, unless an earlier one has the same; and its prediction. Then
        the pictures.
    """
    networks = range(len(rows[0].drawings))
    with_own_mask = [number for number in networks if _is_first(_has_same_mask, rows, number)]
    columns = [Column("frame", 0, "frame")]
    for number in networks:
        drawing = rows[0].drawings[number]
        if number in with_own_mask:
            owner = f" of {drawing.name}" if len(with_own_mask) > 1 else ""
            columns.append(Column("masked", number, f"masked input{owner}"))
        if _is_first(_has_same_target, rows, number):
            columns.append(Column("target", number, f"{_kind(drawing)} target"))
        columns.append(Column("predicted", number, f"{drawing.name} predicted where masked"))
    columns += [Column("picture", n, picture.name) for n, picture in enumerate(rows[0].pictures)]
    return columns


def _kind(drawing: Drawing) -> str:
    if isinstance(drawing, MapDrawing):
        return drawing.kind
    return "HOG" if isinstance(drawing, HOGDrawing) else "pixel"


def _is_first(is_same: Any, rows: Sequence[PanelRow], number: int) -> bool:
    """Whether no network before this one is the same in all rows."""
    return not any(
        all(is_same(row, row.drawings[number], row.drawings[earlier]) for row in rows)
        for earlier in range(number)
    )


def _has_same_mask(row: PanelRow, one: Drawing, other: Drawing) -> bool:
    """Whether two masks hide the same pixels of a frame, even if their grids differ."""
    size = np.shape(row.frame)[:2]
    return np.array_equal(*(_masked_pixels(drawing.mask, size) for drawing in (one, other)))


def _has_same_target(row: PanelRow, one: Drawing, other: Drawing) -> bool:
    mine, its = np.asarray(one.target), np.asarray(other.target)
    # On a GPU, sums of histograms differ in their last digits.
    return type(one) is type(other) and mine.shape == its.shape and np.allclose(mine, its, 0, 1e-4)


def prediction_panel(path: str | Path, rows: Sequence[PanelRow], *, title: str = "") -> None:
    """Draw a panel with one row per frame and write it as PNG.

    A histogram is drawn as strokes: the direction of a stroke is that of the edge (perpendicular
    to the gradient), its brightness the magnitude, averaged over the color channels.

    Args:
        path: PNG file to write; its folder is created.
        rows: 1 to `MAX_ROWS` rows.
        title: title of the panel.

    Raises:
        ValueError: there are no rows or too many, or a mask does not divide the pixels or
            histograms.
    """
    with own_style(_texts(rows, title)) as drawable:
        write_figure(_draw(rows, None, title, str(path), drawable), path)


def panel_image(
    rows: Sequence[PanelRow], *, title: str = "", columns: Sequence[Column] | None = None
) -> Image:
    """Draw the panel of `prediction_panel` as an array, for an animation of panels.

    Args:
        rows: 1 to `MAX_ROWS` rows.
        title: title of the panel.
        columns: columns of all frames of an animation, from `panel_columns`; None for the columns
            of these rows.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: as in `prediction_panel`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with own_style(_texts(rows, title)) as drawable:
        canvas = FigureCanvasAgg(_draw(rows, columns, title, "a panel", drawable))
        canvas.figure.set_dpi(DPI)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _texts(rows: Sequence[PanelRow], title: str) -> list[str]:
    """Texts of a panel that come from users."""
    drawings = [drawing for row in rows[:1] for drawing in row.drawings]
    names = [drawing.name for drawing in drawings]
    names += [picture.name for row in rows[:1] for picture in row.pictures]
    classes = [name for drawing in drawings for name, _ in _legend(drawing)]
    return [title, *names, *classes, *(row.name for row in rows)]


def _legend(drawing: Drawing) -> tuple[tuple[str, tuple[int, int, int]], ...]:
    return drawing.legend if isinstance(drawing, MapDrawing) else ()


def hide_masked(frame: Any, mask: Any) -> Image:
    """Masked input: the frame (H, W, 3) uint8 with gray where `mask` (h, w) is True."""
    return fill_masked(frame, mask, np.broadcast_to(_MASK_COLOR, np.shape(frame)))


def fill_masked(frame: Any, mask: Any, prediction: Any) -> Image:
    """Combine the prediction where masked with the original elsewhere.

    Args:
        frame: (H, W, 3) uint8.
        mask: (h, w) bool, True = masked.
        prediction: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: the mask does not divide the pixels.
    """
    frame = np.asarray(frame)
    hidden = _masked_pixels(mask, frame.shape[:2])
    return np.where(hidden[..., None], np.asarray(prediction), frame)


def _draw(
    rows: Sequence[PanelRow],
    columns: Sequence[Column] | None,
    title: str,
    name: str,
    drawable: Callable[[str], str],
) -> Figure:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not 1 <= len(rows) <= MAX_ROWS:
        raise ValueError(f"a panel must have 1 to {MAX_ROWS} rows, got {len(rows)} for {name}")
    columns = panel_columns(rows) if columns is None else columns
    frames = [np.asarray(row.frame) for row in rows]
    height = sum(frame.shape[0] / frame.shape[1] for frame in frames)
    name_lines = max(row.name.count("\n") + 1 for row in rows)
    width = len(columns) * _IMAGE_INCHES + 0.33 + 0.17 * name_lines
    title = fill(drawable(title), int(width * 72 / (0.6 * _TITLE_SIZE)))
    head = 0.75 + (0.15 + 0.21 * len(title.splitlines())) * bool(title)  # inches without images
    figure = new_figure(width, _IMAGE_INCHES * height + head)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0))
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, frame, row_axes in zip(rows, frames, axes, strict=True):
        for column, axis in zip(columns, row_axes, strict=True):
            _draw_cell(axis, column, row, frame)
        row_axes[0].set_ylabel(drawable(row.name), fontsize=10, color="#333333")
    for axis, column in zip(axes[0], columns, strict=True):
        text = fill(drawable(column.title), _MAX_TITLE_CHARS)
        axis.set_title(text, fontsize=10, color="#333333")
    if title:
        figure.suptitle(title, fontsize=_TITLE_SIZE)
    _add_legend(figure, rows[0].drawings, drawable)
    return figure


def _add_legend(
    figure: Figure, drawings: Sequence[Drawing], drawable: Callable[[str], str]
) -> None:
    """Add the legend of the colors of predictions below the panel."""
    from matplotlib.patches import Rectangle

    if not drawings:
        return
    entries = [(_MASK_COLOR / 255, "masked")]
    if any(isinstance(drawing, HOGDrawing) for drawing in drawings):
        entries += [(_PREDICTED_COLOR, "HOG predicted"), (_VISIBLE_COLOR, "HOG of visible cells")]
    classes = dict.fromkeys(entry for drawing in drawings for entry in _legend(drawing))
    entries += [(np.array(color) / 255, drawable(name)) for name, color in classes]
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=tuple(color), edgecolor="#555555", linewidth=0.5)
        for color, _ in entries
    ]
    labels = [text for _, text in entries]
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


def _draw_cell(axis: Any, column: Column, row: PanelRow, frame: Image) -> None:
    """Draw one image of a panel."""
    height, width = frame.shape[:2]
    if column.kind == "frame":
        _show(axis, frame)
    elif column.kind == "picture":
        _show(axis, np.asarray(row.pictures[column.network].pixels))
    else:
        _draw_prediction(axis, column, row.drawings[column.network], frame)
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    axis.spines[:].set_visible(False)


def _draw_prediction(axis: Any, column: Column, drawing: Drawing, frame: Image) -> None:
    """Draw the masked input, target or prediction of a network."""
    height, width = frame.shape[:2]
    if column.kind == "masked":
        _show(axis, hide_masked(frame, drawing.mask))
    elif isinstance(drawing, HOGDrawing):
        _draw_histograms(axis, drawing, (width, height), predicted=column.kind == "predicted")
    elif column.kind == "target":
        _show(axis, np.asarray(drawing.target))
    else:
        around = np.asarray(drawing.target) if isinstance(drawing, MapDrawing) else frame
        _show(axis, fill_masked(around, drawing.mask, drawing.prediction))


def _show(axis: Any, image: Image) -> None:
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0), interpolation="nearest")


def _draw_histograms(
    axis: Any, drawing: HOGDrawing, size: tuple[int, int], *, predicted: bool
) -> None:
    target, prediction = _magnitudes(drawing.target), _magnitudes(drawing.prediction)
    masked = _repeat_mask(np.asarray(drawing.mask, dtype=bool), target.shape[1:], "histogram cells")
    brightest = max(float(target.max(initial=0.0)), 1e-12)
    if not predicted:
        _draw_strokes(axis, target / brightest, np.ones_like(masked), size, _TARGET_COLOR)
        return
    _draw_strokes(axis, target / brightest, ~masked, size, _VISIBLE_COLOR)
    _draw_strokes(axis, prediction / brightest, masked, size, _PREDICTED_COLOR)


def _magnitudes(histograms: Any) -> FloatArray:
    """Average (C, bins, rows, columns), array or tensor, over colors -> (bins, rows, columns)."""
    return np.asarray(histograms, dtype=np.float64).mean(axis=0)


def _masked_pixels(mask: Any, size: tuple[int, ...]) -> Any:
    """Enlarge a mask (h, w) bool to the pixels of a frame, (H, W) bool."""
    return _repeat_mask(np.asarray(mask, dtype=bool), size, "pixels")


def _repeat_mask(mask: npt.NDArray[np.bool_], size: tuple[int, ...], unit: str) -> Any:
    """Repeat the cells of a mask up to `size`."""
    if size[0] % mask.shape[0] or size[1] % mask.shape[1]:
        raise ValueError(
            f"mask size must divide {size[0]}x{size[1]} {unit}, "
            f"got {mask.shape[0]}x{mask.shape[1]} cells"
        )
    return mask.repeat(size[0] // mask.shape[0], 0).repeat(size[1] // mask.shape[1], 1)


def _draw_strokes(
    axis: Any,
    magnitudes: FloatArray,
    shown: npt.NDArray[np.bool_],
    size: tuple[int, int],
    color: FloatArray,
) -> None:
    """Draw the strokes of the cells in `shown`, strong ones on top of weak ones.

    Args:
        axis: axes in pixel coordinates of the image.
        magnitudes: (bins, rows, columns), 1 for full brightness.
        shown: (rows, columns) bool, cells to draw.
        size: width and height of the image in pixels.
        color: (3,) RGB in 0..1 of a stroke at full brightness.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    num_bins, num_rows, num_columns = magnitudes.shape
    axis.add_patch(Rectangle((0, 0), *size, color=_BACKGROUND, zorder=0))
    bins, rows, columns = np.nonzero(shown & (magnitudes > 0.05))
    brightness = magnitudes[bins, rows, columns].clip(0, 1)
    order = brightness.argsort()
    bins, rows, columns, brightness = bins[order], rows[order], columns[order], brightness[order]
    step = np.array([size[0] / num_columns, size[1] / num_rows])
    center = (np.stack((columns, rows), axis=1) + 0.5) * step
    # The gradient of a bin points at (sin, cos) of its angle; the edge is perpendicular to it.
    angle = (bins + 0.5) * np.pi / num_bins
    half = 0.46 * step * np.stack((np.cos(angle), -np.sin(angle)), axis=1)
    axis.add_collection(
        LineCollection(
            list(np.stack((center - half, center + half), axis=1)),
            colors=np.concatenate((np.broadcast_to(color, (len(bins), 3)), brightness[:, None]), 1),
            linewidths=min(3.0, 40 / max(num_rows, num_columns)),
            capstyle="round",
        )
    )
