"""Decode with torchcodec (optional; it needs FFmpeg's shared libraries on the system).

torchcodec does not tell the times of frames without decoding them, so PyAV reads the table of
frames, and torchcodec is handed it in place of the scan that it would make itself.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder

from slowfast_maskfeat.videos._frame_table import (
    FrameTable,
    open_container,
    read_frame_table,
    reason_of,
)
from slowfast_maskfeat.videos.video import DecodeError, UnsuitedDecoderError, Video

# torchcodec 0.13 runs out of frames there.
_UNSEEKABLE_FORMATS = frozenset({"mpegts"})
# Two names of one time, as floats; frames are never so close.
_SAME_SECONDS = 1e-6


def open_file(path: str, *, content: bytes | None, num_threads: int, read_timeout: float) -> Video:
    """Open a file; see `open_video`."""
    container, stream = open_container(
        path, content=content, num_threads=1, read_timeout=read_timeout
    )
    try:
        table = read_frame_table(path, container, stream)
        stream_index, format_name = stream.index, container.format.name
    finally:
        container.close()
    if not table.has_trusted_pts or format_name in _UNSEEKABLE_FORMATS:
        raise UnsuitedDecoderError(
            path,
            f"torchcodec cannot find frames in this file ({format_name}): use pyav or auto",
        )
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
    try:
        decoder = VideoDecoder(
            path if content is None else content,
            stream_index=stream_index,
            dimension_order="NHWC",
            num_ffmpeg_threads=num_threads,
            device="cpu",
            custom_frame_mappings=mappings,
        )
    except (RuntimeError, ValueError) as error:
        raise DecodeError(path, f"cannot be opened as a video: {reason_of(error)}") from error
    return _TorchCodecVideo(path, decoder, table)


class _TorchCodecVideo(Video):
    backend = "torchcodec"

    def __init__(self, path: str, decoder: Any, table: FrameTable) -> None:
        timestamps, fps, duration = table.times()
        super().__init__(path, timestamps=timestamps, fps=fps, duration=duration)
        self._decoder = decoder
        self._shown = table.shown

    def close(self) -> None:
        self._decoder = None

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if self._decoder is None:
            raise ValueError(f"{self.path}: the video is closed")
        try:
            batch = self._decoder.get_frames_at(self._shown[indices].tolist())
        except (RuntimeError, IndexError) as error:
            raise DecodeError(
                self.path,
                f"frames {indices[0]}..{indices[-1]} of {self.num_frames} cannot be decoded: "
                f"{reason_of(error)}",
            ) from error
        # Behind a key frame that is none (periodic intra refresh) it gives the next frame it has.
        strayed = np.abs(batch.pts_seconds.numpy() - self.timestamps[indices]) > _SAME_SECONDS
        if strayed.any():
            raise DecodeError(
                self.path,
                f"frame {indices[strayed][0]} cannot be decoded: torchcodec gave another one; "
                "use pyav",
            )
        return batch.data.numpy()
