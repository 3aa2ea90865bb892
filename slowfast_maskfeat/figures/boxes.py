"""Frames with labeled boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from slowfast_maskfeat.figures.fonts import find_fonts, font_file
from slowfast_maskfeat.files import atomic_write

# Okabe and Ito's colors, which color-blind readers can tell apart.
_COLORS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66))
_MIN_SHORT_SIDE = 360  # pixels of a drawn frame; smaller frames are enlarged to fit text
_GAP = 8


def drawing_scale(height: int, width: int) -> int:
    """Integer factor by which a frame is enlarged so that text is readable."""
    return max(1, round(_MIN_SHORT_SIDE / min(height, width)))


def draw_boxes(
    frame: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    names: Sequence[Sequence[str]],
    *,
    scale: int = 1,
    opacity: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw boxes, each with lines of text, on a copy of a frame.

    Args:
        frame: uint8 (H, W, 3), RGB.
        boxes: (R, 4), x1, y1, x2, y2 as fractions of width and height.
        names: lines of text at the upper left corner of each box.
        scale: integer factor by which the copy is enlarged.
        opacity: opacity of boxes and text, in 0..1.

    Returns:
        uint8 (H * scale, W * scale, 3).
    """
    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    plain = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    image = plain.copy()
    draw = ImageDraw.Draw(image, "RGBA")
    size = max(10, round(min(height, width) / 34))
    in_pixels = (boxes * np.array([width, height] * 2)).tolist()
    colors = [_COLORS[number % len(_COLORS)] for number in range(len(in_pixels))]
    for box, color in zip(in_pixels, colors, strict=True):
        draw.rectangle(box, outline=(*color, 255), width=max(2, size // 6))
    # Text is drawn last, so that no box crosses it.
    for (x1, y1, _, y2), color, lines in zip(in_pixels, colors, names, strict=True):
        if not lines:
            continue
        text, font = _lettering("\n".join(lines), size)
        _, _, right, bottom = draw.multiline_textbbox((0, 0), text, font=font, spacing=2)
        left = min(max(x1, 0), max(width - right - 6, 0))
        top = y1 - bottom - 5 if y1 >= bottom + 5 else min(y2, height - bottom - 5)
        draw.rectangle((left, top, left + right + 6, top + bottom + 5), fill=(*color, 215))
        draw.multiline_text((left + 3, top + 2), text, font=font, fill=(0, 0, 0, 255), spacing=2)
    return np.asarray(Image.blend(plain, image, opacity))


def _lettering(text: str, size: int) -> tuple[str, Any]:
    """A text as it can be drawn, and the font for it."""
    if text.replace("\n", "").isascii() and text.replace("\n", "").isprintable():
        return text, ImageFont.load_default(size)
    try:
        fonts = find_fonts([text])
        return fonts.drawable(text), ImageFont.truetype(font_file(fonts), size)
    except ImportError:  # without matplotlib: an installation of its own may be broken
        return text.encode("ascii", "backslashreplace").decode(), ImageFont.load_default(size)


def box_panel(
    path: str | Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    num_columns: int,
    row_names: Sequence[str] = (),
) -> None:
    """Tile frames of one size and write them as PNG.

    Args:
        path: PNG file to write; its folder is created.
        frames: uint8 (H, W, 3), row by row.
        num_columns: frames per row.
        row_names: text on the left of each row; empty for none.

    Raises:
        ValueError: there are no frames.
    """
    if not frames:
        raise ValueError(f"frames must contain at least one frame, got none for {path}")
    height, width = frames[0].shape[:2]
    num_rows = -(-len(frames) // num_columns)
    columns = min(num_columns, len(frames))
    margin = height // 10 if row_names else 0
    size = (margin + columns * (width + _GAP) - _GAP, num_rows * (height + _GAP) - _GAP)
    sheet = Image.new("RGB", size, "white")
    for number, frame in enumerate(frames):
        row, column = divmod(number, num_columns)
        corner = (margin + column * (width + _GAP), row * (height + _GAP))
        sheet.paste(Image.fromarray(frame), corner)
    for row, name in enumerate(row_names):
        strip = Image.new("RGB", (height, margin), "white")
        center = (height // 2, margin // 2)
        font = ImageFont.load_default(margin // 2)
        ImageDraw.Draw(strip).text(center, name, fill="black", font=font, anchor="mm")
        sheet.paste(strip.rotate(90, expand=True), (0, row * (height + _GAP)))
    with atomic_write(path) as part:
        sheet.save(part, format="PNG")
