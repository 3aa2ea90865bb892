"""Stored label maps of images, which workers read together with the images.

The files have the form of Token Labeling (arXiv:2104.10858): a tensor (2, 5, h, w) with the scores
and the numbers of the five best classes at each place of an image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from slowfast_maskfeat.files import kind_of_file
from slowfast_maskfeat.videos.video import DecodeError, decoding

_NUM_BEST = 5
_LARGEST_IN_HALF = 2048  # half precision holds integers up to this exactly


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """A folder with one file for each image.

    The map of `<root>/train/cat/1.jpg` is `<folder>/train/cat/1.pt`. It describes the image as it
    is displayed, which for a photo with an EXIF orientation is after the rotation.

    Attributes:
        folder: folder of the maps.
        root: folder that the images are in.
        num_classes: K.
        size: height and width of every map; None accepts any.
    """

    folder: str
    root: str
    num_classes: int
    size: tuple[int, int] | None = None

    def file(self, image: str) -> str:
        """Return the path of an image's map.

        Raises:
            DecodeError: the image is not inside `root`.
        """
        inside = os.path.relpath(image, self.root)
        if inside.split(os.sep)[0] == os.pardir:
            raise DecodeError(
                image,
                f"has no label map, since it is not inside {self.root!r} (DATA.PATH_PREFIX, or "
                "else DATA.PATH_TO_DATA_DIR)",
            )
        return os.path.join(self.folder, f"{os.path.splitext(inside)[0]}.pt")

    def read(self, image: str) -> Tensor:
        """Read and check the map of an image.

        Args:
            image: path of the image.

        Returns:
            (2, 5, h, w) float32: scores and class numbers.

        Raises:
            DecodeError: the map is missing or malformed.
        """
        stored = self.load(image)
        problem = self.problem(stored)
        if problem:
            raise DecodeError(image, f"the label map {self.file(image)} {problem}")
        return stored.float()

    def load(self, image: str) -> Tensor:
        """Load the map of an image without checking its values.

        Raises:
            DecodeError: the file is missing, or holds no tensor.
        """
        path = self.file(image)
        if kind_of_file(path) != "file":
            raise DecodeError(image, f"the label map {path} does not exist")
        with decoding(image, f"the label map {path} cannot be read"):
            stored = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(stored, Tensor) or stored.layout is not torch.strided:
            raise DecodeError(image, f"the label map {path} must hold a dense tensor")
        return stored.detach()

    def problem(self, stored: Tensor) -> str:
        """Return the problem of a map; empty for a correct one."""
        shape = tuple(stored.shape)
        size = self.size or ("h", "w")
        is_map = len(shape) == 4 and shape[:2] == (2, _NUM_BEST) and min(shape) > 0
        if not is_map or (self.size is not None and shape[2:] != self.size):
            return f"must have the shape (2, {_NUM_BEST}, {size[0]}, {size[1]}), got {shape}"
        if stored.dtype not in (torch.float16, torch.float32):
            return f"must be float16 or float32, got {stored.dtype}"
        if not bool(stored.isfinite().all()):
            return "must hold finite numbers"
        numbers = stored[1]
        is_class = (numbers >= 0) & (numbers < self.num_classes) & (numbers == numbers.floor())
        if not bool(is_class.all()):
            return (
                f"must have class numbers in [0, {self.num_classes}) (MODEL.NUM_CLASSES), got "
                f"{numbers[~is_class][0].item():g}"
            )
        if stored.dtype is torch.float16 and bool((numbers > _LARGEST_IN_HALF).any()):
            return f"must be float32, which holds class numbers above {_LARGEST_IN_HALF} exactly"
        return ""
