#!/usr/bin/env python3
"""Render labeled images of simple shapes, with lists in the Kinetics format.

An image is one frame of the renderer of `make_motion_clips.py`: a bright shape on a darker
background, both shaded, near the center, slightly rotated and of random size. The class is its
outline, one of six:

    disc, wide_oval, tall_oval, square, diamond, triangle

Place, rotation, area, colors, shading and a small irregularity of the outline have the same
distributions for every class, so only the outline determines it. An image depends only on (seed,
split, index).
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import make_motion_clips as clips
import motion_rendering as rendering
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slowfast_maskfeat.files import atomic_write

_ANGLES = 2 * math.pi * np.arange(4096) / 4096
_ORDERS = np.arange(2, 14)  # harmonics of an outline: enough for corners at this size
# Random streams that no clip uses.
_FIRST_STREAM = 100
_IRREGULARITY = 0.02  # of each of the first harmonics, in radii
_NUM_IRREGULAR = 6
_PLACE_RANGE = (0.42, 0.58)  # of the center, so that no corner leaves the image
_TURN = 0.03  # of a full turn, to either side: more would turn squares into diamonds
_LOG_RADIUS_RANGE = (0.5, 0.85)  # of the disc of the same area, in the periods of the clips
# Always brighter than the background, with muted colors: with contrasts of both signs a small
# network needs many more images to learn outlines.
_BACKGROUND_LUMA_RANGE = (0.28, 0.32)
_SHAPE_LUMA_RANGE = (0.75, 0.82)
_SATURATION = 0.04
_SLOPE_RANGE = (0.1, 0.2)  # change of the background's brightness across the image
_SHADE_RANGE = (0.06, 0.1)  # change of the shape's brightness per radius


def _ellipse(width: float, height: float) -> NDArray[np.float64]:
    """Radius at each angle of an ellipse with these half axes."""
    return 1 / np.hypot(np.cos(_ANGLES) / width, np.sin(_ANGLES) / height)


def _polygon(num_corners: int, first_corner: float) -> NDArray[np.float64]:
    """Radius at each angle of a regular polygon with a corner at `first_corner`, in turns."""
    sector = 2 * math.pi / num_corners
    from_middle = np.mod(_ANGLES - 2 * math.pi * first_corner, sector) - sector / 2
    return math.cos(sector / 2) / np.cos(from_middle)


def _harmonics(radius: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Coefficients of an outline from harmonic 2 on, relative to the mean radius."""
    waves = np.exp(-1j * np.outer(_ORDERS, _ANGLES))
    coefficients: NDArray[np.complex128] = 2 * (waves * radius).mean(1) / radius.mean()
    return coefficients


# By name; rows run downwards, so that a quarter turn points down.
_OUTLINES = {
    "disc": _harmonics(_ellipse(1.0, 1.0)),
    "wide_oval": _harmonics(_ellipse(1.35, 0.75)),
    "tall_oval": _harmonics(_ellipse(0.75, 1.35)),
    "square": _harmonics(_polygon(4, 0.125)),
    "diamond": _harmonics(_polygon(4, 0.0)),
    "triangle": _harmonics(_polygon(3, -0.25)),
}
CLASS_NAMES = tuple(_OUTLINES)


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """Settings of all images of a data set.

    Args:
        seed: seed of the data set.
        size: height and width in pixels, even, at least 32.
    """

    seed: int = 0
    size: int = 48

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size must be even and >= 32, got {self.size}")


def sample_image(seed: int, split: str, index: int) -> tuple[rendering.Motion, rendering.Look]:
    """Draw the parameters of image `index` of a split; its class is `index` modulo 6."""
    generator = np.random.default_rng([seed, _FIRST_STREAM + rendering.STREAMS.index(split), index])
    look = _sample_look(generator, CLASS_NAMES[index % len(CLASS_NAMES)])
    x, y = generator.uniform(*_PLACE_RANGE, size=2)
    turn = generator.uniform(-_TURN, _TURN) % 1.0
    # An outline with bumps has more area than the disc of its mean radius.
    area = 1 + (np.abs(look.contour) ** 2).sum() / 2
    low, high = rendering.RADIUS_RANGE
    log_radius = generator.uniform(*_LOG_RADIUS_RANGE) - math.log(area) / 2 / math.log(high / low)
    still = np.zeros(4)
    start = np.array([x, y, turn, log_radius])
    return rendering.Motion(start, still, still, still, still), look


