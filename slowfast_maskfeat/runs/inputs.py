"""Videos and images that a command line names: files, folders, lists."""

from __future__ import annotations

import os
from pathlib import Path

from fvcore.common.config import CfgNode

from slowfast_maskfeat.builders.datasets import read_list_file
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.videos.media import is_media

_BEGIN_BYTES = 4096  # of a file that may be a list


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
