"""Eight bits from images that store more: 16-bit PNG, TIFF with 12 to 32 bits or floats.

White, the value that becomes 255, follows from the one file alone:

- What the file states: sBIT of PNG, 9 to 15 bits or MaxSampleValue of TIFF, the maximum of PNM, the
  precision of JPEG 2000.
- Else integers have the smallest even number of bits, at least 8, that holds the largest of them,
  so that 10, 12 and 14 bits stored in 16 are recognized. The upper 8 bits are kept.
- Floats up to 1 are in 0..1. Those whose largest is in 16..65535 are scaled like integers.

Everything else is refused: negative values, NaN and infinity, floats whose largest is between 1 and
16 or above 65535, and values that are all too small to be seen. An image of zeros is black.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# Tags of TIFF: BitsPerSample, PhotometricInterpretation, PlanarConfiguration, SampleFormat;
# MaxSampleValue, which is for integers only, and SMaxSampleValue.
_BITS, _PHOTOMETRIC, _PLANAR, _FORMAT, _LARGEST, _LARGEST_OF_ANY = 258, 262, 284, 339, 281, 341
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_DEEP_PLANES = "separate planes of more than 8 bits are not supported"
# Pillow decodes the upper bytes of 16-bit colors. The last letter of the layout is the order of the
# bytes: with the other order it decodes the lower ones.
_DEEP_COLORS = ("RGB;16", "RGBX;16", "RGBA;16")
_EXCHANGED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_GRAY_ALPHA = "LA;16B"  # decoded as RGBA: the bytes of gray, then those of alpha
_HALF_LEVEL = 0.5 / 255  # closer to a limit is rounding

Upright = Callable[[Any], Any]


class UnscalableError(ValueError):
    """The values of an image cannot be scaled to 8 bits."""


@dataclass(frozen=True)
class _Stated:
    """Facts that a file states about its values; 0: none.

    Attributes:
        bits: number of bits.
        largest: largest value.
        most_bits: number of bits of the stored integers, without their sign.
        is_inverted: white is 0.
    """

    bits: int = 0
    largest: float = 0.0
    most_bits: int = 16
    is_inverted: bool = False


def layout(image: Any) -> str:
    """Pillow's name for the layout of the stored pixels of an image that is not yet decoded.

    Empty if no pixels or several layouts are stored.
    """
    found = set()
    for tile in image.tile:
        arguments = tile[3]  # the layout, alone or with arguments of the decoder
        found.add(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)
    names = [name if isinstance(name, str) else "" for name in found]
    if len(names) > 1 and _has_deep_planes(image):  # Pillow would mix up the bytes
        raise UnscalableError(_DEEP_PLANES)
    return names[0] if len(names) == 1 else ""


def deep_pixels(
    image: Any, stored: str, stream: BinaryIO, upright: Upright
) -> NDArray[np.uint8] | None:
    """Scale a decoded image with more than 8 bits.

    Args:
        image: the image.
        stored: its `layout` before it was decoded.
        stream: its file.
        upright: rotates and mirrors an image as the file says.

    Returns:
        (H, W) gray values or (H, W, 3) colors; None for an image with 8 bits.

    Raises:
        UnscalableError: no rule fits the values.
    """
    if image.mode == "F":
        return _scale_floats(np.asarray(upright(image)), _read_stated(image, stream))
    if image.mode.startswith("I"):
        values = np.asarray(upright(image))
        stated = _read_stated(image, stream)
        if stated.most_bits == 32:
            values = values.view(np.uint32)  # Pillow has signed ones only
        return _scale_integers(values, stated)
    if stored == _DEEP_GRAY_ALPHA or stored[:-1] in _DEEP_COLORS:
        colors = np.asarray(upright(image))[..., :3]
        if colors.max() >= 128:  # white needs all 16 bits
            return colors
        if _has_deep_planes(image):
            if colors.max() >= 64:  # by the range, too
                return colors
            raise UnscalableError(f"{_DEEP_PLANES} where all values are below {64 << 8}")
        values = _both_bytes(image, stored, stream, upright, colors)
        return _scale_integers(values, _read_stated(image, stream))
    return None


def _both_bytes(
    image: Any, stored: str, stream: BinaryIO, upright: Upright, upper: NDArray[np.uint8]
) -> NDArray[np.uint16]:
    """Decode the file again for the lower bytes of its 16-bit colors."""
    stream.seek(0)
    with type(image)(stream) as again:
        if stored == _DEEP_GRAY_ALPHA:
            _set_layout(again, "RGBA")
            pixels = np.asarray(upright(again))
            upper, lower = pixels[..., 0], pixels[..., 1]
        else:
            _set_layout(again, stored[:-1] + _EXCHANGED[stored[-1]])
            lower = np.asarray(upright(again))[..., :3]
    values = upper.astype(np.uint16)  # in place from here on: images may be large
    values <<= 8
    values |= lower
    return values


def _set_layout(image: Any, name: str) -> None:
    """Let Pillow decode the stored pixels as if they had another layout."""
    tiles = []
    for tile in image.tile:
        arguments = (name, *tile[3][1:]) if isinstance(tile[3], tuple) else name
        is_named = hasattr(tile, "_replace")  # since Pillow 11
        tiles.append(tile._replace(args=arguments) if is_named else (*tile[:3], arguments))
    image.tile = tiles


def _scale_integers(values: NDArray[Any], stated: _Stated) -> NDArray[np.uint8]:
    lowest, largest = int(values.min()), int(values.max())
    if lowest < 0:
        raise UnscalableError(f"values must be >= 0, got {lowest}")
    shift = _num_bits(largest, stated) - 8
    if 0 < largest < 1 << shift:
        raise _too_small(largest, 1 << (shift + 8))
    scaled = np.empty(values.shape, np.uint8)
    np.right_shift(values, shift, out=scaled, casting="unsafe")
    return 255 - scaled if stated.is_inverted else scaled


def _num_bits(largest: int, stated: _Stated) -> int:
    """Number of bits of white, at least 8."""
    if stated.bits:
        # PNG requires values to be scaled to 16 bits, but many writers store them as they are.
        return max(8, stated.bits) if largest < 1 << stated.bits else stated.most_bits
    bits = max(largest, int(stated.largest)).bit_length()
    return min(max(8, bits + bits % 2), stated.most_bits)


def _scale_floats(values: NDArray[np.float32], stated: _Stated) -> NDArray[np.uint8]:
    is_finite = np.isfinite(values)
    if not is_finite.all():
        num_wrong = is_finite.size - int(np.count_nonzero(is_finite))
        raise UnscalableError(f"values must be finite, got {num_wrong} that are NaN or infinite")
    lowest, largest = float(values.min()), float(values.max())
    top = max(largest, stated.largest)
    if top <= 1 + _HALF_LEVEL:
        white = 1.0
    elif 16 <= top <= 65535:
        white = float(2 ** _num_bits(round(top), _Stated()) - 1)
    else:
        raise UnscalableError(
            f"floats must be in 0..1, or their largest in 16..65535, got a largest of {top:g}"
        )
    if lowest < -white * _HALF_LEVEL:
        raise UnscalableError(f"values must be >= 0, got {lowest:g}")
    if 0 < largest < white * _HALF_LEVEL:
        raise _too_small(largest, white)
    scaled = values * np.float32(255 / white)
    scaled += np.float32(0.5)
    scaled = np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
    return 255 - scaled if stated.is_inverted else scaled


def _too_small(largest: float, white: float) -> UnscalableError:
    return UnscalableError(
        f"all values would become black: the largest is {largest:g}, and white is {white:g}"
    )


def _read_stated(image: Any, stream: BinaryIO) -> _Stated:
    """Read the facts that a file states about its values."""
    if image.format == "PNG":
        return _Stated(bits=_significant_bits(stream))
    if image.format == "TIFF":
        bits = int(_tag(image, _BITS, 1))
        tags = (_LARGEST_OF_ANY,) if image.mode == "F" else (_LARGEST, _LARGEST_OF_ANY)
        return _Stated(
            bits=bits if 8 < bits < 16 else 0,
            largest=max(_tag(image, tag, 0) for tag in tags),
            most_bits=bits - (_tag(image, _FORMAT, 1) == _SIGNED),
            is_inverted=_tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO,
        )
    # Pillow scales JPEG 2000 by its precision and PNM by its maximum, to 16 bits.
    is_scaled = image.format in ("JPEG2000", "PPM") and image.mode != "F"
    return _Stated(bits=16 if is_scaled else 0)


def _has_deep_planes(image: Any) -> bool:
    """Whether each color of a TIFF is stored for itself, with more than 8 bits."""
    is_tiff = image.format == "TIFF"
    return is_tiff and _tag(image, _PLANAR, 1) == _SEPARATE and _tag(image, _BITS, 1) > 8


def _tag(image: Any, tag: int, default: float) -> float:
    """The largest number of a TIFF tag; the default if it has no finite, positive number."""
    values = image.tag_v2.get(tag, default)
    numbers = []
    for value in values if isinstance(values, tuple) else (values,):
        try:
            numbers.append(float(value))
        except (TypeError, ValueError, ZeroDivisionError):  # damaged
            continue
    return max((number for number in numbers if 0 <= number < float("inf")), default=default)


def _significant_bits(stream: BinaryIO) -> int:
    """Bits of the colors by the chunk sBIT of a 16-bit PNG; 0 without a valid one."""
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT":
            bits = stream.read(min(size, 4))
            most = max(bits[:3] if size >= 3 else bits[:1], default=0)  # without alpha
            return most if most <= 16 else 0
        if kind == b"IDAT":
            return 0
        stream.seek(size + 4, 1)
    return 0
