"""Still images as videos of one frame, read with Pillow whatever the video decoder.

Pillow applies the EXIF orientation, reads the unusual files of ImageNet (CMYK, PNG under another
suffix) and returns the pixels that published results were obtained with; FFmpeg does not.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from slowfast_maskfeat.files import read_bytes
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.videos.video import DecodeError, Video


def open_file(path: str, content: bytes | None) -> Video:
    """Open an image; see `open_video`."""
    try:
        image = Image.open(BytesIO(read_bytes(path) if content is None else content))
    except Exception as error:  # Pillow's readers raise errors of many types
        raise DecodeError(path, f"cannot be opened as an image: {_reason(path, error)}") from error
    return _ImageVideo(path, image)


class _ImageVideo(Video):
    backend = "pillow"

    def __init__(self, path: str, image: Any) -> None:
        super().__init__(path, timestamps=np.zeros(1), fps=1.0, duration=1.0)
        self._image = image

    def close(self) -> None:
        if self._image is not None:
            self._image.close()
        self._image = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._image is None:
            raise ValueError(f"{self.path}: the image is closed")
        try:
            self._image.load()
            return np.array(_to_8_bits(_upright(self._image)).convert("RGB"), np.uint8)[None]
        except Exception as error:
            raise DecodeError(
                self.path, f"the image cannot be decoded: {_reason(self.path, error)}"
            ) from error


def _upright(image: Any) -> Any:
    """Rotate and mirror an image by its EXIF orientation."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged EXIF data does not affect the pixels


def _to_8_bits(image: Any) -> Any:
    """Scale 16-bit gray values to 8 bits, since `convert` would clip them."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _reason(path: str, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image format that Pillow supports"
    return first_line(error).replace(path, "the file")
