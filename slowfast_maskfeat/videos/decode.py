"""Open a video with one of three decoders behind one interface.

Only the room `videos` imports a decoder, and only when it is used: a decoder that is absent or
does not load is reported by `available_backends`, not raised at import.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from importlib import metadata

from slowfast_maskfeat.files import is_address, is_plain_http, read_bytes
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.videos.media import is_image
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
    "open_moment",
    "open_video",
]

# In the order in which `auto` prefers them. decord comes last: it is silently wrong on open GOPs
# and on MPEG-4 with B-frames in AVI (docs/decoders.md).
_ROOM = "slowfast_maskfeat.videos"
_BACKENDS = {
    "torchcodec": f"{_ROOM}._torchcodec_backend",
    "pyav": f"{_ROOM}._pyav_backend",
    "decord": f"{_ROOM}._decord_backend",
}
_PACKAGES = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}
_IMAGE_BACKEND = f"{_ROOM}._image_backend"


def open_video(
    path: str | os.PathLike[str],
    backend: str = "auto",
    *,
    num_threads: int = 1,
    read_timeout: float = 0.0,
    content: bytes | None = None,
) -> Video:
    """Open a video file; a still image is a video of one frame, which Pillow reads.

    Args:
        path: The file, or an address. Of http://... the decoder reads what it needs, if the server
            lets it seek; anything else (s3://, images) is fetched as a whole (`files.open_file`).
        backend: "auto", "torchcodec", "pyav" or "decord". "auto" takes the first of these three
            that is installed and loads; but torchcodec leaves the files that it cannot read
            rightly (docs/decoders.md) to the next.
        num_threads: Threads of the decoder. One is the fastest for a loader that has a worker per
            core; more help a single reader of large frames.
        read_timeout: Seconds that PyAV waits for an address to open, and then for each packet; 0
            waits for ever. Local files and the other decoders have no such limit: see
            `clips.loader.ClipLoader`.
        content: The bytes of the file, for those who have them already, as from a shard; `path` is
            only its name then.

    Returns:
        The video, a context manager; close it.

    Raises:
        ValueError: An unknown decoder, or one that is absent; the message names those available.
            Or an address of a scheme that nothing opens.
        StalledError: `read_timeout` has passed.
        DecodeError: The file is missing, no video, damaged beyond use, or of an unknown codec.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    path = os.fspath(path)
    openers = _openers(backend)
    if content is None:
        content = _content_of(path, read_timeout)
    if content == b"":
        raise DecodeError(path, "the file is empty (0 bytes)")
    if is_image(path):
        opened: Video = importlib.import_module(_IMAGE_BACKEND).open_file(path, content)
        return opened
    options = {"content": content, "num_threads": num_threads, "read_timeout": read_timeout}
    for open_file in openers[:-1]:
        try:
            return open_file(path, **options)
        except UnsuitedDecoderError:
            continue
    return openers[-1](path, **options)


def _content_of(path: str, read_timeout: float) -> bytes | None:
    """The bytes of what decoders can't open themselves; None for files, and videos over HTTP."""
    if not is_address(path):
        _check_file(path)
        return None
    if is_plain_http(path) and not is_image(path):
        return None
    with fetching(path):
        return read_bytes(path, timeout=read_timeout)


def open_moment(
    path: str | os.PathLike[str],
    place: Callable[[float], float],
    *,
    seconds: float,
    backend: str = "auto",
    num_threads: int = 1,
    read_timeout: float = 0.0,
) -> tuple[Video, float]:
    """Open a video about one moment: of a film of two hours only that part is read.

    Args:
        path: The file or address.
        place: Says of the length of the file in seconds where the moment is, from its first frame.
        seconds: What is needed before and after it.
        backend: As in `open_video`; "auto" and "pyav" read a part alone, where the file has times
            and an index (MP4, Matroska, WebM), the others the whole.
        num_threads: As in `open_video`.
        read_timeout: As in `open_video`.

    Returns:
        The video, which may be all of it or the part, and where the moment is on the clock of its
        `timestamps`.

    Raises:
        ValueError: See `open_video`.
        DecodeError: See `open_video`; or what `place` raises.
    """
    path = os.fspath(path)
    can_seek = not is_address(path) or is_plain_http(path)  # what is in a store comes as a whole
    if backend in ("auto", "pyav") and can_seek and not is_image(path) and _load("pyav")[0]:
        if not is_address(path):
            _check_file(path)
        part: tuple[Video, float] | None = importlib.import_module(_BACKENDS["pyav"]).open_window(
            path, place, seconds=seconds, num_threads=num_threads, read_timeout=read_timeout
        )
        if part is not None:
            return part
    video = open_video(path, backend, num_threads=num_threads, read_timeout=read_timeout)
    try:
        return video, float(video.timestamps[0]) + place(video.duration)
    except BaseException:
        video.close()
        raise


def _check_file(path: str) -> None:
    """Refuse what is no file; decoders word these cases differently, some as a crash."""
    if os.path.isdir(path):
        raise DecodeError(path, "is a folder")
    if not os.path.exists(path):
        raise MissingFileError(path, "no such file")
    if not os.path.isfile(path):
        # Decoders seek, and opening a pipe that nobody writes to would never end.
        raise DecodeError(path, "is no regular file (a pipe, a socket or a device)")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "the file is empty (0 bytes)")


def available_backends() -> dict[str, str]:
    """Each decoder's name -> its version, or "absent: " and the reason, in the order of `auto`."""
    return {name: _load(name)[1] for name in _BACKENDS}


def decoder_versions(backend: str) -> dict[str, str]:
    """Name -> version of what reads files with this decoder; several for "auto"; and of images."""
    versions = {
        name: version
        for name, version in available_backends().items()
        if not version.startswith("absent") and backend in ("auto", name)
    }
    return {**versions, "pillow": metadata.version("pillow")}


def _openers(backend: str) -> list[Callable[..., Video]]:
    """What opens a file with this decoder; several for `auto`, the preferred first."""
    if backend != "auto" and backend not in _BACKENDS:
        raise ValueError(
            f"unknown video decoder {backend!r}: choose auto or one of {_describe_available()}"
        )
    loaded = [_load(name)[0] for name in (_BACKENDS if backend == "auto" else (backend,))]
    openers = [open_file for open_file in loaded if open_file is not None]
    if not openers and backend == "auto":
        raise ValueError(f"no video decoder can be loaded: {available_backends()}")
    if not openers:
        raise ValueError(
            f"video decoder {backend!r} is {_load(backend)[1]}; "
            f"available are {_describe_available()}"
        )
    return openers


def _describe_available() -> str:
    return ", ".join(name for name in _BACKENDS if _load(name)[0] is not None) or "none"


@cache
def _load(name: str) -> tuple[Callable[..., Video] | None, str]:
    """The function that opens a file with this decoder (None: absent), its version or why not."""
    try:
        module = importlib.import_module(_BACKENDS[name])
    except (ImportError, OSError, RuntimeError) as error:
        # torchcodec raises OSError or RuntimeError when its FFmpeg or torch does not fit.
        return None, f"absent: {type(error).__name__}: {first_line(error)}"
    return module.open_file, metadata.version(_PACKAGES[name])
