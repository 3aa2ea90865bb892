"""Which videos are given to the decoder of a GPU.

What a GPU's decoder and color conversion return is not yet measured. Therefore only upright videos
of 8 bits, 4:2:0 and limited range are given to it, which nearly all are.
"""

from __future__ import annotations

from typing import Any

from av.video.reformatter import ColorRange

from slowfast_maskfeat.videos._pyav_backend import display_matrix
from slowfast_maskfeat.videos.video import UnsuitedDecoderError


def check_suited(path: str, frame: Any) -> None:
    """Check that a first frame is one that a GPU is known to decode and convert.

    Raises:
        UnsuitedDecoderError: it is not.
    """
    if frame is None:
        return
    matrix = display_matrix(frame)
    if frame.format.name != "yuv420p" or frame.color_range == ColorRange.JPEG:
        problem = f"8 bits, 4:2:0 and limited range, got {frame.format.name}"
    elif matrix is not None and min(matrix[0], matrix[4]) <= 0:
        problem = "frames that are stored upright, got rotated ones"
    else:
        return
    raise UnsuitedDecoderError(
        path, f"torchcodec_cuda must be given videos of {problem}: use pyav or auto"
    )
