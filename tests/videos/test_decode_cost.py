"""What decoding takes: no more frames than are needed, and no memory that is not given back."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.augment import transforms
from slowfast_maskfeat.clips import UniformViews
from slowfast_maskfeat.videos.decode import DecodeError, available_backends, open_video

BACKENDS = [name for name, note in available_backends().items() if "absent" not in note]
NUM_CYCLES = 3_000
LAST_CYCLES = 1_000
MIB = 1 << 20


def _seconds(path: Path, indices: Sequence[int]) -> tuple[float, float]:
    """Least of five times to open a video, and to decode frames of it then.

    Of this thread's own work, so that other processes do not count.
    """
    times = []
    for _ in range(5):
        begin = time.thread_time()
        with open_video(path, "pyav") as video:
            opened = time.thread_time()
            video.frames(indices)
            times.append((opened - begin, time.thread_time() - opened))
    return min(opening for opening, _ in times), min(decoding for _, decoding in times)


def _noise(num_frames: int) -> np.ndarray:
    """Frames that take much more to decode than to convert to RGB."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (num_frames, 96, 128, 3), dtype=np.uint8)


@pytest.mark.parametrize("bframes", [0, 3])
def test_a_clip_costs_its_own_stretch_of_the_video(bframes, tmp_path):
    path = write_video(tmp_path / "a.mp4", _noise(120), gop=30, bframes=bframes)
    opening, whole = _seconds(path, range(120))
    assert opening < 0.25 * whole  # it decodes nothing
    # From the key frame 60 on: 12 of the 120 frames, each once.
    assert _seconds(path, [65, 68, 65, 71])[1] < 0.25 * whole


def test_frames_that_no_other_one_needs_are_left_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", _noise(90), gop=30, bframes=3)
    # Every fourth frame is stored before the three in front of it, of which one is left out, too,
    # where the two around it lean on it.
    assert _seconds(path, range(60, 84, 4))[1] < 0.75 * _seconds(path, range(60, 81))[1]


def test_distant_frames_are_reached_by_seeking(tmp_path):
    path = write_video(tmp_path / "a.mp4", _noise(240), gop=12)
    assert _seconds(path, [2, 239])[1] < 0.2 * _seconds(path, range(240))[1]  # 15 of 240


def test_only_frames_of_the_clip_are_converted(tmp_path):
    # A still picture is next to nothing to decode, and much to convert.
    still = np.full((24, 480, 640, 3), 90, np.uint8)
    path = write_video(tmp_path / "a.mp4", still, gop=24)
    assert _seconds(path, [23])[1] < 0.6 * _seconds(path, range(24))[1]


def test_views_that_share_frames_decode_them_once(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(60), gop=60)
    transform = transforms.TestTransform(crop_size=48, short_side=48, num_crops=3)
    views = UniformViews(
        transform=transform, num_frames=8, sampling_rate=4, num_views=5, use_offset=True
    )
    asked: list[list[int]] = []
    with open_video(path, "pyav") as video:
        frames = video.frames

        def watched(indices):
            asked.append(list(indices))
            return frames(indices)

        video.frames = watched
        assert len(views(video)) == 15
    assert len(asked) == 1  # one pass, not one a view
    assert len(set(asked[0])) == len(asked[0]) <= 5 * 8


@pytest.mark.slow  # thousands of openings
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
@pytest.mark.parametrize("decoder", BACKENDS)
def test_memory_reaches_a_plateau(decoder, tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(16), gop=8, bframes=2)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:500])
    resident = np.empty(NUM_CYCLES + 1)
    for cycle in range(NUM_CYCLES):
        resident[cycle] = _resident_bytes()
        with open_video(path, decoder) as video:
            video.frames([1, 6, 13])
        if cycle % 10 == 0:
            with pytest.raises(DecodeError):
                open_video(broken, decoder)
        if cycle % 100 == 0:
            gc.collect()  # of pytest's own tracebacks
    resident[NUM_CYCLES] = _resident_bytes()
    growth = resident[NUM_CYCLES] - resident[NUM_CYCLES - LAST_CYCLES]
    assert growth < 10 * MIB, f"{growth / MIB:.1f} MiB in the last {LAST_CYCLES}"


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
