"""Several views of a sample: order of rows, random streams, shared crops, masks, lost videos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image

from slowfast_maskfeat.augment import ColorRecipe, EraseSampler, TrainTransform, parse_policy
from slowfast_maskfeat.augment.apply_operations import apply_operations
from slowfast_maskfeat.clips import (
    ClipDataset,
    ClipLoader,
    MultiView,
    RandomFrames,
    RandomView,
    SameFrames,
    ViewSpec,
)
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.decode_options import DecodeOptions

NUM_VIDEOS, SEED = 8, 3
TEMPORAL = RandomFrames(sampling_rate=2, jitter_fps=4.0)
# The whole frame of 48x64 pixels, upright, so that its number can be read.
WHOLE = TrainTransform(crop_size=48, area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), flip=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    for number in range(NUM_VIDEOS):
        write_video(path / f"{number}.mp4", numbered_frames(40 + number), fps=30)
    (path / "list.csv").write_text("".join(f"{n}.mp4 {n % 3}\n" for n in range(NUM_VIDEOS)))
    return path


@pytest.fixture
def broken_folder(folder, tmp_path):
    for number in range(NUM_VIDEOS):
        if number == 2:
            (tmp_path / "2.mp4").write_text("this is no video")
        else:
            (tmp_path / f"{number}.mp4").symlink_to(folder / f"{number}.mp4")
    (tmp_path / "list.csv").write_text((folder / "list.csv").read_text())
    return tmp_path


def _spec(crop_size=32, num_frames=4, temporal=TEMPORAL, count=1, shares=None, **augmentation):
    augmentation = {
        "area": (0.3, 1.0),
        "colors": ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4),
        **augmentation,
    }
    return ViewSpec(
        augmentation=TrainTransform(crop_size=crop_size, **augmentation),
        crop_size=crop_size,
        num_frames=num_frames,
        temporal=temporal,
        count=count,
        shares=shares,
    )


def _whole(num_frames, temporal, count=1):
    return ViewSpec(
        augmentation=WHOLE, crop_size=48, num_frames=num_frames, temporal=temporal, count=count
    )


GLOBAL_AND_LOCAL = (_spec(32, 4, count=2), _spec(16, 2, count=3, area=(0.05, 0.3)))


def _mask(shape):
    return lambda generator: torch.from_numpy(generator.random(shape) < 0.5)


MASKS = (_mask((2, 4, 4)), _mask((1, 2, 2)))


def _dataset(folder, views, **options):
    videos = read_list(folder / "list.csv", prefix=str(folder))
    options = {"seed": SEED, **options}
    return ClipDataset(videos, MultiView(views) if isinstance(views, tuple) else views, **options)


def _by_sample(batch):
    """Of each row of the list, the clips and masks of all kinds."""
    found = {}
    for part in batch.split(1):
        assert len(part) == 1
        (row,) = {int(i) for kind in part.views for i in kind.index}
        found[row] = [(kind.clips.clone(), kind.mask.clone()) for kind in part.views]
    return found


def _assert_same(first, second):
    assert first.keys() == second.keys()
    for row, kinds in first.items():
        for (clips, mask), (other_clips, other_mask) in zip(kinds, second[row], strict=True):
            assert clips.equal(other_clips)
            assert mask.equal(other_mask)


@pytest.mark.parametrize("replace_lost", [True, False])
def test_one_kind_with_one_view_is_a_random_view(broken_folder, replace_lost):
    """Equal tensors, those of a replaced video and of random erasing included."""
    policy = parse_policy("rand-m7-n4-mstd0.5-inc1")
    spec = _spec(area=None, short_side=(36, 44), randaugment=policy)
    plain = RandomView(transform=spec.augmentation, num_frames=4, temporal=TEMPORAL)
    erase = EraseSampler(size=(32, 32), probability=0.7)
    options = {"mask_samplers": MASKS[:1], "erase_sampler": erase, "replace_lost": replace_lost}
    expected, mine = (_dataset(broken_folder, view, **options) for view in (plain, (spec,)))
    for batch, other in zip(
        ClipLoader(mine, 4, shuffle=True, seed=5).epoch(2),
        ClipLoader(expected, 4, shuffle=True, seed=5).epoch(2),
        strict=True,
    ):
        assert batch.views == (batch,)
        assert not batch.has_several_views
        for name in ("clips", "labels", "mask", "erase", "index", "view"):
            assert getattr(batch, name).equal(getattr(other, name)), name
        assert batch.lost == other.lost
        assert len(batch) == len(other) == len(batch.clips)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_kinds_are_batches_with_the_views_of_a_sample_together(folder, num_workers):
    dataset = _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=MASKS)
    loader = ClipLoader(dataset, 4, shuffle=True, seed=5, num_workers=num_workers)
    for batch in loader.epoch(0):
        first, second = batch.views
        assert first is batch
        assert len(batch) == len(second) == 4
        assert (first.views_per_sample, second.views_per_sample) == (2, 3)
        assert first.clips.shape == (8, 3, 4, 32, 32)
        assert second.clips.shape == (12, 3, 2, 16, 16)
        assert first.clips.dtype == second.clips.dtype == torch.uint8
        assert first.mask.shape == (8, 2, 4, 4)
        assert second.mask.shape == (12, 1, 2, 2)
        rows = first.index[::2]
        for kind in (first, second):
            assert kind.index.equal(rows.repeat_interleave(kind.views_per_sample))
            assert kind.labels.equal(kind.index % 3)
            assert kind.view.tolist() == list(range(kind.views_per_sample)) * 4
            views = kind.clips.unflatten(0, (4, -1))
            assert not views[:, 0].equal(views[:, 1])
        assert not second.further


def test_neither_workers_nor_batch_size_nor_processes_change_a_sample(folder):
    dataset = _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=MASKS)
    expected = {}
    for batch in ClipLoader(dataset, 4, shuffle=True, seed=5).epoch(1):
        expected |= _by_sample(batch)
    assert len(expected) == NUM_VIDEOS
    for batch_size, num_workers in ((4, 2), (8, 0), (2, 0)):
        loader = ClipLoader(dataset, batch_size, shuffle=True, seed=5, num_workers=num_workers)
        found = {}
        for batch in loader.epoch(1):
            found |= _by_sample(batch)
        _assert_same(found, expected)
    found = {}
    for rank in (0, 1):
        for batch in ClipLoader(dataset, 4, shuffle=True, seed=5, rank=rank, world=2).epoch(1):
            found |= _by_sample(batch)
    _assert_same(found, expected)


def test_each_view_has_the_stream_of_its_number(folder):
    """View v > 0 of all kinds: (seed, epoch, row, 0, 3, v) for frames and crop, and for its mask
    (seed, epoch, row, 0, 1, v); the first one without the last two and the last number."""
    sample = _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=MASKS)[SampleKey(2, 5)]
    view = 0
    with open_video(folder / "5.mp4") as video:
        kinds = (sample, *sample.further)
        for spec, kind, sampler in zip(GLOBAL_AND_LOCAL, kinds, MASKS, strict=True):
            assert len(kind.clips) == len(kind.mask) == spec.count
            for clip, mask in zip(kind.clips, kind.mask, strict=True):
                generator = np.random.default_rng(
                    (SEED, 2, 5, 0, 3, view) if view else (SEED, 2, 5, 0)
                )
                indices = TEMPORAL.draw(video, spec.num_frames, generator)
                frames = torch.from_numpy(video.frames(indices))
                assert clip.equal(spec.augmentation(frames, generator))
                numbers = (SEED, 2, 5, 0, 1, view) if view else (SEED, 2, 5, 0, 1)
                assert mask.equal(sampler(np.random.default_rng(numbers)))
                view += 1
    assert view == 5


def test_kinds_have_frames_of_their_own_or_those_of_the_first_view(folder):
    slow, fast = RandomFrames(sampling_rate=4), RandomFrames(sampling_rate=1)
    specs = (
        _whole(4, SameFrames(slow), count=2),
        _whole(8, fast, count=3),
        _whole(4, SameFrames(), count=2),
    )
    sample = _dataset(folder, specs)[SampleKey(0, 7)]
    numbers = [
        [read_numbers(clip.numpy()) for clip in kind.clips] for kind in (sample, *sample.further)
    ]
    with open_video(folder / "7.mp4") as video:
        first = slow.draw(video, 4, np.random.default_rng((SEED, 0, 7, 0))).tolist()
    assert numbers[0] == [first] * 2
    assert numbers[2] == [first] * 2
    assert first[3] - first[0] in (14, 15)  # a span of 16 that starts between two frames
    assert len({tuple(clip) for clip in numbers[1]}) == 3
    assert all(clip[:7] == list(range(clip[0], clip[0] + 7)) for clip in numbers[1])


def test_all_frames_are_decoded_once(folder):
    read = []
    with open_video(folder / "6.mp4") as video:
        frames = video.frames

        def counted(indices):
            read.append(list(indices))
            return frames(indices)

        video.frames = counted
        dataset = _dataset(folder, GLOBAL_AND_LOCAL)
        opened = dataset.videos.open(6, reach=0, options=DecodeOptions())
        opened.video.close()
        dataset.views.load(opened._replace(video=video), np.random.default_rng)
    (indices,) = read
    assert indices == sorted(set(indices))


def test_a_shared_crop_is_resized_twice_from_the_original_pixels(folder):
    """As BEiT's two inputs: one box, bicubic at one size and Lanczos at the other, by Pillow."""
    plain = {"area": (0.2, 1.0), "colors": None}
    specs = (
        _spec(32, 1, count=3, interpolation="bicubic", **plain),
        _spec(16, 1, count=3, interpolation="lanczos", shares=0, **plain),
    )
    flips = set()
    for row in range(NUM_VIDEOS):
        sample = _dataset(folder, specs)[SampleKey(0, row)]
        with open_video(folder / f"{row}.mp4") as video:
            for view in range(3):
                seed = (SEED, 0, row, 0, 3, view) if view else (SEED, 0, row, 0)
                generator = np.random.default_rng(seed)
                (frame,) = video.frames(TEMPORAL.draw(video, 1, generator))
                plan = specs[0].augmentation.plan(48, 64, generator)
                flips.add(plan.flip)
                top, left, height, width = plan.box
                part = Image.fromarray(frame).crop((left, top, left + width, top + height))
                for kind, size, kernel in (
                    (sample, 32, Image.Resampling.BICUBIC),
                    (sample.further[0], 16, Image.Resampling.LANCZOS),
                ):
                    # Columns first, as Pillow up to version 12 does in one call.
                    resized = part.resize((size, height), kernel).resize((size, size), kernel)
                    expected = np.array(resized)
                    expected = expected[:, ::-1] if plan.flip else expected
                    difference = kind.clips[view, 0].numpy().astype(int) - expected
                    assert np.abs(difference).max() <= 1
    assert flips == {True, False}


