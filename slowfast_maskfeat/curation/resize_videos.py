"""Smaller copies of videos, one job each."""

from __future__ import annotations

import os
from pathlib import Path

from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.videos.media import is_image
from slowfast_maskfeat.videos.transcode import transcode
from slowfast_maskfeat.videos.video import DecodeError


def resize_video(
    source: str, target: Path, *, short_side: int, gop: int, crf: int
) -> Failure | None:
    """`transcode` of a file that may be missing, an image, or damaged.

    Returns:
        None, or why there is no copy.
    """
    if is_image(source):
        return Failure("is a still image, not a video")
    if not os.path.exists(source):
        return Failure("no such file")
    try:
        transcode(source, target, short_side=short_side, gop=gop, crf=crf)
    except DecodeError as error:
        return Failure(error.reason)
    return None


def resize_pair(pair: tuple[str, str], *, short_side: int, gop: int, crf: int) -> Failure | None:
    """`resize_video` of (source, target), for `run_jobs`."""
    return resize_video(pair[0], Path(pair[1]), short_side=short_side, gop=gop, crf=crf)
