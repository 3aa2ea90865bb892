"""Names of videos and images: every suffix that is known belongs to a file that is read."""

from __future__ import annotations

import av
import numpy as np
import pytest
from helpers.videos_on_disk import ordinary_scheduling
from PIL import Image

from slowfast_maskfeat.datasets import DataFolder, read_folder
from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.media import IMAGE_ENDINGS, VIDEO_ENDINGS, is_image, is_media

# Suffixes -> container and codec with which FFmpeg writes them.
CONTAINERS = {
    ".mp4 .m4v .f4v": ("mp4", "libx264"),
    ".mov .qt": ("mov", "libx264"),
    ".3gp .3g2": ("3gp", "libx264"),
    ".mkv .mk3d": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
    ".avi .divx .xvid": ("avi", "mpeg4"),
    ".wmv .asf": ("asf", "wmv2"),
    ".flv": ("flv", "flv1"),
    ".ogv .ogm": ("ogg", "vp8"),
    ".rm .rmvb": ("rm", "rv10"),
    ".mpg .mpeg .mpe .m2p": ("mpeg", "mpeg2video"),
    ".vob": ("vob", "mpeg2video"),
    ".ts .mts .m2ts .m2t .trp": ("mpegts", "libx264"),
    ".m1v": ("mpeg1video", "mpeg1video"),
    ".m2v .mpv": ("mpeg2video", "mpeg2video"),
    ".h264 .264": ("h264", "libx264"),
    ".hevc .h265 .265": ("hevc", "libx265"),
    ".mjpg .mjpeg": ("mjpeg", "mjpeg"),
    ".ivf": ("ivf", "libvpx-vp9"),
    ".obu": ("obu", "libsvtav1"),
    ".dv": ("dv", "dvvideo"),
    ".mxf": ("mxf", "mpeg2video"),
    ".wtv": ("wtv", "mpeg2video"),
    ".nut": ("nut", "mpeg4"),
    ".y4m": ("yuv4mpegpipe", "wrapped_avframe"),
    ".gif": ("gif", "gif"),
}
PIXEL_FORMATS = {"gif": "rgb8", "mjpeg": "yuvj420p"}
GRAYS = range(20, 220, 25)


def _write(path, container, codec):
    size = (720, 576) if container == "dv" else (176, 144)
    with ordinary_scheduling(), av.open(str(path), "w", format=container) as file:
        stream = file.add_stream("libvpx" if codec == "vp8" else codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv420p")
        for gray in GRAYS:
            pixels = np.full((size[1], size[0], 3), gray, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            file.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        file.mux(stream.encode(None))


@pytest.mark.parametrize("suffixes", CONTAINERS)
def test_a_video_of_every_suffix_is_read(suffixes, tmp_path):
    container, codec = CONTAINERS[suffixes]
    written = tmp_path / "written"
    _write(written, container, codec)
    for number, suffix in enumerate(suffixes.split()):
        # Case must not matter.
        path = tmp_path / f"x{suffix.upper() if number else suffix}"
        path.write_bytes(written.read_bytes())
        with open_video(path, "pyav") as video:
            frames = video.frames(range(video.num_frames))
        assert np.abs(frames.mean((1, 2, 3)) - list(GRAYS)).max() <= 4, suffix


def test_every_suffix_of_a_video_is_tried():
    assert set(" ".join(CONTAINERS).split()) == VIDEO_ENDINGS


def test_every_suffix_of_an_image_is_known_to_pillow():
    Image.init()
    unknown = IMAGE_ENDINGS - set(Image.registered_extensions())
    # Of the package pillow-heif, and of Pillow since 11.3.
    assert unknown <= {".heic", ".heif", ".hif", ".avif"}


def test_a_folder_lists_files_of_every_suffix(tmp_path):
    names = [f"a{suffix}" for suffix in IMAGE_ENDINGS | VIDEO_ENDINGS]
    names += [name.upper() for name in names]
    (tmp_path / "train" / "jump").mkdir(parents=True)
    for name in (*names, "notes.txt", "sound.mp3", "playlist.m3u8", "drawing.eps", "drawing.svg"):
        (tmp_path / "train" / "jump" / name).write_bytes(b"x")
    videos = read_folder(DataFolder(str(tmp_path)), "train")
    assert [videos.path(row).rpartition("/")[2] for row in range(len(videos))] == sorted(names)
    assert videos.notes[0].startswith("ignored 5 entries")


def test_videos_are_not_images():
    assert not IMAGE_ENDINGS & VIDEO_ENDINGS
    assert is_image("x.JFIF")
    assert not is_image("x.gif")
    assert is_media("x.M2TS")
    assert not is_media("x")