def test_a_shared_view_has_the_colors_of_the_other(folder):
    """The drawn operations are applied to each size; an equal size gives equal clips."""
    policy = parse_policy("rand-m9-n3")
    options = {"randaugment": policy, "augment_crop": True}
    specs = (
        _spec(32, 2, count=2, **options),
        _spec(24, 2, count=2, shares=0, **options),
        _spec(32, 2, count=2, shares=1, **options),
    )
    sample = _dataset(folder, specs)[SampleKey(1, 4)]
    small, again = sample.further
    assert again.clips.equal(sample.clips)
    with open_video(folder / "4.mp4") as video:
        generator = np.random.default_rng((SEED, 1, 4, 0))
        frames = torch.from_numpy(video.frames(TEMPORAL.draw(video, 2, generator)))
    plan = specs[0].augmentation.plan(48, 64, generator)
    assert plan.after
    bare = replace(plan.resized(24), after=())
    clip = specs[1].augmentation.apply(bare, frames)
    assert small.clips[0].equal(apply_operations(clip, plan.after))


def test_views_of_a_kind_have_color_recipes_of_their_own(folder):
    """The other draws of a view are the same with any recipe, since colors are drawn last."""
    dark, plain = ColorRecipe(brightness=1.0), ColorRecipe()
    specs = [replace(_spec(count=2), colors=colors) for colors in ((dark, plain), (plain, dark))]
    first, second = (_dataset(folder, (spec,))[SampleKey(0, 1)].clips for spec in specs)
    without = _spec(count=2, colors=None)
    expected = _dataset(folder, (without,))[SampleKey(0, 1)].clips
    assert first[1].equal(expected[1])
    assert second[0].equal(expected[0])
    assert not first[0].equal(expected[0])
    assert not second[1].equal(expected[1])


