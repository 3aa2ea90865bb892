"""Open a video with one of three decoders behind one interface.

Only the package `videos` imports a decoder, and only when it is used: a decoder that is absent or
fails to load is reported by `available_backends`, not raised at import.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from importlib import metadata

from slowfast_maskfeat.files import is_address, is_plain_http, read_bytes
from slowfast_maskfeat.videos._load_errors import load_reason
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS, is_image
from slowfast_maskfeat.videos.video import (
    DecodeError,
    MissingFileError,
    StalledError,
    UnsuitedDecoderError,
    Video,
    fetching,
)

__all__ = [
    "DecodeError",
    "MissingFileError",
    "StalledError",
    "Video",
    "available_backends",
    "decoder_versions",
    "open_around",
    "open_video",
]

_PACKAGE = "slowfast_maskfeat.videos"
# In the order of preference of `auto`. decord comes last: it returns wrong frames without an error
# on open GOPs and on MPEG-4 with B-frames in AVI (docs/decoders.md).
_BACKENDS = {
    "torchcodec": f"{_PACKAGE}._torchcodec_backend",
    "pyav": f"{_PACKAGE}._pyav_backend",
    "decord": f"{_PACKAGE}._decord_backend",
}
_DISTRIBUTIONS = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}
_IMAGE_BACKEND = f"{_PACKAGE}._image_backend"


def open_video(
    path: str | os.PathLike[str],
    backend: str = "auto",
    *,
    num_threads: int = 1,
    read_timeout: float = 0.0,
    content: bytes | None = None,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> Video:
    """Open a video file, or a still image as a video of one frame (read with Pillow).

    Args:
        path: File or address. A decoder reads only the parts it needs of http://..., if the server
            supports seeking; anything else (s3://, images) is fetched whole (`files.open_file`).
        backend: "auto", "torchcodec", "pyav" or "decord". "auto" takes the first of these three
            that is installed and loads; files that torchcodec reads incorrectly
            (docs/decoders.md) are passed to the next one.
        num_threads: Decoder threads. One is fastest for a data loader with a worker per core; more
            help a single reader of large frames.
        read_timeout: Seconds that PyAV waits for an address to open, and then for each packet; 0
            for no limit. Local files and the other decoders have no timeout: see
            `clips.loader.ClipLoader`.
        content: Bytes of the file if they are already in memory, such as from a shard; `path` is
            then only its name.
        max_image_pixels: Pixels above which a still image is not decoded; 0 for no limit.

    Returns:
        The open video, a context manager; close it.

    Raises:
        ValueError: The decoder is unknown or absent (the message names the available ones), or
            nothing opens addresses of this scheme.
        StalledError: No data arrived within `read_timeout`.
        DecodeError: The file is missing, not a video, too damaged to open, or of an unknown codec;
            or it is an image with too many pixels.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    path = os.fspath(path)
    openers = _openers(backend)
    if content is None:
        content = _fetch(path, read_timeout)
    if content == b"":
        raise DecodeError(path, "the file is empty (0 bytes)")
    if is_image(path):
        images = importlib.import_module(_IMAGE_BACKEND)
        image: Video = images.open_file(path, content, max_pixels=max_image_pixels)
        return image
    options = {"content": content, "num_threads": num_threads, "read_timeout": read_timeout}
    for open_file in openers[:-1]:
        try:
            return open_file(path, **options)
        except UnsuitedDecoderError:
            continue
    return openers[-1](path, **options)


def _fetch(path: str, read_timeout: float) -> bytes | None:
    """Read a file that decoders can't open; None for local files and videos over HTTP."""
    if not is_address(path):
        _check_file(path)
        return None
    if is_plain_http(path) and not is_image(path):
        return None
    with fetching(path):
        return read_bytes(path, timeout=read_timeout)


def open_around(
    path: str | os.PathLike[str],
    locate: Callable[[float], float],
    *,
    seconds: float,
    backend: str = "auto",
    num_threads: int = 1,
    read_timeout: float = 0.0,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
) -> tuple[Video, float]:
    """Open a video around one timestamp, reading only that part of a long file.

    Args:
        path: File or address.
        locate: Maps the duration of the file to the timestamp, both in seconds, the timestamp
            counted from the first frame.
        seconds: Seconds needed before and after the timestamp.
        backend: As in `open_video`. "auto" and "pyav" read only the part if the file has
            timestamps and an index (MP4, Matroska, WebM); the others read the whole file.
        num_threads: As in `open_video`.
        read_timeout: As in `open_video`.
        max_image_pixels: As in `open_video`.

    Returns:
        The video, whole or only the part, and the timestamp on the clock of its `timestamps`.

    Raises:
        ValueError: See `open_video`.
        DecodeError: See `open_video`. Errors of `locate` are passed on.
    """
    path = os.fspath(path)
    can_seek = not is_address(path) or is_plain_http(path)  # files in a store are fetched whole
    if backend in ("auto", "pyav") and can_seek and not is_image(path) and _load("pyav")[0]:
        if not is_address(path):
            _check_file(path)
        part: tuple[Video, float] | None = importlib.import_module(_BACKENDS["pyav"]).open_window(
            path, locate, seconds=seconds, num_threads=num_threads, read_timeout=read_timeout
        )
        if part is not None:
            return part
    video = open_video(
        path,
        backend,
        num_threads=num_threads,
        read_timeout=read_timeout,
        max_image_pixels=max_image_pixels,
    )
    try:
        return video, float(video.timestamps[0]) + locate(video.duration)
    except BaseException:
        video.close()
        raise


def _check_file(path: str) -> None:
    """Reject everything but a nonempty regular file, for which decoders give unclear errors."""
    if os.path.isdir(path):
        raise DecodeError(path, "is a folder")
    if not os.path.exists(path):
        raise MissingFileError(path, "no such file")
    if not os.path.isfile(path):
        # Decoders need to seek, and opening a pipe without a writer would block forever.
        raise DecodeError(path, "is not a regular file (but a pipe, a socket or a device)")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "the file is empty (0 bytes)")


