"""Written videos are read back as they were, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.videos_on_disk import numbered_frames, read_numbers

from slowfast_maskfeat.videos import open_video
from slowfast_maskfeat.videos.write_video import write_video


def test_frames_come_back_in_their_order_at_their_rate(tmp_path):
    path = tmp_path / "new" / "a.mp4"
    assert write_video(path, iter(numbered_frames(50)), fps=12.5) == 50
    with open_video(path) as video:
        assert video.num_frames == 50
        assert video.fps == pytest.approx(12.5)
        assert read_numbers(video.frames(range(50))) == list(range(50))
    assert [found.name for found in path.parent.iterdir()] == ["a.mp4"]


def test_odd_sizes_grow_by_one(tmp_path):
    frames = np.full((3, 31, 47, 3), (200, 40, 90), np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=30)
    with open_video(tmp_path / "a.mp4") as video:
        read = video.frames([1])[0].astype(int)
    assert read.shape == (32, 48, 3)
    assert np.abs(read - (200, 40, 90)).max() < 8


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.avi", np.zeros((1, 16, 16, 3), np.uint8), 30, r"end in \.mp4, got .*a\.avi"),
        ("a.mp4", np.zeros((1, 16, 16, 3), np.uint8), 0, "fps must be > 0, got 0"),
        ("a.mp4", np.zeros((0, 16, 16, 3), np.uint8), 30, "frames must contain at least one"),
        (
            "a.mp4",
            [np.zeros((16, s, 3), np.uint8) for s in (16, 18)],
            30,
            r"frame 1 .*got uint8 of shape \(16, 18, 3\)",
        ),
        ("a.mp4", np.zeros((1, 16, 16, 3)), 30, "frame 0 .*got float64"),
    ],
)
def test_what_can_not_be_written_leaves_nothing(tmp_path, name, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, frames, fps=fps)
    assert not list(tmp_path.iterdir())


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match="of its own"):
        write_video(path, frames(), fps=30)
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.mp4"]
