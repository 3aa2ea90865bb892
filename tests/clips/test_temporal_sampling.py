"""Temporal sampling against the published loader's frame numbers (golden/data_temporal.json)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from slowfast_maskfeat.clips.temporal_sampling import (
    RandomSpan,
    VideoTiming,
    clip_frames,
    clip_span,
    random_clip,
    segment_clip,
    uniform_clip,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "data_temporal.json").read_text())


def _case_name(case: dict) -> str:
    return (
        f"{case['num_video_frames']}f-{case['fps']:.4g}fps-{case['frames']}x{case['rate']}"
        f"-{case['views']}views{'-offset' if case['use_offset'] else ''}"
    )


def _views(timing: VideoTiming, case: dict) -> list[list[int]]:
    return [
        uniform_clip(
            timing,
            num_frames=case["frames"],
            sampling_rate=case["rate"],
            target_fps=30,
            view=view,
            num_views=case["views"],
            use_offset=case["use_offset"],
        ).tolist()
        for view in range(case["views"])
    ]


def _rounded(num_frames: int, fps: float, clock: float, offset: float = 0.0) -> VideoTiming:
    """A constant rate as a container keeps it whose clock ticks `clock` times a second."""
    stamps = np.round(np.arange(num_frames + 1) / fps * clock) / clock + offset
    return VideoTiming(stamps[:-1], num_frames / (stamps[-1] - stamps[0]), stamps[-1] - stamps[0])


@pytest.mark.parametrize("case", GOLDEN["test_clips"], ids=_case_name)
def test_views_are_the_published_ones(case):
    timing = VideoTiming.constant(case["num_video_frames"], case["fps"])
    assert _views(timing, case) == case["clips"]


@pytest.mark.parametrize("case", GOLDEN["test_clips"], ids=_case_name)
def test_views_do_not_depend_on_the_clock_of_the_container(case):
    stamps = _rounded(
        case["num_video_frames"], case["fps"], case["timebase_denominator"]
    ).timestamps
    duration = case["num_video_frames"] / case["fps"]
    assert _views(VideoTiming(stamps, case["fps"], duration), case) == case["clips"]
    milliseconds = _rounded(case["num_video_frames"], case["fps"], 1000, offset=1.5).timestamps
    assert _views(VideoTiming(milliseconds, case["fps"], duration), case) == case["clips"]


@pytest.mark.parametrize(
    "row", GOLDEN["train_random_N300_fps30_16x4"], ids=lambda r: str(r["python_seed"])
)
def test_training_clips_at_the_published_starts(row):
    timing = VideoTiming.constant(300, 30.0)
    span = clip_span(num_frames=16, sampling_rate=4, target_fps=30, fps=30.0)
    start = random.Random(row["python_seed"]).uniform(0, 300 - span)
    assert start == row["start_end"][0]
    assert start + span - 1 == row["start_end"][1]
    frames = clip_frames(timing, start=start, span=span, num_frames=16, from_window=True)
    assert frames.tolist() == row["frames"]


def test_start_is_uniform_over_the_slack():
    drawn = random.Random(0)
    assert [drawn.uniform(0, 236.0) for _ in range(5)] == GOLDEN["get_start_end_idx_seed0"]
    timing = VideoTiming.constant(300, 30.0)
    generator = np.random.default_rng(0)
    firsts = np.array(
        [
            random_clip(timing, num_frames=16, sampling_rate=4, target_fps=30, generator=generator)[
                0
            ]
            for _ in range(2000)
        ]
    )
    assert firsts.min() <= 2
    assert firsts.max() >= 234
    assert firsts.max() <= 236
    # U(0, 236) rounded up: mean 118.5, standard deviation 68.1, of the mean 1.5.
    assert abs(firsts.mean() - 118.5) < 6
    assert abs(firsts.std() - 68.1) < 4


@pytest.mark.parametrize(
    "case", GOLDEN["ssv2_test"], ids=lambda c: f"{c['video_frames']}f-{c['frames']}"
)
def test_segments_are_the_published_ones(case):
    frames = segment_clip(case["video_frames"], num_frames=case["frames"])
    assert frames.tolist() == case["seq"]


def test_random_segments_stay_in_their_segments():
    generator = np.random.default_rng(3)
    drawn = np.stack([segment_clip(81, num_frames=8, generator=generator) for _ in range(500)])
    assert (drawn.min(0) == np.arange(8) * 10).all()
    assert (drawn.max(0) == np.arange(8) * 10 + 10).all()


@pytest.mark.parametrize("fraction", [(0.9, 1.0), (0.125, 0.125), (1.0, 1.0)])
@pytest.mark.parametrize("fps", [10.0, 30.0])
def test_spans_are_fractions_of_the_video(fraction: tuple[float, float], fps: float) -> None:
    timing, generator = VideoTiming.constant(400, fps), np.random.default_rng(0)
    clips = np.stack([RandomSpan(*fraction).draw(timing, 8, generator) for _ in range(300)])
    assert clips.min() >= 0
    assert clips.max() < 400
    steps = np.diff(clips, axis=1)
    assert (steps.max(axis=1) - steps.min(axis=1)).max() <= 1  # evenly spaced
    spans = (clips[:, -1] - clips[:, 0] + 1) / 400
    low, high = fraction
    assert low - 0.005 <= spans.min() <= low + 0.02
    assert high - 0.02 <= spans.max() <= high + 0.005
    # Positions are uniform over what the span leaves.
    starts = clips[:, 0] / (400 * (1 - (low + high) / 2) or 1)
    assert starts.mean() == pytest.approx(0.0 if low == 1.0 else 0.5, abs=0.1)


def test_spans_of_short_videos_repeat_frames() -> None:
    for num_frames in (1, 3):
        clip = RandomSpan(0.125, 0.125).draw(
            VideoTiming.constant(num_frames, 30.0), 8, np.random.default_rng(0)
        )
        assert len(clip) == 8
        assert len(set(clip.tolist())) == 1
    with pytest.raises(ValueError, match=r"DATA\.SSL_LOCAL_SPAN must be .* got \[0\.0, 0\.5\]"):
        RandomSpan(0.0, 0.5)


def test_the_generator_alone_decides():
    timing = VideoTiming.constant(300, 30.0)

    def draw(seed: int, jitter: float = 0.0) -> list[int]:
        return random_clip(
            timing,
            num_frames=8,
            sampling_rate=8,
            target_fps=30,
            generator=np.random.default_rng(seed),
            jitter_fps=jitter,
        ).tolist()

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    widths = [frames[-1] - frames[0] for frames in (draw(seed, 15.0) for seed in range(200))]
    assert max(widths) <= 63
    assert 40 <= min(widths) <= 46  # 64 source frames at 30 become 42.7 at 45


def test_variable_frame_rate_is_sampled_evenly_in_time():
    # 60 frames a second for two seconds, then 15 for eight.
    stamps = np.concatenate([np.arange(120) / 60, 2 + np.arange(120) / 15])
    timing = VideoTiming(stamps, fps=24.0, duration=10.0)
    for view in range(5):
        frames = uniform_clip(
            timing,
            num_frames=16,
            sampling_rate=4,
            target_fps=30,
            view=view,
            num_views=5,
            use_offset=True,
        )
        # 64/30 s less one average period. Each frame is the one on show at its time, the first
        # one too: off by less than the slow frames' 1/15 s. The last one begins no later than the
        # span ends.
        ideal = stamps[frames[0]] + np.linspace(0, 64 / 30 - 1 / 24, 16)
        assert np.abs(ideal - stamps[frames])[:-1].max() <= 1 / 15 + 1e-9
        assert -1 / 15 <= ideal[-1] - stamps[frames[-1]] <= 1 / 15 + 1 / 24
        # By frame numbers, without regard to time, the fast part would take 4.2 frames a step.
        steps = np.diff(frames)
        assert steps[0] in ((8, 9) if view == 0 else (2, 3))


def test_a_freeze_shows_the_frame_before_it():
    # Ten frames, nothing for four seconds, ten frames: the clip inside the gap is frame 9.
    stamps = np.concatenate([np.arange(10) / 10, 5 + np.arange(10) / 10])
    timing = VideoTiming(stamps, fps=20 / 6, duration=6.0)
    frames = clip_frames(
        timing, start=2.0 * timing.fps, span=1.5 * timing.fps, num_frames=4, from_window=True
    )
    assert frames.tolist() == [9, 9, 9, 9]


def test_a_video_that_starts_late_gives_the_same_clip():
    early, late = VideoTiming.constant(300, 25.0), VideoTiming.constant(300, 25.0)
    late = VideoTiming(late.timestamps + 12.34, late.fps, late.duration)
    arguments = {"start": 31.4, "span": 53.3, "num_frames": 16, "from_window": True}
    assert clip_frames(early, **arguments).tolist() == clip_frames(late, **arguments).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoTiming(np.zeros(0), 30.0, 1.0), "num_frames"),
        (lambda: VideoTiming(np.zeros(1), 0.0, 1.0), "fps"),
        (lambda: VideoTiming(np.zeros(1), 30.0, float("nan")), "duration"),
        (lambda: VideoTiming.constant(0, 30.0), "num_frames"),
        (lambda: clip_span(num_frames=0, sampling_rate=4, target_fps=30, fps=30), "num_frames"),
        (lambda: clip_span(num_frames=8, sampling_rate=0, target_fps=30, fps=30), "sampling_rate"),
        (lambda: segment_clip(0, num_frames=8), "num_video_frames .* got 0 and 8"),
        (
            lambda: uniform_clip(
                VideoTiming.constant(9, 30.0),
                num_frames=8,
                sampling_rate=4,
                target_fps=30,
                view=3,
                num_views=3,
                use_offset=True,
            ),
            "view",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