def test_channels_of_all_kinds_are_reversed(folder):
    plain, reverse = (
        _dataset(folder, GLOBAL_AND_LOCAL, reverse_channels=value)[SampleKey(0, 1)]
        for value in (False, True)
    )
    for kind, other in zip((plain, *plain.further), (reverse, *reverse.further), strict=True):
        assert kind.clips.flip(-1).equal(other.clips)


def test_a_lost_video_is_replaced_in_all_kinds_or_in_none(broken_folder):
    options = {"mask_samplers": MASKS}
    training = _dataset(broken_folder, GLOBAL_AND_LOCAL, replace_lost=True, **options)
    sample = training[SampleKey(0, 2)]
    assert sample.row != 2
    assert sample.lost[0].row == 2
    attempt = len(sample.lost)
    view, spec = 3, GLOBAL_AND_LOCAL[1]  # the second of the further kind
    with open_video(broken_folder / f"{sample.row}.mp4") as video:
        generator = np.random.default_rng((SEED, 0, 2, attempt, 3, view))
        frames = video.frames(TEMPORAL.draw(video, spec.num_frames, generator))
        expected = spec.augmentation(torch.from_numpy(frames), generator)
    assert sample.further[0].clips[1].equal(expected)
    assert sample.further[0].row == sample.row

    evaluation = _dataset(broken_folder, GLOBAL_AND_LOCAL, **options)
    first, *_ = ClipLoader(evaluation, 4, shuffle=False).epoch(0)
    assert len(first) == 3
    assert [len(kind.clips) for kind in first.views] == [6, 9]
    assert [len(kind.mask) for kind in first.views] == [6, 9]
    assert [lost.row for lost in first.lost] == [2]
    nothing = next(ClipLoader(evaluation, 1, shuffle=False).epoch(0, first_batch=2))
    assert len(nothing) == 0
    (alone,) = nothing.further
    assert alone.clips.shape == (0, 3, 2, 16, 16)


