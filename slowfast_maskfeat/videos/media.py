"""Videos and images recognized by file name suffix."""

from __future__ import annotations

import os

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_ENDINGS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
    | {".ts", ".ogv", ".gif"}
)


def is_image(path: str) -> bool:
    """Whether a path has the suffix of a still image."""
    return os.path.splitext(path)[1].lower() in IMAGE_ENDINGS


def is_media(path: str) -> bool:
    """Whether a path has the suffix of a video or a still image."""
    return os.path.splitext(path)[1].lower() in IMAGE_ENDINGS | VIDEO_ENDINGS
