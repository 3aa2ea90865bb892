"""Write frames as a video file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.videos._container import local_name


def write_video(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], *, fps: float, crf: int = 18
) -> int:
    """Encode frames as H.264 in MP4; the file is written atomically.

    Args:
        path: output file with the suffix `.mp4`; its folder is created.
        frames: uint8 (H, W, 3) each, RGB, all of one size. For odd sizes the last row or column is
            repeated, since H.264 needs even ones.
        fps: frames per second, > 0.
        crf: x264 quality, lower is better.

    Returns:
        Number of frames written.

    Raises:
        ValueError: there are no frames, they differ in size, the suffix is not `.mp4`, or `fps` is
            not positive.
    """
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"path must end in .mp4, got {target}")
    if not fps > 0:
        raise ValueError(f"fps must be > 0, got {fps} for {target}")
    with atomic_write(target) as partial:
        count = _encode(partial, frames, Fraction(fps).limit_denominator(90_000), crf)
        if not count:
            raise ValueError(f"frames must contain at least one frame, got none for {target}")
    return count


def _encode(path: Path, frames: Iterable[NDArray[np.uint8]], rate: Fraction, crf: int) -> int:
    count, size = 0, None
    options = {"movflags": "faststart"}
    with av.open(local_name(path), "w", format="mp4", options=options) as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for frame in frames:
            if size is None:
                size = frame.shape
                stream.height, stream.width = (side + side % 2 for side in size[:2])
            if frame.shape != size or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
                raise ValueError(
                    f"frame {count} must be uint8 (H, W, 3) with the first frame's shape {size}, "
                    f"got {frame.dtype} of shape {frame.shape}"
                )
            even = np.pad(frame, [(0, size[0] % 2), (0, size[1] % 2), (0, 0)], mode="edge")
            file.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            count += 1
        if count:
            file.mux(stream.encode(None))
    return count
