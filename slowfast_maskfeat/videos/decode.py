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

from slowfast_maskfeat.videos.video import DecodeError, UnsuitedDecoderError, Video

__all__ = ["DecodeError", "Video", "available_backends", "open_video"]

# In the order in which `auto` prefers them. decord comes last: it is silently wrong on open GOPs
# and on MPEG-4 with B-frames in AVI (docs/decoders.md).
_ROOM = "slowfast_maskfeat.videos"
_BACKENDS = {
    "torchcodec": f"{_ROOM}._torchcodec_backend",
    "pyav": f"{_ROOM}._pyav_backend",
    "decord": f"{_ROOM}._decord_backend",
}
_PACKAGES = {"torchcodec": "torchcodec", "pyav": "av", "decord": "decord"}


def open_video(
    path: str | os.PathLike[str], backend: str = "auto", *, num_threads: int = 1
) -> Video:
    """Open a local video file.

    Args:
        path: The file.
        backend: "auto", "torchcodec", "pyav" or "decord". "auto" takes the first of these three
            that is installed and loads; but torchcodec leaves the files that it cannot read
            rightly (docs/decoders.md) to the next.
        num_threads: Threads of the decoder. One is the fastest for a loader that has a worker per
            core; more help a single reader of large frames.

    Returns:
        The video, a context manager; close it.

    Raises:
        ValueError: An unknown decoder, or one that is absent; the message names those available.
        DecodeError: The file is missing, no video, damaged beyond use, or of an unknown codec.
    """
    if num_threads < 1:
        raise ValueError(f"num_threads must be at least 1, got {num_threads}")
    path = os.fspath(path)
    openers = _openers(backend)
    # Decoders word these differently, some as a crash of the process.
    if not os.path.isfile(path):
        raise DecodeError(path, "is a folder" if os.path.isdir(path) else "no such file")
    if os.path.getsize(path) == 0:
        raise DecodeError(path, "the file is empty (0 bytes)")
    for open_file in openers[:-1]:
        try:
            return open_file(path, num_threads=num_threads)
        except UnsuitedDecoderError:
            continue
    return openers[-1](path, num_threads=num_threads)


def available_backends() -> dict[str, str]:
    """Each decoder's name -> its version, or "absent: " and the reason, in the order of `auto`."""
    return {name: _load(name)[1] for name in _BACKENDS}


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
        lines = str(error).strip().splitlines() or [""]
        return None, f"absent: {type(error).__name__}: {lines[0]}"
    return module.open_file, metadata.version(_PACKAGES[name])
