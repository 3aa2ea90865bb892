"""Dataset and loader on real encoded videos: determinism, lost videos, sharing among processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video

from slowfast_maskfeat.augment import ColorRecipe, EraseSampler, TrainTransform, parse_policy
from slowfast_maskfeat.augment.transforms import TestTransform as FixedTransform
from slowfast_maskfeat.clips import (
    ClipDataset,
    ClipLoader,
    RandomFrames,
    RandomView,
    UniformViews,
)
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.datasets import read_list
from slowfast_maskfeat.videos.decode import open_video

NUM_VIDEOS = 8
TEMPORAL = RandomFrames(sampling_rate=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos")
    for number in range(NUM_VIDEOS):
        write_video(path / f"{number}.mp4", numbered_frames(24 + number), fps=30)
    (path / "list.csv").write_text("".join(f"{n}.mp4 {n % 3}\n" for n in range(NUM_VIDEOS)))
    return path


@pytest.fixture
def broken_folder(folder, tmp_path):
    for number in range(NUM_VIDEOS):
        (tmp_path / f"{number}.mp4").symlink_to(folder / f"{number}.mp4")
    (tmp_path / "2.mp4").unlink()
    (tmp_path / "2.mp4").write_text("this is no video")
    (tmp_path / "list.csv").write_text((folder / "list.csv").read_text())
    return tmp_path


def _random_view():
    transform = TrainTransform(crop_size=32, area=(0.5, 1.0))
    return RandomView(transform=transform, num_frames=4, temporal=TEMPORAL)


def _draw_mask(generator):
    return torch.from_numpy(generator.random((2, 2, 2)) < 0.5)


def _dataset(folder, views=None, **options):
    videos = read_list(folder / "list.csv", prefix=str(folder))
    return ClipDataset(videos, views or _random_view(), mask_samplers=[_draw_mask], **options)


def _train_loader(dataset, **options):
    return ClipLoader(dataset, 4, shuffle=True, seed=5, **options)


def _content(batches):
    return [(batch.clips.clone(), batch.mask.clone(), batch.index.tolist()) for batch in batches]


def _assert_same(first, second):
    assert len(first) == len(second)
    for (clips, mask, index), (other_clips, other_mask, other_index) in zip(
        first, second, strict=True
    ):
        assert index == other_index
        assert clips.equal(other_clips)
        assert mask.equal(other_mask)


def test_batches_do_not_depend_on_the_number_of_workers(folder):
    dataset = _dataset(folder, seed=1)
    expected = _content(_train_loader(dataset).epoch(3))
    for num_workers in (1, 2):
        loader = _train_loader(dataset, num_workers=num_workers)
        _assert_same(_content(loader.epoch(3)), expected)


def _augmented_dataset(folder):
    transform = TrainTransform(
        crop_size=32,
        area=(0.3, 1.0),
        randaugment=parse_policy("rand-m9-n4-mstd0.5-inc1"),
        colors=ColorRecipe(brightness=0.4, contrast=0.4, saturation=0.4, gray_probability=0.2),
    )
    return _dataset(
        folder,
        RandomView(transform=transform, num_frames=4, temporal=TEMPORAL, num_samples=2),
        seed=1,
        erase_sampler=EraseSampler(size=(32, 32), probability=0.7, max_count=2),
    )


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_augmented_batches_do_not_depend_on_the_number_of_workers(folder):
    dataset = _augmented_dataset(folder)
    expected = list(_train_loader(dataset).epoch(3))
    assert [len(batch) for batch in expected] == [8, 8]
    assert any(bool(batch.erase[..., 2].any()) for batch in expected)
    for num_workers in (1, 4):
        batches = list(_train_loader(dataset, num_workers=num_workers).epoch(3))
        _assert_same(_content(batches), _content(expected))
        for batch, other in zip(batches, expected, strict=True):
            assert batch.erase.equal(other.erase)


def test_repeated_augmentation_crops_clips_of_one_decoding_next_to_each_other(folder):
    dataset = _augmented_dataset(folder)
    batch = next(_train_loader(dataset).epoch(0))
    assert batch.index.tolist()[0::2] == batch.index.tolist()[1::2]
    assert batch.view.tolist() == [0, 1] * 4
    assert batch.labels.tolist() == [row % 3 for row in batch.index.tolist()]
    assert not batch.clips[0::2].equal(batch.clips[1::2])
    assert not batch.mask[0::2].equal(batch.mask[1::2])
    assert not batch.erase[0::2].equal(batch.erase[1::2])

    # The same frames: without anything spatial both clips are one.
    transform = TrainTransform(crop_size=48, area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), flip=False)
    view = RandomView(transform=transform, num_frames=4, temporal=TEMPORAL, num_samples=2)
    clips = _dataset(folder, view)[SampleKey(0, 3)].clips
    assert clips[0].equal(clips[1])


def test_several_times_of_a_video_come_from_one_opening(folder):
    transform = TrainTransform(crop_size=48, area=(1.0, 1.0), aspect=(4 / 3, 4 / 3), flip=False)
    view = RandomView(
        transform=transform,
        num_frames=4,
        temporal=TEMPORAL,
        num_times=3,
        num_samples=2,
    )
    sample = _dataset(folder, view)[SampleKey(0, 7)]
    assert sample.clips.shape == (6, 4, 48, 48, 3)
    assert len(sample.mask) == 6
    numbers = [read_numbers(clip.numpy()) for clip in sample.clips]
    assert numbers[0::2] == numbers[1::2]
    assert len({clip[0] for clip in numbers}) == 3
    for clip in numbers:
        assert clip[3] - clip[0] in (6, 7)  # a span of 8 that starts between two frames


def test_an_epoch_goes_on_in_its_middle(folder):
    dataset = _dataset(folder, seed=1)
    whole = _content(_train_loader(dataset).epoch(2))
    _assert_same(_content(_train_loader(dataset).epoch(2, first_batch=1)), whole[1:])


def test_epochs_and_seeds_differ(folder):
    loader = _train_loader(_dataset(folder, seed=1))
    first, second = _content(loader.epoch(0)), _content(loader.epoch(1))
    assert [index for *_, index in first] != [index for *_, index in second]
    other = _content(_train_loader(_dataset(folder, seed=2)).epoch(0))
    assert not first[0][0].equal(other[0][0])


def test_processes_share_the_batch_that_one_would_have_made(folder):
    dataset = _dataset(folder, seed=1)
    whole = _content(_train_loader(dataset).epoch(0))
    parts = [_content(_train_loader(dataset, rank=rank, world=2).epoch(0)) for rank in (0, 1)]
    for step, (clips, _, index) in enumerate(whole):
        # Rows are shared from both ends, so that the first and the last stay together for mixup.
        for (my_clips, _, my_index), rows in zip(
            (parts[0][step], parts[1][step]), ([0, 3], [1, 2]), strict=True
        ):
            assert my_index == [index[row] for row in rows]
            assert my_clips.equal(clips[rows])


@pytest.mark.parametrize(("batch_size", "world"), [(8, 2), (6, 2), (6, 3), (4, 4), (2, 1)])
def test_every_row_of_a_batch_has_one_process(folder, batch_size, world):
    dataset = _dataset(folder, seed=1)

    def rows(**options):
        return next(
            ClipLoader(dataset, batch_size, shuffle=True, **options).epoch(0)
        ).index.tolist()

    shares = [rows(rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {batch_size // world}
    assert sorted(row for share in shares for row in share) == sorted(rows())


def test_every_row_is_evaluated_once_over_processes(folder):
    dataset = _dataset(folder)
    rows = []
    for rank in range(3):
        loader = ClipLoader(dataset, 3, shuffle=False, rank=rank, world=3)
        rows += [row for batch in loader.epoch(0) for row in batch.index.tolist()]
    assert sorted(rows) == list(range(NUM_VIDEOS))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_that_are_left_out_change_no_batch_of_the_others(folder, num_workers):
    dataset = _dataset(folder)
    num_rows = len(dataset)
    for rank in range(2):
        options = {"rank": rank, "world": 2, "num_workers": num_workers}
        whole = [batch.index for batch in ClipLoader(dataset, 4, shuffle=False, **options).epoch(0)]
        loader = ClipLoader(dataset, 4, shuffle=False, **options)
        left_out = np.array([0, 1, 2, 3, 5])  # the first batch, and a row of the second
        loader.leave_out(left_out)
        expected = [batch[~torch.isin(batch, torch.from_numpy(left_out))] for batch in whole]
        expected = [batch.tolist() for batch in expected if len(batch)]
        assert [batch.index.tolist() for batch in loader.epoch(0)] == expected
        assert [batch.index.tolist() for batch in loader.epoch(0, first_batch=1)] == expected[1:]
        assert len(loader) == -(-num_rows // 4) - 1
        loader.leave_out(np.arange(num_rows))
        assert list(loader.epoch(0)) == []
        assert len(loader) == 0


@pytest.mark.parametrize("world", [1, 2])
def test_rows_that_are_kept_alone_fill_batches(folder, world):
    dataset, kept = _dataset(folder), np.array([1, 3, 4, 5, 6])
    loaders = [
        ClipLoader(dataset, 2, shuffle=False, rank=rank, world=world) for rank in range(world)
    ]
    rows = []
    for loader in loaders:
        loader.keep_only(kept)
        assert len(loader) == 3
        rows.append([batch.index.tolist() for batch in loader.epoch(0)])
    assert rows == ([[[1, 3], [4, 5], [6]]] if world == 1 else [[[1], [4], [6]], [[3], [5]]])
    whole = {int(batch.index): batch for batch in ClipLoader(dataset, 1, shuffle=False).epoch(0)}
    for batch in loaders[0].epoch(0):
        assert batch.clips[0].equal(whole[int(batch.index[0])].clips[0])


def test_evaluation_draws_the_same_in_every_epoch(folder):
    loader = ClipLoader(_dataset(folder), 4, shuffle=False)
    _assert_same(_content(loader.epoch(0)), _content(loader.epoch(7)))


def test_uniform_views_show_the_frames_of_their_times(folder):
    transform = FixedTransform(crop_size=48, short_side=48)
    views = UniformViews(
        transform=transform, num_frames=4, sampling_rate=2, num_views=3, use_offset=True
    )
    sample = _dataset(folder, views)[SampleKey(0, 0)]
    assert sample.clips.shape == (3, 4, 48, 48, 3)
    with open_video(folder / "0.mp4") as video:
        frames = video.frames(range(24))
    assert list(read_numbers(frames)) == list(range(24))
    # 24 frames, a span of 8: the views start at 0, 8 and 16, and go 0, 2.33, 4.67, 7.
    expected = np.array([[0, 2, 4, 7], [8, 10, 12, 15], [16, 18, 20, 23]])
    for clip, numbers in zip(sample.clips, expected, strict=True):
        assert clip.equal(transform(torch.from_numpy(frames[numbers]))[0])


def test_a_clip_that_does_not_fit_into_memory_is_lost(folder, monkeypatch):
    view = _random_view()
    monkeypatch.setattr(RandomView, "load", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    (lost,) = _dataset(folder, view)[SampleKey(0, 3)].lost
    assert (lost.row, lost.reason) == (3, "a clip does not fit into memory")
    monkeypatch.setattr(RandomView, "load", lambda *_: torch.empty(2).view(3))
    with pytest.raises(RuntimeError, match="shape"):
        _dataset(folder, view)[SampleKey(0, 3)]


def test_training_replaces_a_lost_video_and_tells_it(broken_folder):
    dataset = _dataset(broken_folder, seed=1, replace_lost=True)
    sample = dataset[SampleKey(0, 2)]
    assert len(sample.clips) == 1
    assert sample.row != 2
    assert sample.label == sample.row % 3
    # The draw of a replacement may hit the same row again before another.
    assert {lost.row for lost in sample.lost} == {2}
    assert sample.lost[0].path.endswith("2.mp4")
    again = dataset[SampleKey(0, 2)]
    assert again.row == sample.row
    assert again.clips.equal(sample.clips)


def test_evaluation_replaces_nothing(broken_folder):
    loader = ClipLoader(_dataset(broken_folder), 4, shuffle=False)
    batches = list(loader.epoch(0))
    rows = [row for batch in batches for row in batch.index.tolist()]
    assert rows == [0, 1, 3, 4, 5, 6, 7]
    assert [lost.row for batch in batches for lost in batch.lost] == [2]


def test_a_list_of_nothing_but_broken_files_ends_with_an_error(broken_folder):
    for number in range(NUM_VIDEOS):
        path = broken_folder / f"{number}.mp4"
        path.unlink()
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"list\.csv: 21 videos in a row can't be decoded"):
        _dataset(broken_folder, replace_lost=True)[SampleKey(0, 0)]


def test_a_list_shorter_than_a_batch_is_refused(folder):
    with pytest.raises(ValueError, match=r"at least 9 videos, .*TRAIN\.BATCH_SIZE.*, got 8"):
        ClipLoader(_dataset(folder), 9, shuffle=True)
