"""The kinds of video files that every decoder is tried on: how to make them, and what they show."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from helpers.videos_on_disk import numbered_frames, write_tone, write_video
from PIL import Image

NUM_FRAMES = 60
VARIABLE_TIMES = tuple(i / 30 if i < 30 else 1 + (i - 30) / 10 for i in range(NUM_FRAMES))


@dataclass(frozen=True)
class KindOfFile:
    """A kind of file: how to make it, and what a player shows of it."""

    ending: str
    make: dict[str, object] = field(default_factory=dict)
    height: int = 48
    width: int = 64
    turned: int = 0  # stored turned clockwise by so many quarters, with metadata that undo it
    mirrored: bool = False
    cut_to: float = 1.0  # keep this part of the bytes
    content: bytes | None = None
    numbers: tuple[int, ...] | None = tuple(range(NUM_FRAMES))  # None: a beginning of them
    times: tuple[float, ...] | None = None
    num_frames: int = NUM_FRAMES  # that are written


_OPEN = {"x264-params": "open-gop=1"}
FILES = {
    "h264": KindOfFile("mp4"),
    "h264-b-frames": KindOfFile("mp4", {"bframes": 3}),
    "h264-b-frames-mkv": KindOfFile("mkv", {"bframes": 3}),
    "h264-one-key-frame": KindOfFile("mp4", {"bframes": 3, "gop": 250}),
    "h264-open-gop": KindOfFile("mp4", {"bframes": 3, "options": _OPEN}),
    "h264-open-gop-mkv": KindOfFile("mkv", {"bframes": 3, "options": _OPEN}),
    "h264-b-frames-ts": KindOfFile("ts", {"bframes": 3}),
    "h264-bare-stream": KindOfFile("h264", {"bframes": 3}),
    "h264-intra-refresh": KindOfFile(
        "mp4", {"gop": 20, "options": {"x264-params": "intra-refresh=1"}}
    ),
    "h264-10-bit": KindOfFile("mp4", {"bframes": 2, "pixel_format": "yuv420p10le"}),
    "h264-full-range": KindOfFile("mp4", {"bframes": 2, "pixel_format": "yuvj420p"}),
    "h264-10-bit-full-range": KindOfFile(
        "mp4", {"bframes": 2, "pixel_format": "yuv420p10le", "full_range": True}
    ),
    "h264-10-bit-gray": KindOfFile("mp4", {"pixel_format": "gray10le", "full_range": True}),
    "hevc-10-bit": KindOfFile(
        "mp4",
        {
            "codec": "libx265",
            "bframes": 2,
            "pixel_format": "yuv420p10le",
            "options": {"x265-params": "open-gop=0"},
        },
    ),
    "hevc-closed-gop": KindOfFile(
        "mp4", {"codec": "libx265", "bframes": 3, "options": {"x265-params": "open-gop=0"}}
    ),
    "hevc-open-gop": KindOfFile(
        "mp4", {"codec": "libx265", "bframes": 3, "options": {"x265-params": "open-gop=1"}}
    ),
    "av1": KindOfFile("mp4", {"codec": "libsvtav1", "options": {"preset": "12"}}),
    "vp9": KindOfFile("webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
    "mpeg4-avi": KindOfFile("avi", {"codec": "mpeg4"}),
    "mpeg4-b-frames-avi": KindOfFile("avi", {"codec": "mpeg4", "bframes": 2}),
    "mpeg4-b-frames": KindOfFile("mp4", {"codec": "mpeg4", "bframes": 2}),
    "mpeg2-b-frames-ps": KindOfFile("mpg", {"codec": "mpeg2video", "bframes": 2}),
    "mjpeg-avi": KindOfFile("avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
    "mjpeg-exif": KindOfFile("mov", height=96, width=64, turned=1),
    "latin1-title-avi": KindOfFile("avi", {"codec": "mpeg4"}),  # in a tag
    "variable-rate": KindOfFile(
        "mp4", {"bframes": 2, "times": VARIABLE_TIMES}, times=VARIABLE_TIMES
    ),
    "variable-rate-mkv": KindOfFile(
        "mkv", {"bframes": 2, "times": VARIABLE_TIMES}, times=VARIABLE_TIMES
    ),
    "repeated-time-stamps": KindOfFile(
        "mkv", {"times": tuple(i / 3000 for i in range(NUM_FRAMES))}
    ),
    "edit-list": KindOfFile("mp4", {"bframes": 2}, numbers=tuple(range(15, NUM_FRAMES))),
    "over-counted-avi": KindOfFile("avi", {"codec": "mpeg4"}),  # by its header
    "over-counted": KindOfFile("mp4"),  # packets at its end that hold no picture
    "audio-first": KindOfFile("mp4", {"bframes": 2, "with_audio": True}),
    "audio-first-mkv": KindOfFile("mkv", {"bframes": 2, "with_audio": True}),
    "audio-with-cover": KindOfFile("mp4", numbers=()),
    "jpeg-named-mp4": KindOfFile("mp4", num_frames=1, numbers=(5,)),
    "one-frame-mkv": KindOfFile("mkv", {"fps": 25}, num_frames=1, numbers=(0,)),
    "one-frame-flv": KindOfFile("flv", {"fps": 25}, num_frames=1, numbers=(0,)),
    "no-duration-webm": KindOfFile("webm", {"codec": "libvpx"}),
    "odd-size": KindOfFile("mp4", {"bframes": 2, "pixel_format": "yuv444p"}, height=47, width=63),
    "odd-size-subsampled": KindOfFile("webm", {"codec": "libvpx-vp9"}, height=47, width=63),
    "rotated-90": KindOfFile("mp4", {"rotation": 90}, height=96, width=64, turned=1),
    "rotated-180": KindOfFile("mp4", {"rotation": 180}, height=96, width=64, turned=2),
    "rotated-270": KindOfFile("mp4", {"rotation": -90}, height=96, width=64, turned=3),
    "rotated-90-narrow": KindOfFile("mp4", {"rotation": 90}, height=64, width=48, turned=1),
    "mirrored": KindOfFile("mp4", {"mirrored": True}, mirrored=True),
    "truncated-mkv": KindOfFile("mkv", {"gop": 60}, cut_to=0.6, numbers=None),
    "truncated-mp4": KindOfFile(
        "mp4", {"gop": 60, "container_options": {"movflags": "faststart"}}, cut_to=0.7, numbers=None
    ),
    "truncated-mp4-b-frames": KindOfFile(
        "mp4",
        {"gop": 60, "bframes": 3, "container_options": {"movflags": "faststart"}},
        cut_to=0.7,
        numbers=None,
    ),
    "truncated-before-index": KindOfFile("mp4", cut_to=0.7, numbers=()),
    "zero-bytes": KindOfFile("mp4", content=b"", numbers=()),
    "text-named-mp4": KindOfFile("mp4", content=b"a video this is not\n" * 50, numbers=()),
}


class MissingEncoderError(Exception):
    """This FFmpeg cannot encode a kind of file."""


def make_file(folder: Path, name: str) -> Path:
    """Write the file of a kind.

    Raises:
        MissingEncoderError: FFmpeg has no encoder for it.
    """
    kind = FILES[name]
    path = folder / f"{name}.{kind.ending}"
    if kind.content is not None:
        path.write_bytes(kind.content)
        return path
    frames = numbered_frames(NUM_FRAMES, kind.height, kind.width)
    frames = frames[(kind.numbers or (0,))[0] :][: kind.num_frames]
    if name == "edit-list":
        frames = numbered_frames(NUM_FRAMES, kind.height, kind.width)
    frames = np.rot90(frames, -kind.turned, (1, 2))
    if kind.mirrored:
        frames = frames[:, :, ::-1]
    codec = kind.make.get("codec", "libx264")
    if codec not in av.codecs_available:
        raise MissingEncoderError(codec)
    if name in _WRITERS:
        _WRITERS[name](path, frames)
    else:
        write_video(path, frames, **kind.make)
    if name == "over-counted-avi":
        _overcount_avi(path)
    if name == "latin1-title-avi":
        _retitle_avi(path)
    if name == "no-duration-webm":
        path = _copy_through_pipe(path, folder / "piped.webm")
    if name == "over-counted":
        path = _append_empty(path, folder / "empty-end.mp4", num_packets=6)
    if name == "edit-list":
        path = _shift(path, folder / "shifted.mp4", num_frames=15)
    if kind.cut_to < 1:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kind.cut_to)])
    return path


def _jpeg(frame: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def _write_exif_mjpeg(path: Path, frames: np.ndarray) -> None:
    """Motion JPEG whose frames say by EXIF that they are turned, as those of some cameras."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for number, frame in enumerate(frames):
            packet = av.Packet(_jpeg(np.ascontiguousarray(frame), orientation=8))
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 30), stream
            packet.is_keyframe = True
            container.mux(packet)


