"""Open a video with one of three decoders behind one interface.

Only the package `videos` imports a decoder, and only when it is used: a decoder that is absent or
fails to load is reported by `available_backends`, not raised at import.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import metadata
from typing import Any

from slowfast_maskfeat.files import has_ranges, is_address, is_plain_http, read_bytes
from slowfast_maskfeat.videos._load_errors import load_reason
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos._retried import RetriedVideo
from slowfast_maskfeat.videos.decode_options import DEFAULT_OPTIONS, DecodeOptions
from slowfast_maskfeat.videos.media import MAX_IMAGE_PIXELS, is_image
from slowfast_maskfeat.videos.video import (
    DecodeError,
    MissingFileError,
    StalledError,
    UnsuitedDecoderError,
    Video,
    decoding,
    fetching,
)

__all__ = [
    "DECODERS",
    "DecodeError",
    "MissingFileError",
    "StalledError",
    "Video",
    "available_backends",
    "decoder_versions",
    "open_around",
    "open_file",
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
DECODERS = ("auto", *_BACKENDS)
"""Names of the decoders on the CPU."""

# Taken only by its name: its frames are on a GPU, in the process that has one.
_DEVICE_BACKENDS = {"torchcodec_cuda": f"{_PACKAGE}._torchcodec_cuda_backend"}
_DISTRIBUTIONS = {
    "torchcodec": "torchcodec",
    "pyav": "av",
    "decord": "decord",
    "torchcodec_cuda": "torchcodec",
}
_IMAGE_BACKEND = f"{_PACKAGE}._image_backend"

_OpenFile = Callable[..., Video]


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
        path: file or address. PyAV reads only the parts it needs of http://..., if the server
            supports seeking, and of a store (s3://, gs://; `files.open_file`). Images, and files
            for other decoders, are fetched whole.
        backend: "auto", "torchcodec", "pyav", "decord", or "torchcodec_cuda", which decodes on the
            GPU of this process (`Video.pixels`). "auto" takes the first of the three after it
            that is installed and opens the file, but PyAV first for an address. Files and frames
            that torchcodec does not read, or reads incorrectly (docs/decoders.md), go to PyAV.
        num_threads: decoder threads. One is fastest for a data loader with a worker per core; more
            help a single reader of large frames.
        read_timeout: seconds that PyAV waits for an address to open, and then for each packet; 0
            for no limit. Local files and the other decoders have no timeout: see
            `clips.loader.ClipLoader`.
        content: bytes of the file if they are already in memory, such as from a shard; `path` is
            then only its name.
        max_image_pixels: pixels above which a still image is not decoded; 0 for no limit.

    Returns:
        The open video, a context manager; close it.

    Raises:
        ValueError: the decoder is unknown or absent (the message names the available ones), or
            nothing opens addresses of this scheme.
        StalledError: no data arrived within `read_timeout`.
        DecodeError: the file is missing, not a video, too damaged to open, or of an unknown codec;
            or it is an image with too many pixels.
    """
    options = DecodeOptions(
        backend=backend,
        num_threads=num_threads,
        read_timeout=read_timeout,
        max_image_pixels=max_image_pixels,
    )
    return open_file(os.fsdecode(path), options, content)


def open_file(path: str, options: DecodeOptions, content: bytes | None = None) -> Video:
    """Open a video file or a still image: see `open_video`, which has the same arguments."""
    openers = _openers(options.backend, prefers_pyav=content is None and is_address(path))
    source: bytes | RemoteFile | None = content
    if content is None:
        source = _open_store(path, options.read_timeout) or fetch(path, options.read_timeout)
    if source == b"":
        raise DecodeError(path, "the file is empty (0 bytes)")
    if is_image(path):
        images = importlib.import_module(_IMAGE_BACKEND)
        image: Video = images.open_file(path, source, max_pixels=options.max_image_pixels)
        return image
    return _open_first(
        path,
        openers,
        content=source,
        num_threads=options.num_threads,
        read_timeout=options.read_timeout,
    )


def _open_first(path: str, openers: Sequence[_OpenFile], **options: Any) -> Video:
    """Open a file with the first decoder that can."""
    errors: list[DecodeError] = []
    for number, opener in enumerate(openers):
        try:
            with decoding(path, "cannot be opened as a video"):
                video = opener(path, **options)
        except (MissingFileError, StalledError):
            raise  # the file's fault
        except DecodeError as error:
            errors.append(error)
            continue
        if video.backend == "torchcodec" and number == 0 and len(openers) > 1:
            return RetriedVideo(video, partial(openers[1], path, **options))  # with PyAV
        return video
    reasons = [error for error in errors if not isinstance(error, UnsuitedDecoderError)]
    raise (reasons or errors)[0]


def _open_store(path: str, read_timeout: float) -> RemoteFile | None:
    """Open a video in a store, to read parts of it; None for any other file."""
    if not has_ranges(path) or is_image(path):
        return None
    file = RemoteFile(path, read_timeout)
    if file.size == 0:
        raise DecodeError(path, "the file is empty (0 bytes)")
    return file


