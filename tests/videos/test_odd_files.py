"""Files that decoders trip over: tags, side data, names and errors of any type."""

from __future__ import annotations

import os
import sys
from io import BytesIO
from types import ModuleType

import av
import numpy as np
import pytest
from helpers.kinds_of_files import make_file
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image, features

from slowfast_maskfeat.curation.check_videos import check_video, measure_video
from slowfast_maskfeat.curation.jobs import Failure
from slowfast_maskfeat.curation.resize_videos import resize_video
from slowfast_maskfeat.videos import _pyav_backend, decode
from slowfast_maskfeat.videos._retried import RetriedVideo
from slowfast_maskfeat.videos.decode import (
    DecodeError,
    StalledError,
    Video,
    available_backends,
    open_around,
    open_video,
)
from slowfast_maskfeat.videos.decode_options import DecodeOptions
from slowfast_maskfeat.videos.transcode import transcode
from slowfast_maskfeat.videos.write_video import write_video as write_with_package

DECODERS = ["auto", *(name for name, note in available_backends().items() if "absent" not in note)]
ERRORS = [
    RuntimeError("of its own"),
    ValueError("31 is not a valid Type"),
    KeyError("side data"),
    ZeroDivisionError("float division by zero"),
    UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid continuation byte"),
    MemoryError(),
    OSError(5, "Input/output error"),
]


