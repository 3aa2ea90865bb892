"""A part of a video about one timestamp: the frames of the whole, and no more read than needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image

from slowfast_maskfeat.clips.temporal_sampling import clip_around, reach_around
from slowfast_maskfeat.datasets.key_frames import second_in_file
from slowfast_maskfeat.videos._numbered_frames import NumberedFrames
from slowfast_maskfeat.videos.decode import (
    DecodeError,
    MissingFileError,
    open_around,
    open_video,
)

NUM_FRAMES = 250
CLIP = {"num_frames": 4, "sampling_rate": 5, "target_fps": 30}
REACH = reach_around(**CLIP)
_OPEN = {"x264-params": "open-gop=1"}
FILES = {
    "mp4": ("mp4", {}),
    "mp4-b-frames": ("mp4", {"bframes": 3}),
    "mp4-open-gop": ("mp4", {"bframes": 3, "gop": 30, "options": _OPEN}),
    "mp4-25-fps": ("mp4", {"fps": 25, "bframes": 2}),
    "mp4-one-key-frame": ("mp4", {"gop": 500, "bframes": 2}),
    "mp4-with-audio": ("mp4", {"with_audio": True, "bframes": 3}),
    "mp4-fragments": ("mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mp4-late": ("mp4", {"times": [0.5 + i / 30 for i in range(NUM_FRAMES)]}),
    "mkv": ("mkv", {"bframes": 3}),
    "mkv-open-gop": ("mkv", {"bframes": 3, "gop": 30, "options": _OPEN}),
    "mkv-variable": ("mkv", {"times": [i / 30 + (i > 100) * 0.4 for i in range(NUM_FRAMES)]}),
    "webm": ("webm", {"codec": "libvpx"}),
    "ts": ("ts", {"bframes": 3}),  # these two are read whole
    "avi": ("avi", {"codec": "mpeg4"}),
}


@pytest.fixture(scope="module")
def frames():
    return numbered_frames(NUM_FRAMES)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("timestamps")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            ending, options = FILES[name]
            made[name] = write_video(folder / f"{name}.{ending}", frames, **options)
        return made[name]

    return make


def _clip(video, timestamp: float) -> list[int]:
    return read_numbers(video.frames(clip_around(video, timestamp=timestamp, **CLIP)))


@pytest.mark.parametrize("name", FILES)
def test_a_part_shows_what_the_whole_shows(name, videos):
    path = videos(name)
    with open_video(path, "pyav") as whole:
        begin, duration = float(whole.timestamps[0]), whole.duration
        for second in [0, 0.02, 1, 2.5, 3.337, 5, 7, duration - 0.1]:
            part, timestamp = open_around(path, lambda _, at=second: at, seconds=REACH)
            with part:
                assert _clip(part, timestamp) == _clip(whole, begin + second), second
                assert part.num_frames < NUM_FRAMES or "one" in name or name in ("ts", "avi")


@pytest.mark.parametrize("name", ["mp4", "mkv", "mp4-b-frames"])
def test_a_whole_second_shows_its_own_frame(name, videos):
    for second in range(1, 8):
        part, timestamp = open_around(videos(name), lambda _, at=second: at, seconds=REACH)
        with part:
            assert _clip(part, timestamp)[2] == 30 * second


def _bytes_read() -> int:
    """By this process so far, from wherever."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="reading is counted by /proc")
def test_only_what_is_near_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", noise)
    before = _bytes_read()
    part, _ = open_around(path, lambda _: 4.0, seconds=1.0)
    part.close()
    # A second to either side, one for the order of decoding, and the way from a key frame.
    assert part.num_frames == pytest.approx(100, abs=16)
    assert _bytes_read() - before < 0.6 * path.stat().st_size


def test_the_file_says_how_long_it_is(videos):
    lengths = []
    for name in ("mp4", "mkv", "mp4-with-audio", "avi", "mp4-fragments"):
        part, _ = open_around(videos(name), lambda length: lengths.append(length) or 1.0, seconds=1)
        part.close()
    assert lengths == [pytest.approx(NUM_FRAMES / 30, abs=0.1)] * 5


def test_what_is_outside_of_the_file_is_told(videos):
    part, timestamp = open_around(videos("mp4"), lambda length: length + 0.4, seconds=REACH)
    with part:
        assert _clip(part, timestamp)[2:] == [NUM_FRAMES - 1] * 2  # a header may be off by so much

    def refuse(length: float) -> float:
        raise DecodeError("x", "not here")

    for name in ("mp4", "avi"):
        with pytest.raises(DecodeError, match="not here"):
            open_around(videos(name), refuse, seconds=1.0)
    with pytest.raises(MissingFileError):
        open_around("gone.mp4", lambda _: 1.0, seconds=1.0)


@pytest.mark.parametrize(
    ("second", "begin", "duration", "expected"),
    [
        (902, None, 901.0, 2),  # a part of the film, from 900 s on
        (1798, None, 900.9, 898),
        (902, None, 7200.0, 902),  # the film
        (1798, None, 1800.0, 1798),
        (5, None, 10.0, 5),
        (10.4, None, 10.0, 10.4),  # a header may be off by a little
        (905, 900, 7200.0, 5),
        (30, 10, 60.0, 20),
    ],
)
def test_where_a_second_of_the_annotations_is_in_a_file(second, begin, duration, expected):
    assert second_in_file("x.mp4", second, begin, duration) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("second", "begin", "duration", "message"),
    [
        (
            1500,
            None,
            1000.0,
            r"x\.mp4: the key frame at 1500 s is outside of the file, which is 1000\.0 s long$",
        ),
        (30, 40, 60.0, r"begins at 40 s \(AVA\.VIDEO_BEGIN\)"),
        (1803, None, 901.0, "the key frame at 1803 s is outside of the file"),
    ],
)
def test_a_second_outside_of_the_file_is_told(second, begin, duration, message):
    with pytest.raises(DecodeError, match=message):
        second_in_file("x.mp4", second, begin, duration)


def test_numbered_images_are_a_video(tmp_path, frames):
    for number, frame in enumerate(frames[:20], 5):
        Image.fromarray(frame).save(tmp_path / f"x_{number:06d}.png")
    images = NumberedFrames(str(tmp_path / "x_"), 6, ".png", first=5, num_frames=20, fps=10)
    with images.open() as video:
        assert (video.num_frames, video.fps, video.duration) == (20, 10, 2.0)
        assert read_numbers(video.frames([0, 19, 7])) == [0, 19, 7]
        assert np.array_equal(video.frames([3])[0], frames[3])
    with pytest.raises(ValueError, match="closed"):
        video.frames([0])
    (tmp_path / "x_000010.png").unlink()
    with images.open() as video, pytest.raises(DecodeError, match=r"x_000010\.png"):
        video.frames([5])
    with pytest.raises(MissingFileError, match=r"x_000004\.png: no such file"):
        NumberedFrames(str(tmp_path / "x_"), 6, ".png", first=4, num_frames=20, fps=10).open()