def _write_jpeg(path: Path, frames: np.ndarray) -> None:
    path.write_bytes(_jpeg(frames[0], orientation=1))


def _write_cover(path: Path, frames: np.ndarray) -> None:
    """Sound with a cover picture."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=30)
        cover.height, cover.width = frames.shape[1:3]
        cover.pix_fmt = "yuvj420p"
        cover.disposition = Disposition.attached_pic.value
        write_tone(container, sound, seconds=1)
        packet = av.Packet(_jpeg(frames[0], orientation=1))
        packet.pts = packet.dts = 0
        packet.time_base, packet.stream = Fraction(1, 30), cover
        container.mux(packet)


_WRITERS = {
    "mjpeg-exif": _write_exif_mjpeg,
    "jpeg-named-mp4": _write_jpeg,
    "audio-with-cover": _write_cover,
}


def _copy_through_pipe(path: Path, out_path: Path) -> Path:
    """Copy a file as a recorder that cannot go back to write the duration into its header."""

    class Pipe:
        def __init__(self) -> None:
            self.content = b""

        def write(self, content: bytes) -> int:
            self.content += content
            return len(content)

    pipe = Pipe()
    with av.open(str(path)) as source, av.open(pipe, "w", format=path.suffix[1:]) as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    out_path.write_bytes(pipe.content)
    return out_path


def _retitle_avi(path: Path) -> None:
    """Put a title in Latin-1 into the place of the encoder's name."""
    content = path.read_bytes()
    place = content.index(b"ISFT") + 8
    title = "café".encode("latin-1")
    path.write_bytes(content[:place] + title + content[place + len(title) :])