def fetch(path: str, read_timeout: float = 0.0) -> bytes | None:
    """Read a file that decoders can't open; None for local files and videos over HTTP.

    Raises:
        ValueError: nothing opens addresses of this scheme.
        DecodeError: the file can't be read, or is not a nonempty regular file.
    """
    if not is_address(path):
        check_file(path)
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
    options: DecodeOptions = DEFAULT_OPTIONS,
) -> tuple[Video, float]:
    """Open a video around one timestamp, reading only that part of a long file.

    Args:
        path: file or address.
        locate: maps the duration of the file to the timestamp, both in seconds, the timestamp
            counted from the first frame.
        seconds: seconds needed before and after the timestamp.
        options: how it is decoded. "auto" and "pyav" read only the part if the file has timestamps
            and an index (MP4, Matroska, WebM); the others read the whole file.

    Returns:
        The video, whole or only the part, and the timestamp on the clock of its `timestamps`.

    Raises:
        ValueError: see `open_video`.
        DecodeError: see `open_video`. Errors of `locate` are passed on.
    """
    path = os.fsdecode(path)
    can_seek = not is_address(path) or is_plain_http(path) or has_ranges(path)
    if options.backend in ("auto", "pyav") and can_seek and not is_image(path) and _load("pyav")[0]:
        if not is_address(path):
            check_file(path)
        part = _open_part(
            path,
            locate,
            is_last=options.backend == "pyav",
            seconds=seconds,
            num_threads=options.num_threads,
            read_timeout=options.read_timeout,
            content=_open_store(path, options.read_timeout),
        )
        if part is not None:
            return part
    video = open_file(path, options)
    try:
        return video, float(video.timestamps[0]) + locate(video.duration)
    except BaseException:
        video.close()
        raise


def _open_part(
    path: str, locate: Callable[[float], float], *, is_last: bool, **options: Any
) -> tuple[Video, float] | None:
    """The part around a timestamp with PyAV; None if another decoder is to try the whole file."""
    failures: list[Exception] = []

    def located(duration: float) -> float:
        try:
            return locate(duration)
        except Exception as error:
            failures.append(error)
            raise

    open_window = importlib.import_module(_BACKENDS["pyav"]).open_window
    try:
        with decoding(path, "cannot be opened as a video"):
            part: tuple[Video, float] | None = open_window(path, located, **options)
    except DecodeError as error:
        if failures:
            raise failures[0] from None
        if is_last or isinstance(error, StalledError):
            raise
        return None
    return part


def check_file(path: str) -> None:
    """Check that a local file can be given to decoders, whose errors would be unclear.

    Raises:
        DecodeError: it is not a nonempty regular file.
    """
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
    names = [*_BACKENDS] if backend == "auto" else [backend]
    loaded = {name: _load(name)[1] for name in names}
    versions = {
        name: version for name, version in loaded.items() if not version.startswith("absent")
    }
    return {**versions, "pillow": metadata.version("pillow")}


def _openers(backend: str, *, prefers_pyav: bool = False) -> list[_OpenFile]:
    """Functions that open a file with this decoder; several for `auto`, the preferred first.

    Over HTTP, PyAV reads only the parts of a file that it needs.
    """
    if backend != "auto" and backend not in {**_BACKENDS, **_DEVICE_BACKENDS}:
        raise ValueError(
            f"video decoder must be auto or one of {_describe_available()}, got {backend!r}"
        )
    names = list(_BACKENDS) if backend == "auto" else [backend]
    if prefers_pyav:
        names.sort(key=lambda name: name != "pyav")
    loaded = [_load(name)[0] for name in names]
    openers = [opener for opener in loaded if opener is not None]
    if not openers and backend == "auto":
        raise ValueError(f"no video decoder can be loaded: {available_backends()}")
    if not openers:
        raise ValueError(
            f"video decoder {backend!r} is {_load(backend)[1]}; {installation(backend)}; "
            f"available: {_describe_available()}"
        )
    return openers


def require_decoder(backend: str) -> None:
    """Check that a decoder can be loaded.

    Raises:
        ValueError: it is unknown or absent; the message has the command that installs it.
    """
    _openers(backend)


def installation(backend: str) -> str:
    """Return the command that installs a decoder."""
    name = _DISTRIBUTIONS[backend]
    name = "'slowfast_maskfeat[torchcodec]'" if name == "torchcodec" else name  # an extra
    return f"pip install {name} (INSTALL.md has which release fits)"


def _describe_available() -> str:
    return ", ".join(name for name in _BACKENDS if _load(name)[0] is not None) or "none"


@cache
def _load(name: str) -> tuple[_OpenFile | None, str]:
    """(open function of a decoder, version), or (None, reason) if it is absent."""
    try:
        module = importlib.import_module({**_BACKENDS, **_DEVICE_BACKENDS}[name])
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec raises OSError or RuntimeError if its FFmpeg or torch is incompatible.
        return None, f"absent: {load_reason(error)}"
    return module.open_file, metadata.version(_DISTRIBUTIONS[name])