def available_backends() -> dict[str, str]:
    """Decoder -> its version, or "absent: " and the reason, in the order of `auto`."""
    return {name: _load(name)[1] for name in _BACKENDS}


def decoder_versions(backend: str) -> dict[str, str]:
    """Name -> version of this decoder, or of all available ones for "auto", and of Pillow."""
    versions = {
        name: version
        for name, version in available_backends().items()
        if not version.startswith("absent") and backend in ("auto", name)
    }
    return {**versions, "pillow": metadata.version("pillow")}


def _openers(backend: str) -> list[Callable[..., Video]]:
    """Functions that open a file with this decoder; several for `auto`, the preferred first."""
    if backend != "auto" and backend not in _BACKENDS:
        raise ValueError(
            f"video decoder must be auto or one of {_describe_available()}, got {backend!r}"
        )
    loaded = [_load(name)[0] for name in (_BACKENDS if backend == "auto" else (backend,))]
    openers = [open_file for open_file in loaded if open_file is not None]
    if not openers and backend == "auto":
        raise ValueError(f"no video decoder can be loaded: {available_backends()}")
    if not openers:
        raise ValueError(
            f"video decoder {backend!r} is {_load(backend)[1]}; available: {_describe_available()}"
        )
    return openers


def _describe_available() -> str:
    return ", ".join(name for name in _BACKENDS if _load(name)[0] is not None) or "none"


@cache
def _load(name: str) -> tuple[Callable[..., Video] | None, str]:
    """(open function of a decoder, version), or (None, reason) if it is absent."""
    try:
        module = importlib.import_module(_BACKENDS[name])
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec raises OSError or RuntimeError if its FFmpeg or torch is incompatible.
        return None, f"absent: {load_reason(error)}"
    return module.open_file, metadata.version(_DISTRIBUTIONS[name])
