"""Decode with torchcodec (optional; it needs FFmpeg's shared libraries on the system).

torchcodec does not report timestamps without decoding, so PyAV reads the frame table, which is then
passed to torchcodec in place of torchcodec's own scan.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder

from slowfast_maskfeat.videos._container import (
    check_signature,
    fetch_unrestricted,
    local_name,
    open_container,
)
from slowfast_maskfeat.videos._frame_table import FrameTable, read_frame_table
from slowfast_maskfeat.videos._pyav_backend import decode_packet, display_matrix, is_mirrored
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos.video import DecodeError, UnsuitedDecoderError, Video, decoding

# Formats in which torchcodec 0.13 runs out of frames.
_UNSEEKABLE_FORMATS = frozenset({"mpegts"})
_CODECS_WITH_EXIF = frozenset({"mjpeg", "png", "apng", "webp", "tiff", "jpegxl"})
# Seconds by which two floats of one timestamp may differ; frames are never this close.
_TIMESTAMP_TOLERANCE = 1e-6


def open_file(
    path: str, *, content: bytes | RemoteFile | None, num_threads: int, read_timeout: float
) -> Video:
    """Open a file; see `open_video`."""
    decoder, table = open_decoder(
        path, content=content, num_threads=num_threads, read_timeout=read_timeout, device="cpu"
    )
    return TorchCodecVideo(path, decoder, table)


def open_decoder(
    path: str,
    *,
    content: bytes | RemoteFile | None,
    num_threads: int,
    read_timeout: float,
    device: str,
    check: Callable[[str, Any], None] = lambda path, frame: None,
) -> tuple[VideoDecoder, FrameTable]:
    """Open a file that PyAV, restricted to formats of videos, has opened and indexed.

    Args:
        path: see `open_video`.
        content: see `open_video`.
        num_threads: see `open_video`.
        read_timeout: see `open_video`.
        device: where frames are decoded: "cpu" or "cuda:0".
        check: gets the path and the first frame, and raises an error if it is not suited.

    Returns:
        The decoder, and the table of its frames.

    Raises:
        UnsuitedDecoderError: torchcodec would read the file incorrectly.
    """
    content = fetch_unrestricted(path, content, read_timeout)
    container, stream = open_container(path, content=content, num_threads=1, read_timeout=0.0)
    with container:
        table, format_name = read_frame_table(path, container, stream), container.format.name
        if not table.has_trusted_pts or format_name in _UNSEEKABLE_FORMATS:
            raise UnsuitedDecoderError(
                path,
                f"torchcodec cannot find frames in this file ({format_name}): use pyav or auto",
            )
        frame = _first_frame(container, stream, table)
        _check_frame(path, stream.codec_context.name, frame)
        check(path, frame)
        stream_index = stream.index
    check_signature(path, content)
    mappings = json.dumps(
        {
            "frames": [
                {"pts": pts, "duration": duration, "key_frame": int(is_key)}
                for pts, duration, is_key in zip(
                    table.pts.tolist(),
                    table.durations.tolist(),
                    table.is_key.tolist(),
                    strict=True,
                )
            ]
        }
    )
    with decoding(path, "cannot be opened as a video"):
        decoder = VideoDecoder(
            local_name(path) if content is None else content,
            stream_index=stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=num_threads,
            device=device,
            custom_frame_mappings=mappings,
        )
    return decoder, table


def _first_frame(container: Any, stream: Any, table: FrameTable) -> Any:
    """The first frame that can be decoded; None if there is none."""
    container.seek(int(table.pts[0]), stream=stream)
    for packet in container.demux(stream):
        for frame in decode_packet(stream.codec_context, packet):
            return frame
    return None


def _check_frame(path: str, codec: str, frame: Any) -> None:
    """Check that torchcodec returns frames like this one as a player shows them.

    torchcodec 0.13 takes full range (0 to 255) for 16 to 235, except in the 8-bit formats whose
    names say so (yuvj420p). For gray of more than 8 bits it depends on FFmpeg's release. torchcodec
    rotates a mirrored video by 180 degrees, and before FFmpeg 8 the EXIF orientation of a JPEG is
    ignored.

    Raises:
        UnsuitedDecoderError: it does not.
    """
    if frame is None:
        return
    pixels = frame.format.name
    is_yuv = pixels.startswith(("yuv", "nv", "p0", "p2", "p4")) and not pixels.startswith("yuvj")
    if (is_yuv and frame.color_range == ColorRange.JPEG) or pixels.startswith(("gray1", "gray9")):
        problem = f"does not convert its colors correctly ({pixels})"
    elif is_mirrored(matrix := display_matrix(frame)):
        problem = "does not mirror it"
    elif codec in _CODECS_WITH_EXIF and matrix is not None and min(matrix[0], matrix[4]) <= 0:
        problem = "does not rotate it by its EXIF data"
    else:
        return
    raise UnsuitedDecoderError(path, f"torchcodec {problem}: use pyav or auto")


class TorchCodecVideo(Video):
    """A video that torchcodec decodes on the CPU."""

    backend = "torchcodec"

    def __init__(self, path: str, decoder: Any, table: FrameTable) -> None:
        timestamps, fps, duration = table.times()
        super().__init__(path, timestamps=timestamps, fps=fps, duration=duration)
        self._decoder = decoder
        self._shown = table.shown

    def close(self) -> None:
        """Release the decoder."""
        self._decoder = None

    def _decode(self, indices: NDArray[np.integer]) -> Any:
        return self._tensor(indices).numpy()

    def _tensor(self, indices: NDArray[np.integer]) -> Any:
        """Frames at strictly ascending indices as a tensor on the decoder's device."""
        if self._decoder is None:
            raise ValueError(f"{self.path}: the video is closed")
        problem = f"frames {indices[0]}..{indices[-1]} of {self.num_frames} cannot be decoded"
        with decoding(self.path, problem):
            batch = self._decoder.get_frames_at(self._shown[indices].tolist())
        # After a false key frame (periodic intra refresh) torchcodec returns the next frame it has.
        shifts = np.abs(batch.pts_seconds.numpy() - self.timestamps[indices])
        is_other = shifts > _TIMESTAMP_TOLERANCE
        if is_other.any():
            raise DecodeError(
                self.path,
                f"frame {indices[is_other][0]} cannot be decoded: torchcodec returned a different "
                "one; use pyav",
            )
        return batch.data
