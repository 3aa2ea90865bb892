"""Outcome of a decoder on each kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.kinds_of_files import FILES, NUM_FRAMES, KindOfFile
from helpers.videos_on_disk import numbered_frames, read_numbers

from slowfast_maskfeat.videos.decode import DecodeError, open_video

EXACT = "exact"
ERROR = "error"  # DecodeError at opening
FRAME_ERROR = "error for a frame"  # DecodeError when frames are requested
WRONG = "wrong"  # other frames than requested, silently
OUTCOMES = (EXACT, ERROR, FRAME_ERROR, WRONG)
# Mean difference in gray levels from the encoded frames: a wrong range of values gives 16 or more.
_MAX_LEVELS = 8.0


def outcome_of(path: Path, name: str, decoder: str) -> str:
    """One of `OUTCOMES` for a file of the kind `name`."""
    try:
        open_video(path, decoder).close()
    except DecodeError:
        return ERROR
    try:
        check_exact(path, name, decoder)
    except DecodeError:
        return FRAME_ERROR
    except AssertionError:
        return WRONG
    return EXACT


def single(path: Path, decoder: str, index: int) -> int:
    """The number that a frame shows if it is requested alone."""
    with open_video(path, decoder) as video:
        return read_numbers(video.frames([index]))[0]


def check_exact(path: Path, name: str, decoder: str) -> None:
    """Assert that each requested frame is right, alone and with others, as is its time.

    Raises:
        AssertionError: Something is wrong.
        DecodeError: Something cannot be decoded.
    """
    kind = FILES[name]
    with open_video(path, decoder) as video:
        num_frames, times = video.num_frames, video.timestamps
        assert decoder in ("auto", video.backend)
        whole = video.frames(range(num_frames))
        scattered = np.array([num_frames - 1, 3, 17, 3, 0, 18]) % num_frames
        assert np.array_equal(video.frames(scattered), whole[scattered])
    assert whole.dtype == np.uint8
    assert whole.shape == (num_frames, kind.height, kind.width, 3)
    numbers = read_numbers(whole)
    _check_numbers(kind, numbers)
    right = numbered_frames(NUM_FRAMES, kind.height, kind.width)[numbers]
    assert np.abs(whole.astype(np.int16) - right).mean() < _MAX_LEVELS
    assert [single(path, decoder, index) for index in range(0, num_frames, 5)] == numbers[::5]
    if name not in ("repeated-time-stamps", "h264-bare-stream"):
        shown_at = np.array(kind.times or np.arange(num_frames) / 30)[:num_frames]
        assert np.abs(times - times[0] - shown_at).max() < 1.1e-3


def _check_numbers(kind: KindOfFile, numbers: list[int]) -> None:
    if kind.numbers is not None:
        assert numbers == list(kind.numbers)
        return
    assert 10 < len(numbers) < NUM_FRAMES
    assert numbers == list(range(len(numbers)))
