"""Temporal sampling: the frames of a clip, selected by presentation time.

A clip of `num_frames` frames at `sampling_rate` covers `sampling_rate * num_frames / target_fps`
seconds at any frame rate of the video. All positions are presentation times in units of the
average frame period, so a video of variable frame rate is sampled evenly in time, and a video of
constant frame rate gives exactly the published frame indices.

Source: SlowFast (Feichtenhofer et al., 2019, arXiv:1812.03982) and MaskFeat (Wei et al., 2022,
arXiv:2112.09133), as in their released code: the span includes the period of its last frame, and
the last index is the last frame *inside* the span, so 16x4 at 30 frames/s takes 0, 4, 8, 12, 16,
21, ..., 63 (a step of 4.2, not 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A position this close below a frame, in frame periods, counts as that frame: timestamps are
# rounded to the container's clock, typically 1/512 of a frame.
_TOLERANCE = 2e-3
# Matroska, WebM and FLV store whole milliseconds: a timestamp is off by up to 0.5 ms.
_COARSE_CLOCK_SECONDS = 1e-3


class Timed(Protocol):
    """Anything with frame timestamps: `VideoTiming` or an opened `Video`."""

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """Timestamp of each frame in seconds, ascending, (num_frames,)."""

    @property
    def fps(self) -> float:
        """Average frames per second."""

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last one."""


@dataclass(frozen=True)
class VideoTiming:
    """The presentation times of a video's frames.

    Attributes:
        timestamps: float64 (num_frames,), timestamp of each frame in seconds, ascending.
        fps: average frame rate in frames per second.
        duration: seconds from the start of the first frame to the end of the last one.

    Raises:
        ValueError: there are no frames, or the frame rate or the duration is not positive.
    """

    timestamps: NDArray[np.float64]
    fps: float
    duration: float

    def __post_init__(self) -> None:
        if self.timestamps.ndim != 1 or len(self.timestamps) == 0:
            raise ValueError(
                f"timestamps must be (num_frames,), not empty, got {self.timestamps.shape}"
            )
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not (np.isfinite(self.duration) and self.duration > 0):
            raise ValueError(f"duration must be positive, got {self.duration}")

    @classmethod
    def of(cls, video: Timed) -> VideoTiming:
        """Return the timing of an opened video (anything with `timestamps`, `fps`, `duration`)."""
        if isinstance(video, cls):
            return video
        return cls(
            np.asarray(video.timestamps, np.float64), float(video.fps), float(video.duration)
        )

    @classmethod
    def constant(cls, num_frames: int, fps: float) -> VideoTiming:
        """Return the timing of `num_frames` frames at a constant rate, the first one at 0 s."""
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        return cls(np.arange(num_frames) / fps, float(fps), num_frames / fps)

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.timestamps)

    @property
    def length(self) -> float:
        """Length of the video in frame periods (the frame count at a constant frame rate)."""
        return self.fps * self.duration

    def positions(self) -> NDArray[np.float64]:
        """Return the time of each frame in frame periods since the first one.

        These are integers at a constant frame rate. Timestamps rounded by a container with a coarse
        clock are snapped back to the regular grid.
        """
        seconds = self.timestamps - self.timestamps[0]
        positions = seconds * self.fps
        regular = np.arange(self.num_frames, dtype=np.float64)
        slack = min(_COARSE_CLOCK_SECONDS * self.fps, 0.25)
        return regular if np.abs(positions - regular).max() <= slack else positions


def clip_span(*, num_frames: int, sampling_rate: float, target_fps: float, fps: float) -> float:
    """Return the length of a clip in frame periods of the video, its last frame included."""
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if sampling_rate <= 0 or target_fps <= 0:
        raise ValueError(
            f"sampling_rate and target_fps must be positive, got {sampling_rate} and {target_fps}"
        )
    return max(1.0, sampling_rate * num_frames / target_fps * fps)