def _shift(path: Path, out_path: Path, *, num_frames: int) -> Path:
    """Copy a file so that its first frames come before time 0, outside of its edit list."""
    with av.open(str(path)) as source, av.open(str(out_path), "w") as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        step = int(num_frames / stream.average_rate / stream.time_base)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts -= step
                packet.dts -= step
                packet.stream = copied
                out.mux(packet)
    return out_path


def _overcount_avi(path: Path) -> None:
    """Let the headers of an AVI file promise more frames than it holds."""
    content = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = content.index(tag) + offset
        assert int.from_bytes(content[place : place + 4], "little") == NUM_FRAMES
        content[place : place + 4] = (NUM_FRAMES + 30).to_bytes(4, "little")
    path.write_bytes(content)


def _append_empty(path: Path, out_path: Path, *, num_packets: int) -> Path:
    """Copy an H.264 file and add packets of an access unit delimiter alone: no frame each."""
    with av.open(str(path)) as source, av.open(str(out_path), "w") as out:
        stream = source.streams.video[0]
        copied = out.add_stream_from_template(stream)
        step = int(1 / stream.average_rate / stream.time_base)
        last = 0
        for packet in source.demux(stream):
            if packet.size:
                last = packet.pts
                packet.stream = copied
                out.mux(packet)
        for number in range(1, num_packets + 1):
            packet = av.Packet(bytes([0, 0, 0, 2, 9, 0xF0]))
            packet.pts = packet.dts = last + number * step
            packet.duration, packet.time_base, packet.stream = step, stream.time_base, copied
            out.mux(packet)
    return out_path
