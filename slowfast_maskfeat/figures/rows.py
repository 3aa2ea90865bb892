"""Content of a panel: frames with predictions of networks and with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple


class HOGDrawing(NamedTuple):
    """HOG prediction of a network for one frame; arrays or CPU tensors.

    Attributes:
        target: (C, bins, H / cell, W / cell) histograms.
        prediction: same shape as `target`; read only at masked cells.
        mask: (h, w) bool, True = masked; h and w divide the pixels of the frame and the cells.
        name: method, shown above its columns.
    """

    target: Any
    prediction: Any
    mask: Any
    name: str = "HOG"


class PixelDrawing(NamedTuple):
    """Pixel prediction of a network for one frame; arrays or CPU tensors.

    Attributes:
        target: (H, W, 3) uint8.
        prediction: same shape as `target`; read only at masked pixels.
        mask: (h, w) bool, True = masked; h and w divide the pixels.
        name: method, shown above its columns.
    """

    target: Any
    prediction: Any
    mask: Any
    name: str = "pixels"


class MapDrawing(NamedTuple):
    """Prediction of a network for one frame that has a picture of its own; arrays or CPU tensors.

    Attributes:
        target: (H, W, 3) uint8.
        prediction: same shape as `target`; read only at masked pixels. The target is shown
            elsewhere.
        mask: (h, w) bool, True = masked; h and w divide the pixels.
        name: method, shown above its columns.
        kind: what the target is, shown above it.
        legend: names of colors (R, G, B) of 0 to 255, shown below the panel.
    """

    target: Any
    prediction: Any
    mask: Any
    name: str
    kind: str
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


Drawing = HOGDrawing | PixelDrawing | MapDrawing


class Picture(NamedTuple):
    """A picture that belongs to a frame, such as the attention of a network.

    Attributes:
        pixels: (H, W, 3) uint8.
        name: text above its column.
    """

    pixels: Any
    name: str


class PanelRow(NamedTuple):
    """One frame of a panel with the predictions of one or several networks, and pictures.

    Attributes:
        frame: (H, W, 3) uint8 RGB.
        drawings: one per network, the same networks in all rows of a panel; may be empty.
        name: text on the left of the row.
        pictures: the same ones in all rows of a panel.
    """

    frame: Any
    drawings: Sequence[Drawing]
    name: str = ""
    pictures: Sequence[Picture] = ()


class Column(NamedTuple):
    """Content of one column of a panel.

    Attributes:
        kind: frame, masked input of a network, its target or its prediction, or a picture.
        network: index of the network in the drawings of a row, or of the picture.
        title: text above the column.
    """

    kind: Literal["frame", "masked", "target", "predicted", "picture"]
    network: int
    title: str