def test_a_kind_may_go_without_masks(folder):
    dataset = _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=(None, MASKS[1]))
    sample = dataset[SampleKey(0, 0)]
    assert sample.mask is None
    both = _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=MASKS)[SampleKey(0, 0)]
    assert sample.further[0].mask.equal(both.further[0].mask)
    with pytest.raises(ValueError, match=r"mask_samplers must .* 2 kinds of views, got 1"):
        _dataset(folder, GLOBAL_AND_LOCAL, mask_samplers=MASKS[:1])


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((), "specs must have at least 1 kind, got 0"),
        ((_spec(shares=0),), "shares of kind 0 must .* got 0"),
        ((_spec(), _spec(shares=-1)), "shares of kind 1 must .* got -1"),
        ((_spec(), _spec(count=2, shares=0)), "count of kind 1 must be 1, .* kind 0, .* got 2"),
        ((_spec(), _spec(num_frames=2, shares=0)), "num_frames of kind 1 must .* got 2"),
        ((_spec(), _spec(temporal=SameFrames(), shares=0)), r"temporal of kind 1 .* SameFrames"),
        ((_spec(), _spec(flip=False, shares=0)), "augmentation of kind 1 must .* kind 0"),
        (
            (_spec(area=None), _spec(area=None, crop_size=16, shares=0)),
            "augmentation of kind 0 must have an area",
        ),
        ((_spec(temporal=SameFrames()),), r"temporal of kind 0 must .* got SameFrames\(\)"),
        (
            (_spec(num_frames=4), _spec(num_frames=2, temporal=SameFrames())),
            "num_frames of kind 1 must be 4, .* got 2",
        ),
    ],
)
def test_kinds_that_contradict_each_other_are_refused(specs, message):
    with pytest.raises(ValueError, match=message):
        MultiView(specs)


def test_a_kind_that_contradicts_itself_is_refused():
    options = {"augmentation": WHOLE, "num_frames": 1, "temporal": TEMPORAL}
    with pytest.raises(ValueError, match=r"crop_size must be 48, .* got 32"):
        ViewSpec(crop_size=32, **options)
    with pytest.raises(ValueError, match=r"count must .* got 0"):
        ViewSpec(crop_size=48, count=0, **options)
    with pytest.raises(
        ValueError, match=r"colors must have none or one for each of the 2 .* got 1"
    ):
        ViewSpec(crop_size=48, count=2, colors=(None,), **options)
