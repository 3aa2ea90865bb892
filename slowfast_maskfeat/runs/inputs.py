"""Videos and images that are given: files, folders and lists by name, and frames in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat.builders.datasets import read_list_file
from slowfast_maskfeat.config import key_value
from slowfast_maskfeat.datasets.folders import files_below
from slowfast_maskfeat.files import is_address, join, open_text
from slowfast_maskfeat.videos.excerpt import FramesInMemory
from slowfast_maskfeat.videos.media import is_media

_BEGIN_BYTES = 4096  # of a file that may be a list


def open_frames(cfg: CfgNode, frames: NDArray[np.uint8] | Tensor, fps: float) -> FramesInMemory:
    """Return frames in memory as a video.

    Args:
        cfg: configuration; not modified.
        frames: uint8 (T, H, W, 3), RGB.
        fps: frames per second; 0: DATA.TARGET_FPS.

    Raises:
        ValueError: the frames have another shape or type, or `fps` is no number.
    """
    array = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or not array.size:
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3), RGB, got {array.dtype} of shape {array.shape}"
        )
    if not 0 <= fps < float("inf"):
        raise ValueError(f"fps must be finite and >= 0, got {fps:g}")
    return FramesInMemory(array, fps or float(cfg.DATA.TARGET_FPS))


def named_paths(source: Any) -> list[str]:
    """Return the paths of one or several videos.

    Args:
        source: a path, or several.

    Raises:
        ValueError: it is neither, such as a list of frames.
    """
    several = isinstance(source, Iterable) and not isinstance(source, (str, os.PathLike))
    paths: list[str] = []
    for path in source if several else [source]:
        if not isinstance(path, (str, os.PathLike)):
            where = f" in a {type(source).__name__}" if several else ""
            raise ValueError(
                "the source must be a path, a list of paths, or one uint8 array of frames "
                f"(T, H, W, 3), got {type(path).__name__}{where}"
            )
        paths.append(os.fspath(path))
    return paths


def check_seconds(**seconds: float) -> None:
    """Check that seconds are finite numbers and not negative.

    Args:
        **seconds: window and stride.

    Raises:
        ValueError: one is not.
    """
    for name, number in seconds.items():
        if not (isinstance(number, Real) and 0 <= number < float("inf")):
            raise ValueError(f"{name} must be seconds, finite and >= 0, got {number!r}")


def input_paths(
    cfg: CfgNode, given: Sequence[str], option: str, *, pairs: Sequence[str]
) -> list[str]:
    """Return the paths that words of a command line stand for, in their order.

    Paths in a list are relative to the working directory, or to the DATA.PATH_PREFIX of the command
    line; the folder of a model's training, which its configuration has, is not that of other lists.

    Args:
        cfg: configuration, for the format of lists; see `read_list_file`.
        given: each a video or image, which need not exist; a folder, for all videos and images
            below it; or a list: an annotation file, or one with a path per line, whatever
            characters it has. None is an empty word.
        option: that they were given to, for messages.
        pairs: keys and values of the command line.

    Raises:
        ValueError: a folder has no videos or images, or a file is none of these.
    """
    prefix = cfg.DATA.PATH_PREFIX if "DATA.PATH_PREFIX" in pairs[::2] else ""
    return [path for word in given for path in _paths_of(cfg, word, option, prefix)]


def _paths_of(cfg: CfgNode, given: str, option: str, prefix: str) -> list[str]:
    if is_media(given) or is_address(given):
        return [given]
    if Path(given).is_dir():
        found = [os.path.join(given, name) for name in files_below(given) if is_media(name)]
        if not found:
            raise ValueError(f"{option}: there are no videos or images in folder {given}")
        return found
    if Path(given).is_file():
        if _is_binary(given):
            raise ValueError(
                f"{option} must be videos or images, by their suffix, folders, or annotation files "
                f"in text form, got binary file {given}"
            )
        bare = _bare_paths(given, prefix)
        if bare:
            return bare
    elif _is_key(cfg, given):
        raise ValueError(
            f"{option} must name videos, images, folders or lists, got the key {given}; keys and "
            f"values follow {option} after --opts"
        )
    rows = read_list_file(cfg, given, prefix)
    return [rows.path(row) for row in range(len(rows))]


def _is_key(cfg: CfgNode, word: str) -> bool:
    try:
        value = key_value(cfg, word)
    except (KeyError, TypeError):  # the latter below a key
        return False
    return not isinstance(value, CfgNode)


def _is_binary(path: str) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(_BEGIN_BYTES)


def _bare_paths(path: str, prefix: str) -> list[str]:
    """Paths of a list each of whose lines is a path as a whole; empty for other lists.

    A line is one if it ends like a video or image, or is a file.
    """
    with open_text(path, errors="surrogateescape") as file:
        lines = [line.strip() for line in file]
    paths = [join(prefix, line) for line in lines if line and "\0" not in line]
    is_bare = all(is_media(p) or (not is_address(p) and os.path.isfile(p)) for p in paths)
    return paths if is_bare else []
