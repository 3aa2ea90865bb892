#!/usr/bin/env python3
"""Renders labelled images of blobs whose contour tells the class, with lists in the Kinetics form.

An image is one frame of `make_motion_clips.py`: a two-coloured blob on a shaded background, about
the middle of the picture, turned a little and sized at random. The class is the number of bumps of
its contour, one of six:

    two_lobes, three_lobes, ... seven_lobes

Place, turn, size, colours, shading and a small irregularity of the contour are drawn from
the same laws for every class, so only the outline tells it. An image depends on (seed, split,
index) alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import make_motion_clips as clips
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_NUM_LOBES = (2, 3, 4, 5, 6, 7)
CLASS_NAMES = ("two_lobes", "three_lobes", "four_lobes", "five_lobes", "six_lobes", "seven_lobes")
# Streams of random numbers that no clip draws from.
_FIRST_STREAM = 100
_DEPTH_RANGE = (0.16, 0.24)  # of the bumps, in radii
_IRREGULARITY = 0.03  # of each other harmonic, in radii
_PLACE_RANGE = (0.4, 0.6)  # of the centre, so that no lobe leaves the picture
_TURN = 0.08  # of a full one, to either side: few labels do not teach all orientations
_LOG_RADIUS_RANGE = (0.45, 0.95)  # in the periods of the clips: lobes of smaller blobs are not seen


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """What all images of a data set share; a data set is made with one setting only.

    Args:
        seed: seed of the whole data set.
        size: height and width in pixels, even, at least 32.
    """

    seed: int = 0
    size: int = 48

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more")
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size is {self.size}; it must be even, at least 32")


def sample_image(seed: int, split: str, index: int) -> tuple[clips.Motion, clips.Look]:
    """Draws the parameters of image `index` of a split; its class is `index` modulo 6."""
    generator = np.random.default_rng([seed, _FIRST_STREAM + clips.STREAMS.index(split), index])
    look = clips.sample_look(generator)
    lobes = _NUM_LOBES[index % len(_NUM_LOBES)]
    phase = np.exp(2j * math.pi * generator.random(len(_NUM_LOBES)))
    phase[_NUM_LOBES.index(lobes)] = 1  # upright, before the turn
    depth = generator.uniform(0, _IRREGULARITY, size=len(_NUM_LOBES))
    depth[_NUM_LOBES.index(lobes)] = generator.uniform(*_DEPTH_RANGE)
    start = generator.random(4)
    start[:2] = generator.uniform(*_PLACE_RANGE, size=2)
    start[2] = generator.uniform(-_TURN, _TURN) % 1.0
    start[3] = generator.uniform(*_LOG_RADIUS_RANGE)
    still = np.zeros(4)
    motion = clips.Motion(start, still, still, still, still)
    return motion, dataclasses.replace(look, contour=depth * phase)


def render_image(seed: int, split: str, index: int, size: int) -> NDArray[np.uint8]:
    """Renders one image, (H, W, 3) uint8, RGB."""
    return clips.render_frames(*sample_image(seed, split, index), 1, size)[0]


def image_name(split: str, index: int) -> str:
    """Returns an image's path below the output folder, with forward slashes."""
    return f"images/{split}_{index:05d}.png"


def make_images(output: Path, settings: ImageSettings, num_images: dict[str, int]) -> int:
    """Makes every image that is not there yet, with a progress line every other second.

    Returns:
        The number of images made in this call.
    """
    (output / "images").mkdir(parents=True, exist_ok=True)
    missing = [
        (split, index)
        for split, count in num_images.items()
        for index in range(count)
        if not (output / image_name(split, index)).exists()
    ]
    kept = sum(num_images.values()) - len(missing)
    print(f"{len(missing)} images to make, {kept} already there", flush=True)
    started = last_shown = time.monotonic()
    for number, (split, index) in enumerate(missing, start=1):
        path = output / image_name(split, index)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        image = Image.fromarray(render_image(settings.seed, split, index, settings.size))
        image.save(partial, format="PNG")
        os.replace(partial, path)
        now = time.monotonic()
        if number == len(missing) or now - last_shown > 2:
            last_shown = now
            rate = number / max(now - started, 1e-9)
            left = (len(missing) - number) / rate
            print(
                f"{number}/{len(missing)} images, {rate:.0f} images/s, {left:.0f} s left",
                flush=True,
            )
    return len(missing)


def make_data_set(
    output: Path,
    settings: ImageSettings,
    *,
    num_pretrain: int,
    num_train: int,
    num_val: int,
    num_test: int,
) -> int:
    """Makes the whole data set, or what of it is missing.

    Returns:
        The number of images made in this call.

    Raises:
        ValueError: impossible counts, or a folder with other settings.
    """
    if not 0 < num_train <= num_pretrain:
        raise ValueError(
            f"num_train is {num_train}; it must be between 1 and num_pretrain ({num_pretrain}), "
            "because the labelled images are among the unlabelled ones"
        )
    if num_val < 1 or num_test < 1:
        raise ValueError("num_val and num_test must be at least 1")
    clips.check_settings(output, settings)
    num_images = dict(zip(clips.STREAMS, (num_pretrain, num_val, num_test), strict=True))
    num_made = make_images(output, settings, num_images)
    # Last, so that a list names no image that is not there.
    clips.write_lists(output, num_images, num_train, CLASS_NAMES, image_name)
    return num_made


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description="Render a labelled data set of shapes as PNG files with Kinetics-style lists.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ImageSettings()
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder of the data set")
    add("--num-pretrain", type=int, default=2000, help="unlabelled images, the labelled included")
    add("--num-train", type=int, default=300, help="labelled images for fine-tuning")
    add("--num-val", type=int, default=300, help="validation images")
    add("--num-test", type=int, default=600, help="test images")
    add("--seed", type=int, default=defaults.seed, help="seed of the data set")
    add("--size", type=int, default=defaults.size, help="height and width in pixels")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parse_arguments(arguments)

    def make() -> None:
        make_data_set(
            options.output,
            ImageSettings(options.seed, options.size),
            num_pretrain=options.num_pretrain,
            num_train=options.num_train,
            num_val=options.num_val,
            num_test=options.num_test,
        )

    return clips.run_script("make_shape_images", options.output, make)


if __name__ == "__main__":
    sys.exit(main())
