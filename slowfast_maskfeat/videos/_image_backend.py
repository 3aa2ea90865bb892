"""Still images as videos of one frame, read with Pillow whatever the video decoder.

Pillow applies the EXIF orientation, reads the unusual files of ImageNet (CMYK, PNG under another
suffix) and returns the pixels that published results were obtained with; FFmpeg does not.

Only the formats of this field are read. Some others start programs (EPS starts Ghostscript), and
most are read by code that is little used and tested.
"""

from __future__ import annotations

import importlib
import os
import struct
from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.videos._image_depth import UnscalableError, deep_pixels, layout
from slowfast_maskfeat.videos.video import DecodeError, MissingFileError, Video

_FORMATS = (
    *("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"),
    "HEIF",  # of the package pillow-heif, if it is installed
)
_SHOWN_FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PNM, JPEG 2000, AVIF, HEIC"
# A resize by the short side makes a longer image larger than memory.
_MAX_RATIO = 100
_PREFIX = 64  # bytes by which a format is recognized
# Brands in the first box of files in the container HEIF; the last two do not name a codec.
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def open_file(path: str, content: bytes | None, *, max_pixels: int) -> Video:
    """Open an image without decoding its pixels; see `open_video`."""
    try:
        stream = BytesIO(content) if content is not None else _open_local(path)
    except OSError as error:
        reason = f"cannot be opened: {error.strerror or first_line(error)}"
        raise DecodeError(path, reason) from error
    try:
        return _ImageVideo(path, stream, _identify(stream), max_pixels)
    except DecodeError:
        stream.close()
        raise
    except Exception as error:  # Pillow's readers raise errors of many types
        stream.close()
        reason = f"cannot be opened as an image: {_reason(path, error)}"
        raise DecodeError(path, reason) from error


class _ImageVideo(Video):
    backend = "pillow"

    def __init__(self, path: str, stream: BinaryIO, image: Any, max_pixels: int) -> None:
        width, height = image.size
        if max_pixels and width * height > max_pixels:
            raise DecodeError(
                path,
                f"an image must have at most {max_pixels:,} pixels (DATA.MAX_IMAGE_PIXELS), "
                f"got {width}x{height}",
            )
        if max(width, height) > _MAX_RATIO * min(width, height):
            raise DecodeError(
                path,
                f"the longer side of an image must be at most {_MAX_RATIO} times the other, got "
                f"{width}x{height}",
            )
        super().__init__(path, timestamps=np.zeros(1), fps=1.0, duration=1.0)
        self._stream = stream
        self._layout = layout(image)
        self._image = image

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
            self._stream.close()
        self._image = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._image is None:
            raise ValueError(f"{self.path}: the image is closed")
        try:
            return self._pixels()[None]
        except UnscalableError as error:
            raise DecodeError(self.path, f"cannot be scaled to 8 bits: {error}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise DecodeError(
                self.path, f"the image cannot be decoded: {_reason(self.path, error)}"
            ) from error

    def _pixels(self) -> NDArray[np.uint8]:
        """Decode the image: (H, W, 3)."""
        self._image.load()
        pixels = deep_pixels(self._image, self._layout, self._stream, _upright)
        if pixels is None:
            return np.array(_upright(self._image).convert("RGB"), np.uint8)
        if pixels.ndim == 2:
            return np.repeat(pixels[..., None], 3, axis=-1)
        return np.require(pixels, requirements="W")


def _open_local(path: str) -> BinaryIO:
    """Open a regular file; a pipe without a writer would block forever."""
    if not os.path.exists(path):
        raise MissingFileError(path, "no such file")
    if not os.path.isfile(path):
        raise DecodeError(path, "is not a regular file")
    return open(path, "rb")


def _identify(stream: BinaryIO) -> Any:
    """Open an image of one of the formats, as `Image.open` does.

    Unlike that, it reports why a file of a format cannot be opened, and Pillow's limit of pixels,
    which is one per process, does not replace that of `open_file`.

    Raises:
        ValueError: the file has another format, or its format cannot be read here.
        Exception: errors of Pillow of many types.
    """
    prefix = stream.read(_PREFIX)
    reason = ""
    for name in _formats():
        open_format, accepts = Image.OPEN[name]
        accepted = accepts is None or accepts(prefix)
        if not accepted or isinstance(accepted, str):  # a string: Pillow was built without it
            continue
        stream.seek(0)
        try:
            return open_format(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            reason = f"{name}: {first_line(error)}"
    reason = _missing_package(prefix) or reason
    raise ValueError(reason or f"no image format that is supported ({_SHOWN_FORMATS})")


@cache
def _formats() -> tuple[str, ...]:
    """Names of the formats that are installed."""
    Image.init()
    with suppress(ImportError, OSError):  # absent, or a library of it is
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _missing_package(prefix: bytes) -> str:
    """The package that must be installed to read a file that begins so; "" if there is none."""
    if prefix[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    brands = {prefix[8:12], *(prefix[begin : begin + 4] for begin in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        is_readable = "AVIF" in _formats() and features.check("avif")
        return "" if is_readable else "AVIF requires Pillow 11.3 or newer"
    if brands & _HEIC_BRANDS and "HEIF" not in _formats():
        return "HEIC requires the package pillow-heif (pip install pillow-heif)"
    return ""


def _upright(image: Any) -> Any:
    """Rotate and mirror an image by its EXIF orientation."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:
        return image  # damaged EXIF data does not affect the pixels


def _reason(path: str, error: Exception) -> str:
    return first_line(error).replace(path, "the file")
