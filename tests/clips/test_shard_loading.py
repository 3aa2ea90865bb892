"""Clips out of tar shards: the same whatever loads them, and lost ones counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.tar_shards import write_shard
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.augment import TrainTransform
from slowfast_maskfeat.clips import ClipDataset, ClipLoader, RandomFrames, RandomView
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.datasets import DataFolder, Shards, read_list, read_webdataset
from slowfast_maskfeat.videos.decode import available_backends
from slowfast_maskfeat.videos.decode_options import DecodeOptions

NUM_VIDEOS, PER_SHARD = 24, 5
DECODERS = [name for name, note in available_backends().items() if "absent" not in note]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same videos as files with a list, and in shards."""
    path = tmp_path_factory.mktemp("shards")
    members: dict[str, bytes] = {}
    for number in range(NUM_VIDEOS):
        video = write_video(path / f"{number}.mp4", numbered_frames(24 + number), fps=30)
        members |= {f"{number}.mp4": video.read_bytes(), f"{number}.cls": f"{number % 3}".encode()}
        if (number + 1) % PER_SHARD == 0 or number + 1 == NUM_VIDEOS:
            write_shard(path / "shards" / f"train-{number // PER_SHARD}.tar", members)
            members = {}
    (path / "list.csv").write_text("".join(f"{n}.mp4 {n % 3}\n" for n in range(NUM_VIDEOS)))
    return path


def _view():
    transform = TrainTransform(crop_size=32, area=(0.5, 1.0))
    return RandomView(transform=transform, num_frames=4, temporal=RandomFrames(sampling_rate=2))


def _draw_mask(generator):
    return torch.from_numpy(generator.random((2, 2, 2)) < 0.5)


def _dataset(folder, **options):
    data = DataFolder(str(folder / "shards"), shards=Shards(buffer=7))
    videos = read_webdataset(data, "train")
    return ClipDataset(videos, _view(), mask_samplers=[_draw_mask], seed=1, **options)


def _loader(dataset, **options):
    return ClipLoader(dataset, 8, shuffle=True, seed=5, **options)


def _content(batches):
    return [(b.index.tolist(), b.labels.tolist(), b.clips.clone(), b.mask.clone()) for b in batches]


def _assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one[:2] == other[:2]
        assert one[2].equal(other[2])
        assert one[3].equal(other[3])


@pytest.mark.parametrize("decoder", DECODERS)
def test_clips_are_those_of_the_files(folder, decoder):
    shards = _dataset(folder, decoding=DecodeOptions(backend=decoder))
    videos = read_list(folder / "list.csv", prefix=str(folder))
    files = ClipDataset(
        videos, _view(), mask_samplers=[_draw_mask], seed=1, decoding=DecodeOptions(backend=decoder)
    )
    for row in range(NUM_VIDEOS):
        one, other = shards[SampleKey(2, row)], files[SampleKey(2, row)]
        assert one.clips.equal(other.clips)
        assert one.label == other.label


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_depend_neither_on_workers_nor_on_where_an_epoch_goes_on(folder):
    expected = _content(_loader(_dataset(folder)).epoch(3))
    assert len({row for index, *_ in expected for row in index}) == NUM_VIDEOS
    for num_workers in (1, 4):
        loader = _loader(_dataset(folder), num_workers=num_workers)
        _assert_same(_content(loader.epoch(3)), expected)
        _assert_same(_content(loader.epoch(3, first_batch=2)), expected[2:])
    # Opened shards do not outlive the fork of a worker.
    dataset = _dataset(folder)
    assert dataset[SampleKey(0, 3)].clips.any()
    _assert_same(_content(_loader(dataset, num_workers=2).epoch(3)), expected)


def test_processes_share_the_batch_that_one_would_have_made(folder):
    whole = _content(_loader(_dataset(folder)).epoch(0))
    parts = [_content(_loader(_dataset(folder), rank=rank, world=2).epoch(0)) for rank in (0, 1)]
    for step, (index, labels, clips, masks) in enumerate(whole):
        for part, rows in zip(parts, ([0, 2, 5, 7], [1, 3, 4, 6]), strict=True):
            mine = part[step]
            assert mine[0] == [index[row] for row in rows]
            assert mine[1] == [labels[row] for row in rows]
            assert mine[2].equal(clips[rows])
            assert mine[3].equal(masks[rows])


def test_what_is_lost_in_a_shard_is_counted_and_named(folder):
    dataset = _dataset(folder)
    shard = folder / "shards" / "train-1.tar"
    whole = shard.read_bytes()
    place = whole.index(b"ftyp", int(dataset.videos._offsets[6]))
    try:
        shard.write_bytes(whole[: place - 4] + b"no video at all" * 200 + whole[place + 2996 :])
        batches = list(ClipLoader(dataset, 8, shuffle=False).epoch(0))
        (lost,) = [lost for batch in batches for lost in batch.lost]
        assert (lost.row, lost.path) == (6, f"{shard}/6.mp4")
        assert "cannot be opened as a video" in lost.reason
        assert sum(map(len, batches)) == NUM_VIDEOS - 1
        shard.unlink()
        dataset = ClipDataset(dataset.videos, _view(), seed=1, replace_lost=True)
        batches = list(_loader(dataset, num_workers=1).epoch(0))
        lost = {lost.row: lost.is_missing for batch in batches for lost in batch.lost}
        assert lost == dict.fromkeys(range(5, 10), True)
        assert sum(map(len, batches)) == NUM_VIDEOS  # others are in their places
    finally:
        shard.write_bytes(whole)
    assert np.array_equal(dataset.videos.labels, np.arange(NUM_VIDEOS) % 3)
