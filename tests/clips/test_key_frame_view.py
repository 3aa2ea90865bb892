"""Clips about key frames: which frames they have, and that boxes are where their content is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video

from slowfast_maskfeat.augment import ColorRecipe, TrainTransform, WholeFrameTransform, parse_policy
from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.augment.boxes import clip_boxes, flip_boxes, has_area
from slowfast_maskfeat.augment.randaugment import Operation, move_boxes
from slowfast_maskfeat.clips import KeyFrameView
from slowfast_maskfeat.clips.temporal_sampling import VideoTiming, clip_around
from slowfast_maskfeat.videos.decode import open_video

# Indices of the published loader of AVA.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/data_spatial.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["ava_get_sequence"], ids=lambda case: str(case["center"]))
def test_clips_about_a_key_frame_are_the_published_ones(case):
    frames = clip_around(
        VideoTiming.constant(case["n"], 30),
        timestamp=case["center"] / 30,
        num_frames=len(case["seq"]),
        sampling_rate=case["rate"],
        target_fps=30,
    )
    assert frames.tolist() == case["seq"]


@pytest.mark.parametrize("fps", [24000 / 1001, 25, 60])
def test_clips_cover_the_same_time_at_any_rate(fps):
    frames = clip_around(
        VideoTiming.constant(2000, fps),
        timestamp=20.0,
        num_frames=16,
        sampling_rate=4,
        target_fps=30,
    )
    wanted = 20 + (np.arange(16) * 4 - 32) / 30
    shown = frames / fps
    assert (shown <= wanted + 1.1e-3).all()  # the frame on show, or the next one
    assert (wanted < shown + 1 / fps).all()


def test_the_clock_of_the_container_does_not_matter():
    exact = VideoTiming.constant(900, 30)
    coarse = VideoTiming(np.round(exact.timestamps, 3) + 7, 30.0, 30.0)
    for second in range(2, 28):
        options = {"num_frames": 8, "sampling_rate": 3, "target_fps": 30}
        expected = clip_around(exact, timestamp=second, **options)
        assert expected[4] == 30 * second
        assert clip_around(coarse, timestamp=second + 7, **options).tolist() == expected.tolist()


def _marked(height: int, width: int, box, num_frames: int = 2) -> torch.Tensor:
    """Gray frames (T, H, W, C) with a bright red rectangle at x1, y1, x2, y2 in pixels."""
    frames = torch.full((num_frames, height, width, 3), 90, dtype=torch.uint8)
    x1, y1, x2, y2 = (int(side) for side in box)
    frames[:, y1:y2, x1:x2] = torch.tensor([250, 20, 20], dtype=torch.uint8)
    return frames


def _seen(frames: torch.Tensor) -> list[int] | None:
    """x1, y1, x2, y2 of what is red, or None."""
    red = frames[0, ..., 0].int() - frames[0, ..., 1].int() > 90
    if not red.any():
        return None
    rows, columns = torch.where(red)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def _random_box(generator, height: int, width: int) -> np.ndarray:
    low = generator.random(2) * 0.6
    high = low + 0.2 + generator.random(2) * (0.8 - low)
    return np.floor(np.concatenate([low, high]) * [width, height, width, height])


TRANSFORMS = {
    "short side": {"short_side": (64, 80)},
    "short side, inverse": {"short_side": (64, 80), "inverse_uniform": True},
    "area": {"area": (0.3, 1.0)},
    "area, not antialiased": {"area": (0.3, 1.0), "antialias": False},
    "flip alone": {"short_side": (56, 56)},
    "no flip": {"short_side": (64, 80), "flip": False},
}


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (60, 61)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_boxes_follow_every_crop(name, size):
    transform = TrainTransform(crop_size=56, **TRANSFORMS[name])
    generator = np.random.default_rng(0)
    num_seen = 0
    for _ in range(60):
        box = _random_box(generator, *size)
        frames, (moved,) = transform.with_boxes(_marked(*size, box), box[None], generator)
        assert (moved >= 0).all()
        assert (moved <= 55).all()
        _assert_marked(frames, moved)
        num_seen += has_area(moved[None])[0]
    assert num_seen > 50


def _assert_marked(frames: torch.Tensor, box: np.ndarray, tolerance: float = 2.1) -> None:
    """What is red is in the box, and fills it, to a pixel at either side and that of the flip."""
    seen = _seen(frames)
    if seen is None:
        assert min(box[2] - box[0], box[3] - box[1]) <= tolerance
    else:
        np.testing.assert_allclose(seen, box, atol=tolerance)


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (64, 64), (50, 115)])
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_follow_the_resize_of_whole_frames(size, flip):
    transform = WholeFrameTransform(short_side=64, flip=flip)
    generator = np.random.default_rng(1)
    for _ in range(20):
        box = _random_box(generator, *size)
        frames, (moved,) = transform.with_boxes(_marked(*size, box), box[None])
        assert min(frames.shape[1:3]) == 64
        assert frames.shape[1] / frames.shape[2] == pytest.approx(size[0] / size[1], abs=0.02)
        _assert_marked(frames, moved)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [("TranslateXRel", 0.3), ("TranslateYRel", -0.4), ("TranslateXRel", -0.45), ("Rotate", 180)],
)
def test_boxes_follow_shifts_of_randaugment(kind, argument):
    box = np.array([40.0, 30, 70, 50])
    frames = apply_operations(_marked(96, 128, box), [Operation(kind, argument)])
    (moved,) = move_boxes(box[None], [Operation(kind, argument)], 96, 128)
    _assert_marked(frames, moved, 1.1)


@pytest.mark.parametrize(("kind", "argument"), [("Rotate", 30), ("ShearX", 0.3), ("ShearY", -0.3)])
def test_boxes_hold_what_randaugment_turns(kind, argument):
    """What is seen of a turned rectangle ends where the upright box about it does."""
    box = np.array([50.0, 35, 80, 60])
    frames = apply_operations(_marked(96, 128, box), [Operation(kind, argument)])
    (moved,) = move_boxes(box[None], [Operation(kind, argument)], 96, 128)
    _assert_marked(frames, moved, 1.6)


def test_boxes_follow_several_operations_and_the_crop():
    policy = parse_policy("rand-m10-n3-mstd0.5-inc1")
    transform = TrainTransform(
        crop_size=56,
        short_side=(64, 80),
        randaugment=policy,
        colors=ColorRecipe(brightness=0.2, contrast=0.2, saturation=0.2),
    )
    generator = np.random.default_rng(3)
    held = []
    for _ in range(80):
        box = _random_box(generator, 96, 128)
        state = generator.bit_generator.state
        marked, (moved,) = transform.with_boxes(_marked(96, 128, box), box[None], generator)
        generator.bit_generator.state = state
        plain, _ = transform.with_boxes(_marked(96, 128, [0, 0, 0, 0]), box[None], generator)
        changed = (marked.int() - plain.int()).abs().amax(-1)[0] > 60
        if changed.any():
            rows, columns = (x.float() for x in torch.where(changed))
            inside = (columns >= moved[0] - 2) & (columns <= moved[2] + 2)
            inside &= (rows >= moved[1] - 2) & (rows <= moved[3] + 2)
            held.append(inside.float().mean().item())
    # Equalising and contrast change what is outside of the rectangle in a few of them.
    assert np.median(held) == 1
    assert np.mean(np.array(held) > 0.99) > 0.75


def test_boxes_do_not_change_what_is_drawn():
    transform = TrainTransform(crop_size=48, area=(0.3, 1.0))
    frames = torch.from_numpy(numbered_frames(3, 64, 80))
    with_boxes = transform.with_boxes(frames, np.ones((5, 4)), np.random.default_rng(5))[0]
    assert with_boxes.equal(transform(frames, np.random.default_rng(5)))


def test_pixels_of_boxes_are_the_published_ones():
    """Clipped at the last pixel; mirrored, x is width - x - 1."""
    boxes = np.array([[-3.0, 4, 200, 90], [10, 5, 20, 8]])
    np.testing.assert_array_equal(clip_boxes(boxes, 60, 100), [[0, 4, 99, 59], [10, 5, 20, 8]])
    np.testing.assert_array_equal(flip_boxes(boxes[1:], 100), [[79, 5, 89, 8]])
    assert has_area(np.array([[0.0, 0, 0, 5], [0, 0, 1, 0], [0, 0, 0.5, 0.5]])).tolist() == [
        False,
        False,
        True,
    ]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("view") / "x.mp4", numbered_frames(120, 48, 64))


BOXES = np.array([[0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], [0.98, 0.98, 1, 1]], np.float32)


def _view(**options) -> KeyFrameView:
    options = {"transform": WholeFrameTransform(short_side=48), "keep_all": True, **options}
    return KeyFrameView(crop_size=48, num_frames=4, sampling_rate=3, **options)


def test_a_view_gives_the_clip_and_all_boxes_in_its_pixels(video):
    with open_video(video) as opened:
        clips, boxes, which = _view()(opened, 2.0, BOXES, np.random.default_rng(0))
    assert clips.shape == (1, 4, 48, 64, 3)
    assert read_numbers(clips[0].numpy()) == [54, 57, 60, 63]
    expected = [[0, 6.4, 9.6, 38.4, 43.2], [0, 0, 0, 63, 47], [0, 62.72, 47.04 - 0.04, 63, 47]]
    np.testing.assert_allclose(boxes, expected, atol=1e-5)
    assert which.tolist() == [0, 1, 2]


def test_several_crops_have_boxes_of_their_own_and_drop_what_is_outside(video):
    transform = TrainTransform(crop_size=32, short_side=(48, 48))
    view = _view(transform=transform, num_samples=20, keep_all=False)
    with open_video(video) as opened:
        clips, boxes, which = view(opened, 2.0, BOXES, np.random.default_rng(0))
        again = view(opened, 2.0, BOXES, np.random.default_rng(0))
        kept = _view(transform=transform, num_samples=20)(
            opened, 2.0, BOXES, np.random.default_rng(0)
        )
    assert clips.shape == (20, 4, 32, 32, 3)
    assert boxes.dtype == np.float32
    assert has_area(boxes[:, 1:]).all()
    assert len(kept[1]) == 60 > len(boxes)  # the small one in the corner is outside of most crops
    assert set(boxes[which == 1, 0].astype(int)) == set(range(20))
    assert np.array_equal(again[1], boxes)
    assert again[0].equal(clips)


def test_a_key_frame_without_boxes_is_a_clip(video):
    with open_video(video) as opened:
        clips, boxes, which = _view()(opened, 0.0, BOXES[:0], np.random.default_rng(0))
    assert (clips.shape[0], boxes.shape, which.shape) == (1, (0, 5), (0,))