def _sample_look(generator: np.random.Generator, shape: str) -> rendering.Look:
    """Draw outline, colors and shading of one image."""
    contour = _OUTLINES[shape].copy()
    phase = np.exp(2j * math.pi * generator.random(_NUM_IRREGULAR))
    contour[:_NUM_IRREGULAR] += generator.uniform(0, _IRREGULARITY, _NUM_IRREGULAR) * phase
    luma = [generator.uniform(*_BACKGROUND_LUMA_RANGE), generator.uniform(*_SHAPE_LUMA_RANGE)]
    background, tone = (value + _SATURATION * rendering.hue(generator.random(3)) for value in luma)
    angle, light = 2 * math.pi * generator.random(2)
    return rendering.Look(
        contour=contour,
        split=np.zeros(2),
        tones=np.stack([background, tone, tone]),
        heading=np.array([np.sin(angle), np.cos(angle)]),
        slopes=np.full(3, generator.uniform(*_SLOPE_RANGE)),
        shade=complex(np.exp(1j * light) * generator.uniform(*_SHADE_RANGE)),
    )


def render_image(seed: int, split: str, index: int, size: int) -> NDArray[np.uint8]:
    """Render one image: (H, W, 3) uint8, RGB."""
    return rendering.render_frames(*sample_image(seed, split, index), 1, size)[0]


def image_name(split: str, index: int) -> str:
    """Path of an image relative to the output folder, with forward slashes."""
    return f"images/{split}_{index:05d}.png"


def make_images(output: Path, settings: ImageSettings, num_images: dict[str, int]) -> list[Path]:
    """Make all missing images, with a progress line every two seconds.

    Returns:
        The images made in this call.
    """
    (output / "images").mkdir(parents=True, exist_ok=True)
    missing = [
        (split, index)
        for split, count in num_images.items()
        for index in range(count)
        if not (output / image_name(split, index)).exists()
    ]
    kept = sum(num_images.values()) - len(missing)
    print(f"{len(missing)} images to make, {kept} exist", flush=True)
    started = last_shown = time.monotonic()
    for number, (split, index) in enumerate(missing, start=1):
        path = output / image_name(split, index)
        image = Image.fromarray(render_image(settings.seed, split, index, settings.size))
        with atomic_write(path, shared=True) as part:
            image.save(part, format="PNG")
        now = time.monotonic()
        if number == len(missing) or now - last_shown > 2:
            last_shown = now
            rate = number / max(now - started, 1e-9)
            left = (len(missing) - number) / rate
            print(
                f"{number}/{len(missing)} images, {rate:.0f} images/s, {left:.0f} s left",
                flush=True,
            )
    return [output / image_name(split, index) for split, index in missing]


def make_data_set(
    output: Path,
    settings: ImageSettings,
    *,
    num_pretrain: int,
    num_train: int,
    num_val: int,
    num_test: int,
) -> list[Path]:
    """Make the missing part of the data set.

    Returns:
        The files written in this call.

    Raises:
        ValueError: a count is out of range, or the folder has other settings.
    """
    if not 0 < num_train <= num_pretrain:
        raise ValueError(
            f"num_train must be in 1..{num_pretrain} (num_pretrain), since labeled images are "
            f"among the unlabeled ones, got {num_train}"
        )
    if num_val < 1 or num_test < 1:
        raise ValueError(f"num_val and num_test must be >= 1, got {num_val} and {num_test}")
    clips.check_settings(output, settings)
    num_images = dict(zip(rendering.STREAMS, (num_pretrain, num_val, num_test), strict=True))
    made = make_images(output, settings, num_images)
    # Last, so that lists name only existing images.
    lists: list[Path] = clips.write_lists(output, num_images, num_train, CLASS_NAMES, image_name)
    return [*made, *lists]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Render a labeled data set of shapes as PNG files with Kinetics-style lists.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ImageSettings()
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    add(
        "--num-pretrain",
        type=int,
        default=2000,
        help="unlabeled images, including the labeled ones",
    )
    add("--num-train", type=int, default=300, help="labeled images for fine-tuning")
    add("--num-val", type=int, default=300, help="validation images")
    add("--num-test", type=int, default=600, help="test images")
    add("--seed", type=int, default=defaults.seed, help="seed of the data set")
    add("--size", type=int, default=defaults.size, help="height and width in pixels")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parse_arguments(arguments)

    def make() -> list[Path]:
        return make_data_set(
            options.output,
            ImageSettings(options.seed, options.size),
            num_pretrain=options.num_pretrain,
            num_train=options.num_train,
            num_val=options.num_val,
            num_test=options.num_test,
        )

    return clips.run_script(options.output, make)


if __name__ == "__main__":
    sys.exit(main())
