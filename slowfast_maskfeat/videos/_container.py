"""Opening of files with PyAV: only formats of videos, and no file or address but the given one.

FFmpeg recognizes a format by content, whatever the file name. Some formats are texts that name
other files, addresses or ports, which FFmpeg then opens: playlists (HLS, DASH, concat) and session
descriptions (SDP). Videos come from anywhere, so these formats are never opened.
"""

from __future__ import annotations

import io
import os
import time
from typing import Any

import av
from av.stream import Disposition

from slowfast_maskfeat.files import is_address, open_file, read_bytes
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos.video import (
    DecodeError,
    StalledError,
    UnsuitedDecoderError,
    fetching,
    reason_of,
)

# FFmpeg's names of the formats that are opened: containers, bare streams, and still images, which
# are found under the suffixes of videos. None of their readers opens a second file.
_CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "asf", "mpeg", "mpegts", "ogg", "gif", "mxf", "nut", "rm"),
    *("wtv", "dv", "ivf", "gxf", "nsv", "dhav", "yuv4mpegpipe"),
)
_BARE_STREAMS = (
    *("h264", "hevc", "vvc", "obu", "av1", "mpegvideo", "m4v", "mjpeg", "h261", "h263", "vc1"),
    *("cavsvideo", "avs2", "avs3", "dirac"),
)
_STILL_IMAGES = (
    *("jpeg_pipe", "png_pipe", "apng", "webp_pipe", "webp", "bmp_pipe", "tiff_pipe", "gif_pipe"),
    *("j2k_pipe", "jpegxl_pipe", "jpegxl_anim"),
)
FORMATS = (*_CONTAINERS, *_BARE_STREAMS, *_STILL_IMAGES)
# "httpproxy" is the way of https through the proxy of the environment.
_PROTOCOLS_OF_ADDRESSES = "http,https,tcp,tls,httpproxy"
_NO_PROTOCOL = "none"

# First bytes of the containers and streams, at the offset.
_SIGNATURES = (
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"RIFF"),  # AVI
    (0, b"FLV"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # ASF
    (0, b"OggS"),
    (0, b"GIF8"),
    (0, b"\x00\x00\x01"),  # MPEG, H.264, HEVC
    (0, b"\x00\x00\x00\x01"),
    *((4, box) for box in (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")),
)
_SYNC, _TS_PACKETS = 0x47, ((0, 188), (4, 196))  # of MPEG transport streams
_SIGNATURE_SIZE = 200


class _NamedBytes(io.BytesIO):
    """Bytes with a file name, whose suffix helps FFmpeg detect the format."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def local_name(path: str | os.PathLike[str]) -> str:
    """A path that FFmpeg does not take for a protocol because of a colon, as in `12:30.mp4`."""
    return os.path.join(os.curdir, path)  # an absolute path stays


def open_container(
    path: str,
    *,
    num_threads: int,
    read_timeout: float,
    content: bytes | RemoteFile | None = None,
) -> tuple[Any, Any]:
    """Open a file with PyAV and return (container, its best video stream).

    Args:
        path: file or HTTP address.
        content: the file, where it can't be opened by its path.
        num_threads: decoder threads.
        read_timeout: seconds allowed for opening an address and for each packet; 0 for no limit.
            Local files have no limit.

    Raises:
        StalledError: opening an address took longer than `read_timeout`.
        DecodeError: the file is not a video, not of `FORMATS`, or too damaged to open.
    """
    # PyAV checks the clock before it reads, so with a timeout it would also give up on a local file
    # after the process was suspended.
    is_remote = content is None and is_address(path)
    limit = read_timeout if is_remote and read_timeout > 0 else None
    start = time.monotonic()
    try:
        container = _open(path, content, is_remote, limit)
    except Exception as error:  # PyAV also raises errors of Python, such as UnicodeDecodeError
        # FFmpeg reports an index that did not arrive as invalid data.
        if limit is not None and time.monotonic() - start >= limit:
            raise StalledError(path) from error
        raise DecodeError(path, f"cannot be opened as a video: {_why(error)}") from error
    try:
        stream = _best_stream(path, container)
        if stream is None and limit is not None and time.monotonic() - start >= limit:
            raise StalledError(path)  # only a part of its header arrived
        if stream is None:
            raise DecodeError(path, "has no video stream")
        if stream.codec_context is None:
            raise DecodeError(path, "this FFmpeg does not support its video codec")
        stream.thread_type = "AUTO"
        stream.thread_count = num_threads
    except BaseException:
        container.close()
        raise
    return container, stream


def _open(
    path: str, content: bytes | RemoteFile | None, is_remote: bool, limit: float | None
) -> Any:
    options = {"format_whitelist": ",".join(FORMATS)}
    if content is not None:
        options["protocol_whitelist"] = _NO_PROTOCOL
    else:
        options["protocol_whitelist"] = _PROTOCOLS_OF_ADDRESSES if is_remote else "file"
    if limit is not None:
        # PyAV's timeout covers opening and each packet. The reads of a seek are covered by FFmpeg's
        # rw_timeout alone (in microseconds).
        options["rw_timeout"] = f"{limit * 1e6:.0f}"
    source: Any = path if is_remote else local_name(path)
    if isinstance(content, RemoteFile):
        source = content.reader()
    elif content is not None:
        source = _NamedBytes(content, path)
    # Tags that are not UTF-8 are no reason to lose a video. The argument `options` would also go to
    # each stream, where PyAV 15 crashes for formats that find their streams late.
    return av.open(source, timeout=limit, container_options=options, metadata_errors="ignore")


def _why(error: Exception) -> str:
    # A format that is not on the list.
    if isinstance(error, av.error.ArgumentError):
        return "it is in none of the formats that videos are read from (playlists are not followed)"
    return reason_of(error)


def _best_stream(path: str, container: Any) -> Any:
    """The best video stream that is not the cover picture of a sound file; None without one."""
    best = container.streams.best("video")
    if best is None or not _is_cover(best):
        return best
    others = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not others:
        raise DecodeError(path, "has no video stream, only a cover picture")
    return others[0]


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def fetch_unrestricted(
    path: str, content: bytes | RemoteFile | None, read_timeout: float
) -> bytes | None:
    """Bytes of a file for a decoder that cannot be restricted, or None if it may open the path.

    Such a decoder does not open addresses itself: a server could send it another file than the one
    that was checked. It gets bytes, too, if the file name is not UTF-8.
    """
    if isinstance(content, RemoteFile):
        return content.read_all()
    if content is not None or (not is_address(path) and _is_utf8(path)):
        return content
    with fetching(path):
        return read_bytes(path, timeout=read_timeout)


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_signature(path: str, content: bytes | None) -> None:
    """Check that a file begins like a video, before a decoder that cannot be restricted opens it.

    Another release of FFmpeg may recognize another format than PyAV's: a playlist, for example,
    that is a transport stream from its second line on. A playlist does not begin like a video.

    Raises:
        UnsuitedDecoderError: it does not.
    """
    if content is None:
        with fetching(path), open_file(path) as file:
            begin = file.read(0, _SIGNATURE_SIZE)
    else:
        begin = content[:_SIGNATURE_SIZE]
    is_stream = any(
        all(len(begin) > place and begin[place] == _SYNC for place in places)
        for places in _TS_PACKETS
    )
    if not is_stream and not any(begin.startswith(mark, at) for at, mark in _SIGNATURES):
        raise UnsuitedDecoderError(
            path, "does not begin like a video, so only PyAV may open it: use pyav or auto"
        )
