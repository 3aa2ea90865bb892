"""Decoding of videos and images: one interface, one file per decoder."""

from __future__ import annotations

from slowfast_maskfeat.videos.decode import available_backends, open_video
from slowfast_maskfeat.videos.video import DecodeError, Video

__all__ = [
    "DecodeError",
    "Video",
    "available_backends",
    "open_video",
]
