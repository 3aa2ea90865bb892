"""Jobs that resize videos."""

from __future__ import annotations

from pathlib import Path

from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.videos.decode import check_file
from slowfast_maskfeat.videos.media import is_image
from slowfast_maskfeat.videos.transcode import transcode
from slowfast_maskfeat.videos.video import DecodeError


def resize_video(
    source: str, target: Path, *, short_side: int, gop: int, crf: int
) -> Failure | None:
    """Resize a video with `transcode`; the file may be missing, an image, or damaged.

    Returns:
        None if the copy was written.
    """
    if is_image(source):
        return Failure("an image, not a video")
    try:
        check_file(source)
        transcode(source, target, short_side=short_side, gop=gop, crf=crf)
    except DecodeError as error:
        return Failure(error.reason)
    return None


def resize_pair(pair: tuple[str, str], *, short_side: int, gop: int, crf: int) -> Failure | None:
    """Call `resize_video` on (source, target), as an item of `run_jobs`."""
    return resize_video(pair[0], Path(pair[1]), short_side=short_side, gop=gop, crf=crf)
