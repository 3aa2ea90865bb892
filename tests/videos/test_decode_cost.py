"""What decoding takes: no more frames than are needed, and no memory that is not given back."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video

from slowfast_maskfeat.videos import _pyav_backend
from slowfast_maskfeat.videos.decode import DecodeError, available_backends, open_video

BACKENDS = [name for name, note in available_backends().items() if "absent" not in note]
NUM_CYCLES = 3_000
LAST_CYCLES = 1_000
MIB = 1 << 20


class _Counter:
    """Passes on what goes to a decoder and to the conversion to RGB, and counts it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_converted = self.num_decoded = self.num_packets = 0
        reformatter, decode = _pyav_backend.VideoReformatter, _pyav_backend._decode_packet
        counter = self

        class Reformatter:
            def __init__(self) -> None:
                self._inner = reformatter()

            def reformat(self, *arguments):
                counter.num_converted += 1
                return self._inner.reformat(*arguments)

        def decode_packet(decoder, packet):
            frames = decode(decoder, packet)
            counter.num_packets += packet is not None
            counter.num_decoded += len(frames)
            return frames

        monkeypatch.setattr(_pyav_backend, "VideoReformatter", Reformatter)
        monkeypatch.setattr(_pyav_backend, "_decode_packet", decode_packet)


@pytest.mark.parametrize("bframes", [0, 3])
def test_only_what_is_needed_is_decoded_and_converted(bframes, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(120), gop=30, bframes=bframes)
    counter = _Counter(monkeypatch)
    with open_video(path, "pyav") as video:
        assert counter.num_packets == 0  # opening decodes nothing
        assert read_numbers(video.frames([65, 68, 65, 71])) == [65, 68, 65, 71]
    assert counter.num_converted == 3
    # From the key frame 60 on, with what is stored early because B-frames lean on it.
    assert counter.num_packets <= 71 - 60 + 1 + bframes + 1
    if bframes:
        assert counter.num_decoded < counter.num_packets  # unwanted B-frames are left out


def test_distant_frames_are_reached_by_seeking(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", numbered_frames(240), gop=12)
    counter = _Counter(monkeypatch)
    with open_video(path, "pyav") as video:
        assert read_numbers(video.frames([2, 239])) == [2, 239]
    assert counter.num_converted == 2
    assert counter.num_packets <= 3 + 12


def test_views_that_share_frames_decode_them_once(tmp_path, monkeypatch):
    from slowfast_maskfeat.augment.transforms import TestTransform
    from slowfast_maskfeat.clips import UniformViews

    path = write_video(tmp_path / "a.mp4", numbered_frames(60), gop=60)
    transform = TestTransform(crop_size=48, short_side=48, num_crops=3)
    views = UniformViews(
        transform=transform, num_frames=8, sampling_rate=4, num_views=5, use_offset=True
    )
    counter = _Counter(monkeypatch)
    with open_video(path, "pyav") as video:
        clips = views(video)
    assert len(clips) == 15
    assert counter.num_converted <= 5 * 8
    assert counter.num_packets <= 60  # one pass, not one a view


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
