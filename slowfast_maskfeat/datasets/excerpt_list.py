"""Samples that are whole videos or parts of videos, for prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from slowfast_maskfeat.datasets.video_list import OpenedRow, VideoList
from slowfast_maskfeat.videos.decode import open_around
from slowfast_maskfeat.videos.decode_options import DecodeOptions
from slowfast_maskfeat.videos.excerpt import Excerpt
from slowfast_maskfeat.videos.media import is_image

# Seconds read around a part, so that the frame on display at its begin is among them.
_MARGIN = 1.0
# Two windows closer than this are one.
_SAME_SECONDS = 1e-3


class Span(NamedTuple):
    """Begin and end of a part in seconds from the first frame of its video."""

    begin: float
    end: float


class ExcerptList(VideoList):
    """Videos, or parts of them: each sample has a path and a span.

    Args:
        paths: of the videos; one is repeated for each of its parts.
        spans: of each sample; None is the whole video.
        source: for messages.
    """

    def __init__(self, paths: Sequence[str], spans: Sequence[Span | None], source: str) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        super().__init__(
            np.frombuffer(b"".join(encoded), np.uint8),
            np.array([len(path) for path in encoded], np.int64).cumsum(),
            None,
            source=source,
        )
        self.spans = tuple(spans)

    def open(self, row: int, *, reach: float, options: DecodeOptions) -> OpenedRow:
        """Open a video, or only the part of it that a sample is: see `VideoList.open`."""
        span = self.spans[row]
        if span is None or is_image(self.path(row)):
            return super().open(row, reach=reach, options=options)
        half = (span.end - span.begin) / 2
        video, middle = open_around(
            self.path(row),
            lambda duration: span.begin + half,
            seconds=half + _MARGIN,
            options=options,
        )
        return OpenedRow(Excerpt(video, middle - half, middle + half))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of paths and spans."""
        digest = hashlib.sha256(super().fingerprint.encode())
        digest.update(repr(self.spans).encode())
        return digest.hexdigest()


_MAX_WINDOWS = 1_000_000


def windows(duration: float, length: float, stride: float) -> list[Span]:
    """Return the windows of a video: one every `stride` seconds, the last one at its end.

    Args:
        duration: of the video in seconds.
        length: of a window in seconds; a shorter video is one window.
        stride: seconds from one window to the next.

    Raises:
        ValueError: there are more than a million.
    """
    if duration <= length:
        return [Span(0.0, duration)]
    last = duration - length
    if last / stride > _MAX_WINDOWS:
        raise ValueError(
            f"window and stride must give at most {_MAX_WINDOWS:,} windows of a video, got "
            f"{last / stride:,.0f} in {duration:g} seconds with a stride of {stride:g}"
        )
    begins = np.arange(int(last / stride) + 1) * stride
    begins = np.append(begins[last - begins > _SAME_SECONDS], last)
    return [Span(float(begin), float(begin) + length) for begin in begins]
