"""Write a smaller copy of a video that is cheap to seek in."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.videos._container import local_name, open_container
from slowfast_maskfeat.videos._frame_table import read_frame_table
from slowfast_maskfeat.videos._pyav_backend import decode_all, display_matrix, orient
from slowfast_maskfeat.videos.video import DecodeError, reason_of

# Seconds per unit of the copy's timestamps, fine enough for any source.
_CLOCK = Fraction(1, 90_000)
# Matrices of YUV colors (ITU-T H.273) that resizing keeps, so that the copy must name them:
# BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020 twice.
_MATRICES = {1, 4, 5, 6, 7, 9, 10}
_MUXER_OPTIONS = {"movflags": "faststart"}


def resized(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height scaled down to a short side, or unchanged if smaller; both made even."""
    scale = min(1.0, short_side / min(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def transcode(source: str, target: Path, *, short_side: int, gop: int, crf: int) -> None:
    """Re-encode a video as H.264 in MP4: no audio, upright, 8 bits, no B-frames.

    All frames keep their timestamps. The copy is written atomically; the source is unchanged.

    Args:
        source: input file.
        target: output file.
        short_side: pixels of the shorter side, even; smaller videos keep their size.
        gop: frames from one key frame to the next; a seek decodes at most this many.
        crf: x264 quality, lower is better.

    Raises:
        DecodeError: a frame is damaged, there are no frames, or they can't be encoded.
        OSError: the disk is full.
    """
    try:
        num_expected = _count_frames(source)
        with atomic_write(target) as partial:
            num_written = _encode(source, partial, short_side, {"g": str(gop), "crf": str(crf)})
            if num_expected is not None and num_written < num_expected:
                reason = f"only {num_written} of {num_expected} frames can be decoded"
                raise DecodeError(source, reason)
            if num_written == 0:
                raise DecodeError(source, "no frame can be decoded")
    except av.FFmpegError as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise DecodeError(source, f"cannot be encoded: {reason_of(error)}") from error


def _count_frames(path: str) -> int | None:
    """Number of displayed frames; None if it is unknown without decoding."""
    container, stream = open_container(path, num_threads=1, read_timeout=0.0)
    with container:
        num_in_header = stream.frames
        table = read_frame_table(path, container, stream)
    if num_in_header > len(table.pts) + 1:
        raise DecodeError(
            path,
            f"truncated: must have {num_in_header} frames by its header, got {len(table.pts)}",
        )
    return len(table.shown) if table.has_trusted_pts else None


def _encode(source: str, target: Path, short_side: int, options: dict[str, str]) -> int:
    """Encode all frames of a file and return their number."""

    def reopen() -> tuple[Any, Any]:
        return open_container(source, num_threads=1, read_timeout=0.0)

    container, stream = reopen()
    with container:
        table = read_frame_table(source, container, stream)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    times = table.times()[0]
    first, count, seconds = None, 0, Fraction(0)
    with av.open(local_name(target), "w", format="mp4", options=_MUXER_OPTIONS) as output:
        copy = output.add_stream("libx264", rate=rate)
        for frame in decode_all(reopen):
            smaller = _resize_upright(frame, short_side)
            if first is None:
                first = frame.pts
                copy.width, copy.height = smaller.width, smaller.height
                copy.pix_fmt = "yuv420p"
                # Rotated frames come from RGB, with the matrix of files that name none.
                if frame.colorspace in _MATRICES and display_matrix(frame) is None:
                    copy.codec_context.colorspace = frame.colorspace
                # Key frames at a fixed distance bound the cost of a seek; without B-frames every
                # decoder seeks correctly.
                fixed = {"preset": "veryfast", "bf": "0", "sc_threshold": "0"}
                copy.options = {**fixed, **options, "keyint_min": options["g"]}
                copy.codec_context.thread_count = 1  # videos are encoded in parallel instead
                copy.codec_context.time_base = _CLOCK
            if (smaller.width, smaller.height) != (copy.width, copy.height):
                smaller = smaller.reformat(copy.width, copy.height)
            if table.has_trusted_pts:
                seconds = (frame.pts - first) * table.time_base
            elif count < len(times):
                seconds = times[count] - times[0]
            else:
                seconds += 1 / rate
            smaller.pts, smaller.time_base = round(float(seconds) / _CLOCK), _CLOCK
            output.mux(copy.encode(smaller))
            count += 1
        if count:
            output.mux(copy.encode(None))
    return count


def _resize_upright(frame: Any, short_side: int) -> Any:
    """Resize a decoded frame and rotate it by its display matrix."""
    width, height = resized(frame.width, frame.height, short_side)
    matrix = display_matrix(frame)
    if matrix is None:
        # Players and decoders assume this color range if the file does not state one.
        smaller = frame.reformat(
            width, height, "yuv420p", interpolation="BICUBIC", dst_color_range="MPEG"
        )
    else:
        pixels = frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
        pixels = np.ascontiguousarray(orient(pixels[None], matrix)[0])
        smaller = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    smaller.pict_type = 0  # NONE: otherwise the encoder copies the frame type of the source
    return smaller