@pytest.fixture(scope="module")
def video_file(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", numbered_frames(12))


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov", "avi", "flv"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_tags_that_are_not_utf8_are_ignored(ending, decoder, tmp_path):
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "TITLE-OF-IT"
        stream = container.add_stream("mpeg4" if ending == "avi" else "libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.metadata["title"] = "TITLE-OF-IT"
        for frame in numbered_frames(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert b"TITLE-OF-IT" in content
    path.write_bytes(content.replace(b"TITLE-OF-IT", b"TITRE \xe9\xe8\xff\xe0 "))
    with open_video(path, decoder) as video:
        assert read_numbers(video.frames(range(4))) == [0, 1, 2, 3]
    assert check_video(str(path), backend=decoder) is None
    copy = tmp_path / "copy.mp4"
    assert resize_video(str(path), copy, short_side=32, gop=8, crf=20) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_an_image_under_the_suffix_of_a_video_is_what_pillow_shows(kind, orientation, tmp_path):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if kind in ("PNG", "WEBP") and av.library_versions["libavcodec"][0] < 62:
        pytest.skip("FFmpeg 7 reads the orientation of JPEG alone")
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a description, which is side data"
    image = Image.fromarray(numbered_frames(6, 48, 96)[5])
    file = BytesIO()
    image.save(file, kind, exif=exif, quality=95)
    (tmp_path / "a.mp4").write_bytes(file.getvalue())
    file.seek(0)
    with open_video(tmp_path / "a.mp4") as video:
        assert video.num_frames == 1
        shown = video.frames([0])[0]
    if kind != "AVIF":
        turned = {1: image, 6: image.transpose(Image.Transpose.ROTATE_270)}
        turned[7] = image.transpose(Image.Transpose.TRANSVERSE)
        right = np.asarray(turned[orientation]).astype(int)
        assert shown.shape == right.shape
        assert np.abs(shown - right).mean() < 8
    assert check_video(str(tmp_path / "a.mp4")) is None


def test_side_data_without_a_name_keeps_the_rotation_in_a_copy(tmp_path):
    path = make_file(tmp_path, "mjpeg-exif")
    copy = tmp_path / "copy.mp4"
    assert resize_video(str(path), copy, short_side=64, gop=8, crf=10) is None
    measured = measure_video(str(copy))
    assert not isinstance(measured, Failure)
    assert (measured["width"], measured["height"]) == (64, 96)
    with open_video(copy) as video:
        assert read_numbers(video.frames([0, 30, 59])) == [0, 30, 59]


def test_a_cover_picture_is_no_video(tmp_path):
    path = str(make_file(tmp_path, "audio-with-cover"))
    for decoder in DECODERS:
        with pytest.raises(DecodeError, match="no video stream, only a cover picture"):
            open_video(path, decoder)
    for found in (check_video(path), measure_video(path)):
        assert isinstance(found, Failure)
        assert "cover picture" in found.reason


NAMES = [
    "2020-01-01T12:30:00.mp4",
    "pipe:1.mp4",
    "file:a.mp4",
    "http:a.mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,9,,:a.mp4",
    "data:video,a.mp4",
    "caf\udce9.mp4",
    "-i.mp4",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("decoder", DECODERS)
def test_a_relative_path_is_a_file_whatever_its_name(decoder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        write_with_package(name, numbered_frames(12), fps=30)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert os.listdir() == [name]
    with open_video(name, decoder) as video:
        assert video.path == name
        assert read_numbers(video.frames([3, 11])) == [3, 11]
    video, _ = open_around(
        name, lambda seconds: seconds / 2, seconds=0.1, options=DecodeOptions(backend=decoder)
    )
    with video:
        assert video.num_frames > 0
    assert check_video(name, backend=decoder) is None
    assert resize_video(name, tmp_path / "copy.mp4", short_side=32, gop=8, crf=20) is None
    os.remove("copy.mp4")
    os.rename(name, f"{name}.txt")
    with open(name, "w") as file:
        file.write("no video")
    with pytest.raises(DecodeError, match="cannot be opened as a video"):
        open_video(name, decoder)


@pytest.mark.parametrize("begins", [(10.0, 0.0), (0.0, 10.0)], ids=["backwards", "forwards"])
def test_joined_transport_streams_show_their_frames_in_order(tmp_path, begins):
    """The clock of the second part starts anew, or jumps; its first packet is marked corrupt."""
    frames = numbered_frames(40, 64, 96)
    parts = []
    for number, begin in enumerate(begins):
        part = frames[20 * number : 20 * (number + 1)]
        times = begin + np.arange(20) / 30
        path = tmp_path / f"{number}.ts"
        write_video(path, part, times=times, gop=10, bframes=2, container_format="mpegts")
        parts.append(path.read_bytes())
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    with open_video(joined) as video:
        assert video.num_frames == 40
        numbers = read_numbers(video.frames(range(40)))
        assert np.all(np.diff(video.timestamps) > 0)
    assert numbers == list(range(40))
    transcode(str(joined), tmp_path / "copy.mp4", short_side=64, gop=8, crf=18)
    with open_video(tmp_path / "copy.mp4") as copy:
        assert read_numbers(copy.frames(range(40))) == list(range(40))


def test_what_is_no_file_has_no_copy(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    found = resize_video(
        str(tmp_path / "pipe.mp4"), tmp_path / "copy.mp4", short_side=32, gop=8, crf=20
    )
    assert isinstance(found, Failure)
    assert "not a regular file" in found.reason


@pytest.fixture
def failing(monkeypatch):
    """Registers a decoder before PyAV that raises an error."""

    def register(error: Exception) -> None:
        def open_file(path: str, **options: object) -> Video:
            raise error

        module = ModuleType("failing_decoder")
        module.open_file = open_file
        monkeypatch.setitem(sys.modules, "failing_decoder", module)
        backends = {"failing": "failing_decoder", "pyav": decode._BACKENDS["pyav"]}
        monkeypatch.setattr(decode, "_BACKENDS", backends)
        monkeypatch.setattr(decode, "_DISTRIBUTIONS", {"failing": "av", "pyav": "av"})
        decode._load.cache_clear()

    yield register
    decode._load.cache_clear()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_any_type_is_one_of_the_file_and_auto_tries_the_next(
    error, failing, video_file
):
    failing(error)
    with pytest.raises(DecodeError) as caught:
        open_video(video_file, "failing")
    assert caught.value.path == str(video_file)
    assert str(error) in caught.value.reason or error.args[-1] in caught.value.reason
    with open_video(video_file, "auto") as video:
        assert video.backend == "pyav"
        assert read_numbers(video.frames([7])) == [7]


def test_auto_does_not_wait_for_a_server_a_second_time(failing, video_file):
    failing(StalledError(str(video_file)))
    with pytest.raises(StalledError):
        open_video(video_file, "auto")


class _Failing(Video):
    """A video whose frames from 6 on cannot be decoded."""

    backend = "failing"

    def __init__(self, video: Video) -> None:
        super().__init__(
            video.path, timestamps=video.timestamps, fps=video.fps, duration=video.duration
        )
        self._inner = video
        self.is_closed = False

    def close(self) -> None:
        self._inner.close()
        self.is_closed = True

    def _decode(self, indices):
        if max(indices) >= 6:
            raise DecodeError(self.path, "cannot be decoded")
        return self._inner._decode(indices)


def test_frames_that_one_decoder_cannot_decode_come_from_the_next(video_file):
    first = _Failing(open_video(video_file, "pyav"))
    with RetriedVideo(first, lambda: open_video(video_file, "pyav")) as video:
        assert read_numbers(video.frames([3])) == [3]
        assert (video.backend, first.is_closed) == ("failing", False)
        assert read_numbers(video.frames([3, 9])) == [3, 9]
        assert (video.backend, first.is_closed) == ("pyav", True)
    with pytest.raises(ValueError, match="closed"):
        video.frames([0])


def test_the_error_is_that_of_the_next_decoder_if_it_fails_too(video_file, tmp_path):
    absent = str(tmp_path / "absent.mp4")
    first = _Failing(open_video(video_file, "pyav"))
    with (
        RetriedVideo(first, lambda: open_video(absent, "pyav")) as video,
        pytest.raises(DecodeError, match="no such file"),
    ):
        video.frames([9])


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_of_any_type_in_a_frame_are_those_of_the_file(error, video_file, monkeypatch):
    def fail(*arguments: object) -> list[object]:
        raise error

    with open_video(video_file, "pyav") as video:
        monkeypatch.setattr(_pyav_backend, "decode_packet", fail)
        with pytest.raises(DecodeError) as caught:
            video.frames([3])
    assert caught.value.path == str(video_file)


def test_an_error_of_the_moment_is_passed_on(video_file):
    def locate(seconds: float) -> float:
        raise LookupError("no such moment")

    with pytest.raises(LookupError, match="no such moment"):
        open_around(video_file, locate, seconds=1.0)
