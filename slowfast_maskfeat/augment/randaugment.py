"""RandAugment: random operations drawn per clip, the same for all of its frames.

Policies are the published strings, such as `rand-m7-n4-mstd0.5-inc1`: `m` is the magnitude in
0..10, `n` the number of operations (default 2), `mstd` the standard deviation of the magnitude
(default 0), and `inc1` selects the operations whose strength increases with the magnitude. Each
drawn operation is applied with probability 0.5.

Source: Cubuk et al., RandAugment (2020), as in the published code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from slowfast_maskfeat.augment.affine import INTERPOLATIONS, Affine, inverse, rotation
from slowfast_maskfeat.augment.boxes import Boxes, clip_boxes
from slowfast_maskfeat.augment.colors import blur_radius
from slowfast_maskfeat.augment.crop import CropBox

Rng = np.random.Generator

_MAX_LEVEL = 10.0
_PROBABILITY = 0.5
_FACTORS = ("Color", "Contrast", "Brightness", "Sharpness")
_AFFINE_NAMES = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
_WHOLE_FRAME = ("AutoContrast", "Equalize", "Contrast", "ChannelContrast")
_NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    *_FACTORS,
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
# Operations that have a variant whose strength increases with the magnitude.
_WITH_INCREASING_VARIANT = ("Posterize", "Solarize", *_FACTORS)


class Operation(NamedTuple):
    """One drawn operation.

    Attributes:
        name: published name.
        argument: degrees, shear, fraction of the side, bits, a pixel value or a factor.
        interpolation: interpolation of operations that move pixels.
        fill: per-channel value of pixels outside of the frame.
    """

    name: str
    argument: float = 0.0
    interpolation: str = "bicubic"
    fill: tuple[int, ...] = (128, 128, 128)

    @property
    def kind(self) -> str:
        """The name without `Increasing`, which only affects the argument."""
        return self.name.removesuffix("Increasing")

    @property
    def moves_pixels(self) -> bool:
        """Whether it is an affine operation, which has a `matrix`."""
        return self.kind in _AFFINE_NAMES

    def matrix(self, height: int, width: int) -> Affine:
        """Return the map from output to input coordinates of an operation that moves pixels."""
        if self.kind == "Rotate":
            return rotation(self.argument, height, width)
        return {
            "ShearX": Affine(1, self.argument, 0, 0, 1, 0),
            "ShearY": Affine(1, 0, 0, self.argument, 1, 0),
            "TranslateXRel": Affine(1, 0, self.argument * width, 0, 1, 0),
            "TranslateYRel": Affine(1, 0, 0, 0, 1, self.argument * height),
        }[self.kind]

    def region_needed(self, box: CropBox, height: int, width: int) -> CropBox:
        """Return the rectangle of the frame that `box` of the result depends on."""
        if self.moves_pixels:
            return self.matrix(height, width).source(box, height, width)
        if self.kind in _WHOLE_FRAME:
            return CropBox(0, 0, height, width)
        reach = {"Sharpness": 1, "GaussianBlur": blur_radius(self.argument)}.get(self.kind, 0)
        return box.grown(reach, height, width) if reach else box


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Random sampler of operations.

    Attributes:
        magnitude: mean magnitude in 0..10.
        num_operations: number of operations to draw, with replacement.
        magnitude_std: standard deviation of the magnitude, which is clipped to 0..10.
        increasing: use the variants whose strength increases with the magnitude.
        interpolation: "bicubic", "bilinear" or "random", for operations that move pixels.
        fill: per-channel value of pixels outside of the frame.
    """

    magnitude: float
    num_operations: int = 2
    magnitude_std: float = 0.0
    increasing: bool = False
    interpolation: str = "bicubic"
    fill: tuple[int, ...] = (128, 128, 128)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the operations to draw from."""
        if not self.increasing:
            return _NAMES
        return tuple(f"{n}Increasing" if n in _WITH_INCREASING_VARIANT else n for n in _NAMES)

    def draw(self, generator: Rng) -> list[Operation]:
        """Draw the operations of one clip, in order; there may be none."""
        names = self.names
        drawn = []
        for index in generator.integers(len(names), size=self.num_operations):
            if generator.random() >= _PROBABILITY:
                continue
            level = generator.normal(self.magnitude, self.magnitude_std)
            negative = bool(generator.random() < 0.5)
            interpolation = self.interpolation
            if interpolation == "random":
                interpolation = INTERPOLATIONS[int(generator.integers(len(INTERPOLATIONS)))]
            argument = level_argument(names[index], level, negative=negative)
            drawn.append(Operation(names[index], argument, interpolation, self.fill))
        return drawn


def parse_policy(
    policy: str, *, interpolation: str = "bicubic", fill: tuple[int, ...] = (128, 128, 128)
) -> RandAugment:
    """Build RandAugment from a published policy string.

    Raises:
        ValueError: the policy is not RandAugment, or it has an unknown or invalid part.
    """
    kind, *parts = policy.split("-")
    if kind != "rand":
        raise ValueError(
            "AUG.AA_TYPE must be a RandAugment policy such as 'rand-m7-mstd0.5-inc1', or empty, "
            f"got {policy!r}"
        )
    if interpolation not in (*INTERPOLATIONS, "random"):
        raise ValueError(
            f"AUG.INTERPOLATION must be 'bicubic', 'bilinear' or 'random', got {interpolation!r}"
        )
    values = {"m": _MAX_LEVEL, "n": 2.0, "mstd": 0.0, "inc": 0.0}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        if match is None or match[1] not in values:
            raise ValueError(
                "AUG.AA_TYPE must consist of the parts m, n, mstd and inc1 (magnitude, number of "
                f"operations, standard deviation, increasing set), got {part!r} in {policy!r}"
            )
        values[match[1]] = float(match[2])
        if match[1] == "inc" and values["inc"] != 1:
            raise ValueError(
                f"AUG.AA_TYPE: 'inc' must be 'inc1' or absent, got {part!r} in {policy!r}; the "
                "published code treats any value as 'inc1'"
            )
    if values["n"] < 1 or values["n"] != int(values["n"]):
        raise ValueError(f"AUG.AA_TYPE: n must be an integer >= 1, got {policy!r}")
    if values["m"] > _MAX_LEVEL:
        raise ValueError(f"AUG.AA_TYPE: m must be in 0..{_MAX_LEVEL:g}, got {policy!r}")
    return RandAugment(
        magnitude=values["m"],
        num_operations=int(values["n"]),
        magnitude_std=values["mstd"],
        increasing=bool(values["inc"]),
        interpolation=interpolation,
        fill=fill,
    )


def level_argument(name: str, level: float, *, negative: bool = False) -> float:
    """Return the argument of an operation at a magnitude.

    Args:
        name: published name.
        level: magnitude; clipped to 0..10.
        negative: use the opposite direction, for operations that have two.
    """
    share = min(max(level, 0.0), _MAX_LEVEL) / _MAX_LEVEL
    sign = -1 if negative else 1
    arguments = {
        "AutoContrast": 0.0,
        "Equalize": 0.0,
        "Invert": 0.0,
        "Rotate": sign * share * 30.0,
        "Posterize": int(share * 4),
        "PosterizeIncreasing": 4 - int(share * 4),
        "Solarize": int(share * 256),
        "SolarizeIncreasing": 256 - int(share * 256),
        "SolarizeAdd": int(share * 110),
        "ShearX": sign * share * 0.3,
        "ShearY": sign * share * 0.3,
        "TranslateXRel": sign * share * 0.45,
        "TranslateYRel": sign * share * 0.45,
    }
    for factor in _FACTORS:
        arguments[factor] = 0.1 + share * 1.8
        arguments[f"{factor}Increasing"] = 1.0 + sign * share * 0.9
    return arguments[name]


def move_boxes(boxes: Boxes, drawn: Sequence[Operation], height: int, width: int) -> Boxes:
    """Transform boxes by operations on frames of (height, width).

    A rotated or sheared box is replaced by its axis-aligned bounding box, clipped to the frame.
    """
    for operation in drawn:
        if operation.moves_pixels and len(boxes):
            matrix = inverse(operation.matrix(height, width))
            x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]  # the corners (R, 4)
            new_x = matrix.a * x + matrix.b * y + matrix.c
            new_y = matrix.d * x + matrix.e * y + matrix.f
            low = np.stack([new_x.min(1), new_y.min(1)], axis=1)
            high = np.stack([new_x.max(1), new_y.max(1)], axis=1)
            boxes = clip_boxes(np.concatenate([low, high], axis=1), height, width)
    return boxes
