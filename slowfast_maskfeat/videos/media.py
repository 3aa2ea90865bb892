"""Videos and images recognized by file name suffix."""

from __future__ import annotations

import os

MAX_IMAGE_PIXELS = 64_000_000  # larger images are not decoded by default

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif", ".heic", ".heif", ".hif"}
)
VIDEO_ENDINGS = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".f4v", ".3gp", ".3g2"}  # MP4
    | {".mkv", ".mk3d", ".webm"}  # Matroska
    | {".avi", ".divx", ".xvid", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".rm", ".rmvb"}
    | {".mpg", ".mpeg", ".mpe", ".vob", ".m2p"}  # MPEG program streams
    | {".ts", ".mts", ".m2ts", ".m2t", ".trp"}  # MPEG transport streams
    | {".m1v", ".m2v", ".mpv", ".h264", ".264", ".h265", ".265", ".hevc"}  # bare streams
    | {".mjpg", ".mjpeg", ".ivf", ".obu", ".dv", ".mxf", ".wtv", ".nut", ".y4m", ".gif"}
)


def is_image(path: str) -> bool:
    """Whether a path has the suffix of a still image."""
    return os.path.splitext(path)[1].lower() in IMAGE_ENDINGS


def is_media(path: str) -> bool:
    """Whether a path has the suffix of a video or a still image."""
    return os.path.splitext(path)[1].lower() in IMAGE_ENDINGS | VIDEO_ENDINGS
