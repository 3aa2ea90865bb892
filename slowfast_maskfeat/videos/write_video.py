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


def write_video(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], *, fps: float, crf: int = 18
) -> int:
    """Encodes frames as H.264 in MP4; the file is there whole or not at all.

    Args:
        path: The file, with the ending `.mp4`; its folder is made if need be.
        frames: Each uint8 (H, W, 3), RGB, of one size; an odd last row or column is repeated,
            which H.264 needs.
        fps: Frames per second, above 0.
        crf: Quality of x264, lower is better.

    Returns:
        How many frames were written.

    Raises:
        ValueError: There is no frame, they differ in size, or the ending or rate is another one.
    """
    target = Path(path)
    if target.suffix.lower() != ".mp4":
        raise ValueError(f"{target}: a path that ends with .mp4 is wanted")
    if not fps > 0:
        raise ValueError(f"{target}: {fps} frames per second: more than 0 are wanted")
    with atomic_write(target) as partial:
        count = _encode(partial, frames, Fraction(fps).limit_denominator(90_000), crf)
        if not count:
            raise ValueError(f"{target}: there is no frame to write")
    return count


def _encode(path: Path, frames: Iterable[NDArray[np.uint8]], rate: Fraction, crf: int) -> int:
    count, size = 0, None
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=rate)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "veryfast"}
        for frame in frames:
            if size is None:
                size = frame.shape
                stream.height, stream.width = (side + side % 2 for side in size[:2])
            if frame.shape != size or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
                raise ValueError(
                    f"frame {count} is {frame.dtype} of shape {frame.shape}; uint8 of {size} as "
                    "the first one, (H, W, 3), is wanted"
                )
            even = np.pad(frame, [(0, size[0] % 2), (0, size[1] % 2), (0, 0)], mode="edge")
            file.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            count += 1
        if count:
            file.mux(stream.encode(None))
    return count
