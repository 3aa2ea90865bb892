"""How files are decoded, as one value that is handed from a data set down to a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Arguments of `open_video` that are the same for all files of a data set.

    Attributes:
        backend: name of the decoder, or "auto".
        num_threads: decoder threads, at least 1.
        read_timeout: seconds to wait for an address to open, and then for each packet; 0 for no
            limit.
        max_image_pixels: pixels above which a still image is not decoded; 0 for no limit.

    Raises:
        ValueError: `num_threads` is below 1.
    """

    backend: str = "auto"
    num_threads: int = 1
    read_timeout: float = 0.0
    max_image_pixels: int = MAX_IMAGE_PIXELS

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")


DEFAULT_OPTIONS = DecodeOptions()
