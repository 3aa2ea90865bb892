"""Check of the decoder that decodes on a GPU, by a clip that is encoded for it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.write_video import write_video

MAX_DIFFERENCE = 2
"""Levels of 255 by which a pixel may differ from the one that PyAV decodes."""

_NUM_FRAMES, _HEIGHT, _WIDTH = 8, 144, 192  # decoders of GPUs have smallest sizes


def check_decoder(backend: str) -> None:
    """Compare the frames of a decoder with those of PyAV.

    Args:
        backend: name of the decoder, see `open_video`.

    Raises:
        ValueError: it is absent, or can't decode the clip, or differs from PyAV.
    """
    indices = [5, 0, 7, 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, smooth_frames(), fps=30)
        with open_video(path, "pyav") as video:
            expected = video.frames(indices)
        with open_video(path, backend) as video:
            found = video.frames(indices)
    if found.shape != expected.shape:
        raise ValueError(f"its frames must have the shape {expected.shape}, got {found.shape}")
    difference = int(np.abs(found.astype(int) - expected).max())
    if difference > MAX_DIFFERENCE:
        raise ValueError(
            f"its pixels must differ from PyAV's by at most {MAX_DIFFERENCE} of 255 levels, got "
            f"{difference}"
        )


def smooth_frames() -> list[NDArray[np.uint8]]:
    """Frames with smooth colors that move, so that the interpolation of colors hardly matters."""
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    frames = []
    for number in range(_NUM_FRAMES):
        waves = [
            np.sin(rows / 40 + number / 2),
            np.sin(columns / 50 - number / 3),
            np.sin((rows + columns) / 60 + number / 4),
        ]
        frames.append((128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8))
    return frames