def clip_frames(
    timing: VideoTiming, *, start: float, span: float, num_frames: int, from_window: bool
) -> NDArray[np.int64]:
    """Return the frames of the clip that begins at `start`.

    Args:
        timing: presentation times of the video.
        start: start of the clip in frame periods since the first frame; may be fractional.
        span: length of the clip in frame periods (`clip_span`).
        num_frames: number of frames to take, evenly spaced over the span.
        from_window: True starts at the first frame that begins within the span and stops at the
            last one that does; False starts at `start` itself. The published loader does the former
            for long videos, of which it decodes a window, and the latter for short videos, which it
            decodes completely.

    Returns:
        int64 (num_frames,), ascending; the last frame is repeated if the video is too short.
    """
    positions = timing.positions()
    first_shown = int(np.searchsorted(positions, start + _TOLERANCE, side="right")) - 1
    origin, last = start, timing.num_frames - 1
    if from_window:
        first = int(np.searchsorted(positions, start - _TOLERANCE, side="left"))
        last = int(np.searchsorted(positions, start + span - 1 + _TOLERANCE, side="right")) - 1
        last = max(last, first_shown, 0)
        # After a freeze the next frame is far away: start with the frame on display.
        if first <= last and positions[first] - start < 1:
            origin = float(positions[first])
    times = origin + np.linspace(0.0, span - 1, num_frames)
    frames = np.searchsorted(positions, times + _TOLERANCE, side="right") - 1
    return np.clip(frames, 0, last).astype(np.int64)


def random_clip(
    video: Timed,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
    generator: np.random.Generator,
    jitter_fps: float = 0.0,
) -> NDArray[np.int64]:
    """Return the frames of a clip at a uniformly random position, for training and validation.

    Args:
        video: the opened video, or its `VideoTiming`.
        num_frames: frames of the clip.
        sampling_rate: frames of a `target_fps` video from one taken frame to the next.
        target_fps: frame rate that `sampling_rate` refers to.
        generator: random generator; draws the jitter first, if `jitter_fps` > 0, then the position.
        jitter_fps: adds U(0, jitter_fps) to `target_fps`, which changes the speed of the clip.

    Returns:
        int64 (num_frames,) frame numbers, ascending.
    """
    if jitter_fps < 0:
        raise ValueError(f"jitter_fps must be >= 0, got {jitter_fps}")
    if jitter_fps > 0:
        target_fps = target_fps + float(generator.uniform(0.0, jitter_fps))
    timing = VideoTiming.of(video)
    span = clip_span(
        num_frames=num_frames, sampling_rate=sampling_rate, target_fps=target_fps, fps=timing.fps
    )
    start = float(generator.uniform(0.0, max(timing.length - span, 0.0)))
    return clip_frames(
        timing,
        start=start,
        span=span,
        num_frames=num_frames,
        from_window=_is_long(timing, num_frames, sampling_rate),
    )


def uniform_clip(
    video: Timed,
    *,
    num_frames: int,
    sampling_rate: float,
    target_fps: float,
    view: int,
    num_views: int,
    use_offset: bool,
) -> NDArray[np.int64]:
    """Return the frames of temporal view `view` of `num_views`, for testing; deterministic.

    Args:
        video: the opened video, or its `VideoTiming`.
        num_frames: frames of the clip.
        sampling_rate: frames of a `target_fps` video from one taken frame to the next.
        target_fps: frame rate that `sampling_rate` refers to.
        view: index of the view, from 0.
        num_views: number of temporal views of the video.
        use_offset: True spreads the views from the first to the last possible position (a single
            view: the middle). False spaces them by 1/num_views, which never reaches the end of the
            video.

    Returns:
        int64 (num_frames,) frame numbers, ascending.
    """
    if not 0 <= view < num_views:
        raise ValueError(f"view must be in 0..{num_views - 1}, got {view}")
    timing = VideoTiming.of(video)
    span = clip_span(
        num_frames=num_frames, sampling_rate=sampling_rate, target_fps=target_fps, fps=timing.fps
    )
    slack = max(timing.length - span, 0.0)
    if not use_offset:
        start = slack * view / num_views
    elif num_views == 1:
        start = _floor_frames(slack / 2)
    else:
        start = view * _floor_frames(slack / (num_views - 1))
    return clip_frames(
        timing,
        start=start,
        span=span,
        num_frames=num_frames,
        from_window=_is_long(timing, num_frames, sampling_rate),
    )


def clip_around(
    video: Timed, *, timestamp: float, num_frames: int, sampling_rate: float, target_fps: float
) -> NDArray[np.int64]:
    """Return the frames of the clip around a timestamp, which is its frame `num_frames // 2`.

    Frame k of the clip is displayed `k * sampling_rate - num_frames * sampling_rate // 2` frames at
    `target_fps` after it, as published for the key frames of AVA: 16x4 takes -32, -28, ..., 0, ...,
    28. Beyond the ends of the video, the first and last frame are repeated.

    Args:
        video: the opened video, its `VideoTiming`, or a part around the timestamp.
        timestamp: seconds on the clock of the video.
        num_frames: frames of the clip.
        sampling_rate: frames of a `target_fps` video from one taken frame to the next.
        target_fps: frame rate that `sampling_rate` refers to.

    Returns:
        int64 (num_frames,) frame numbers, ascending.
    """
    timing = VideoTiming.of(video)
    offsets = np.arange(num_frames) * sampling_rate - num_frames * sampling_rate // 2
    place = (timestamp - timing.timestamps[0]) * timing.fps + offsets / target_fps * timing.fps
    # It need not be that of a frame, so `positions` did not remove the rounding of a coarse clock.
    slack = max(_COARSE_CLOCK_SECONDS * timing.fps, _TOLERANCE)
    frames = np.searchsorted(timing.positions(), place + min(slack, 0.25), side="right") - 1
    return np.clip(frames, 0, timing.num_frames - 1).astype(np.int64)


