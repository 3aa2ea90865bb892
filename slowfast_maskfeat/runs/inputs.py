"""Videos and images that are given: files, folders and lists by name, and frames in memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from fvcore.common.config import CfgNode
from numpy.typing import NDArray

from slowfast_maskfeat.builders.datasets import read_list_file
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.videos.excerpt import FramesInMemory
from slowfast_maskfeat.videos.media import is_media

_BEGIN_BYTES = 4096  # of a file that may be a list


def open_frames(cfg: CfgNode, frames: NDArray[np.uint8], fps: float) -> FramesInMemory:
    """Return frames in memory as a video.

    Args:
        cfg: configuration; not changed.
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second; 0: DATA.TARGET_FPS.

    Raises:
        ValueError: the frames have another shape or type.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3), RGB, got {frames.dtype} of shape {frames.shape}"
        )
    return FramesInMemory(frames, fps or float(cfg.DATA.TARGET_FPS))


def input_paths(cfg: CfgNode, given: str, option: str) -> list[str]:
    """Return the paths that a word of a command line stands for.

    Args:
        cfg: configuration, for the format of lists; see `read_list_file`.
        given: a video or image, which need not exist; a folder, for all videos and images below it;
            or an annotation file.
        option: that it was given to, for messages.

    Raises:
        ValueError: a folder has no videos or images, or the file is none of these.
    """
    if is_media(given) or is_address(given):
        return [given]
    if Path(given).is_dir():
        found = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(given)
            for name in names
            if is_media(name)
        )
        if not found:
            raise ValueError(f"{option}: there are no videos or images in folder {given}")
        return found
    if Path(given).is_file() and _is_binary(given):
        raise ValueError(
            f"{option} must be videos or images, by their suffix, folders, or annotation files in "
            f"text form, got binary file {given}"
        )
    rows = read_list_file(cfg, given)
    return [rows.path(row) for row in range(len(rows))]


def _is_binary(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(_BEGIN_BYTES)