def reach_around(*, num_frames: int, sampling_rate: float, target_fps: float) -> float:
    """Return the seconds that `clip_around` may read before and after its timestamp."""
    return num_frames * sampling_rate / 2 / target_fps + 1.0


def segment_clip(
    num_video_frames: int, *, num_frames: int, generator: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Return one frame from each of `num_frames` equal segments, as usual on Something-Something.

    Args:
        num_video_frames: frames of the video.
        num_frames: frames of the clip.
        generator: random generator of the frame within each segment; None takes the middle one.

    Returns:
        int64 (num_frames,) frame numbers, ascending; repeated if the video is too short.
    """
    if num_video_frames < 1 or num_frames < 1:
        raise ValueError(
            f"num_video_frames and num_frames must be at least 1, got {num_video_frames} and "
            f"{num_frames}"
        )
    # np.round rounds halves to even, as the published code does.
    borders = np.round(np.arange(num_frames + 1) * ((num_video_frames - 1) / num_frames))
    low, high = borders[:-1].astype(np.int64), borders[1:].astype(np.int64)
    if generator is None:
        return (low + high) // 2
    return generator.integers(low, high, endpoint=True, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class RandomFrames:
    """Frames of a clip at a random position in the video.

    Attributes:
        sampling_rate: interval between sampled frames, in frames at `target_fps`.
        target_fps: frames per second.
        jitter_fps: upper bound of a uniform draw added to `target_fps`.
        segments: sample a random frame of each of T equal segments of the video instead.
    """

    sampling_rate: int
    target_fps: float = 30.0
    jitter_fps: float = 0.0
    segments: bool = False

    def draw(
        self, video: Timed, num_frames: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the frame numbers of a clip, (num_frames,)."""
        if self.segments:
            return segment_clip(len(video.timestamps), num_frames=num_frames, generator=generator)
        return random_clip(
            video,
            num_frames=num_frames,
            sampling_rate=self.sampling_rate,
            target_fps=self.target_fps,
            jitter_fps=self.jitter_fps,
            generator=generator,
        )


@dataclass(frozen=True)
class RandomSpan:
    """Frames evenly spaced over a random part of the video, whatever its length.

    Attributes:
        shortest: least length of the part, as a fraction of the video.
        longest: largest length of the part; the length is uniform in between.

    Raises:
        ValueError: the fractions are not ascending in (0, 1].
    """

    shortest: float
    longest: float

    def __post_init__(self) -> None:
        if not 0.0 < self.shortest <= self.longest <= 1.0:
            raise ValueError(
                "DATA.SSL_GLOBAL_SPAN and DATA.SSL_LOCAL_SPAN must be ascending fractions of the "
                f"video in (0, 1], or empty, got {[self.shortest, self.longest]}"
            )

    def draw(
        self, video: Timed, num_frames: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw the frame numbers of a clip, (num_frames,)."""
        timing = VideoTiming.of(video)
        span = max(1.0, timing.length * float(generator.uniform(self.shortest, self.longest)))
        start = float(generator.uniform(0.0, max(timing.length - span, 0.0)))
        return clip_frames(timing, start=start, span=span, num_frames=num_frames, from_window=False)


@dataclass(frozen=True)
class SameFrames:
    """The same frames for all views of a kind.

    Attributes:
        sampling: draws the frames for the first view of the kind; None reuses the frames of the
            sample's first view.
    """

    sampling: RandomFrames | RandomSpan | None = None


def _is_long(timing: VideoTiming, num_frames: int, sampling_rate: float) -> bool:
    # In frames of the video, ignoring its frame rate, as published.
    return timing.length > sampling_rate * num_frames + _TOLERANCE


def _floor_frames(frames: float) -> float:
    # Durations have rounding errors: 235.99999999999997 frames are 236.
    return float(np.floor(frames + 1e-6))
