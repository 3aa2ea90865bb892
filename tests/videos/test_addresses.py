"""Videos, images and lists at addresses that fsspec, iopath or HTTP opens."""

from __future__ import annotations

import os
import threading

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from helpers.stalling import serve
from helpers.videos_on_disk import numbered_frames, read_numbers, write_video
from PIL import Image

from slowfast_maskfeat.augment import TrainTransform
from slowfast_maskfeat.clips import ClipDataset, ClipLoader
from slowfast_maskfeat.clips.dataset import SampleKey
from slowfast_maskfeat.clips.temporal_sampling import RandomFrames
from slowfast_maskfeat.clips.views import RandomView
from slowfast_maskfeat.datasets import (
    DataFolder,
    read_class_names,
    read_kinetics,
    read_ssv2,
    ssv2_class_names,
)
from slowfast_maskfeat.videos.decode import DecodeError, available_backends, open_video
from slowfast_maskfeat.videos.video import MissingFileError

DECODERS = [name for name, note in available_backends().items() if "absent" not in note]


@pytest.fixture
def store():
    """A store in memory, with a video, an image and a file that is neither."""
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("addresses")
    write_video(folder / "a b.mp4", numbered_frames(30), bframes=2)
    Image.fromarray(numbered_frames(6)[5]).save(folder / "five.png")
    return folder


def test_there_are_decoders_to_try():
    assert "pyav" in DECODERS


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_video_in_a_store_is_that_on_disk(decoder, folder, store):
    store.pipe_file("/v/a b.mp4", (folder / "a b.mp4").read_bytes())
    with (
        open_video("memory://v/a b.mp4", decoder) as video,
        open_video(folder / "a b.mp4", decoder) as local,
    ):
        assert video.backend == decoder
        assert np.array_equal(video.timestamps, local.timestamps)
        assert read_numbers(video.frames([3, 29, 14])) == [3, 29, 14]
        assert np.array_equal(video.frames([7]), local.frames([7]))


def test_images_come_from_stores_and_servers(folder, store):
    store.pipe_file("/five.png", (folder / "five.png").read_bytes())
    with serve(folder) as address:
        for path in ("memory://five.png", f"{address}/five.png"):
            with open_video(path) as image:
                assert image.backend == "pillow"
                assert read_numbers(image.frames([0])) == [5]


def test_what_a_store_lacks_is_lost_and_what_nothing_opens_is_an_error(store, folder):
    store.pipe_file("/empty.mp4", b"")
    store.pipe_file("/text.mp4", b"no video at all")
    with pytest.raises(MissingFileError, match=r"memory://absent.mp4: no such file"):
        open_video("memory://absent.mp4")
    with pytest.raises(DecodeError, match="empty"):
        open_video("memory://empty.mp4")
    with pytest.raises(DecodeError, match="cannot be opened as a video"):
        open_video("memory://text.mp4")
    # A package that is not installed would lose every video alike.
    with pytest.raises(ValueError, match="s4:// can't be opened"):
        open_video("s4://bucket/a.mp4")
    with (
        serve(folder, stalling=("five.png",)) as address,
        pytest.raises(DecodeError, match=r"five.png: stalled: no data"),
    ):
        open_video(f"{address}/five.png", read_timeout=0.3)


def test_lists_and_class_names_lie_in_stores_too(store, folder):
    store.pipe_file("/lists/train.csv", "a b.mp4,1\nabsent.mp4,0\n".encode("utf-8-sig"))
    store.pipe_file("/lists/classes.txt", b"jump\r\nrun\r\n")
    store.pipe_file("/v/a b.mp4", (folder / "a b.mp4").read_bytes())
    data = DataFolder("memory://lists", prefix="memory://v", separator=",")
    names = read_class_names(data.path)
    assert names == ("jump", "run")
    videos = read_kinetics(data, "train", names)
    assert [videos.path(row) for row in range(2)] == ["memory://v/a b.mp4", "memory://v/absent.mp4"]
    with pytest.raises(ValueError, match=r"memory://lists/val.csv does not exist"):
        read_kinetics(data, "val", names)
    with serve(folder) as address:
        (folder / "val.csv").write_text("a b.mp4,1\n")
        listed = read_kinetics(DataFolder(address, prefix=address, separator=","), "val")
        assert listed.path(0) == f"{address}/a b.mp4"
    transform = TrainTransform(crop_size=32, area=(0.5, 1.0))
    dataset = ClipDataset(
        videos,
        RandomView(transform=transform, num_frames=4, temporal=RandomFrames(sampling_rate=2)),
    )
    assert dataset[SampleKey(0, 0)].clips.shape == (1, 4, 32, 32, 3)
    (lost,) = dataset[SampleKey(0, 1)].lost
    assert (lost.reason, lost.is_missing) == ("no such file", True)


class _HangingStore(MemoryFileSystem):
    """A store of which one file never comes."""

    protocol = "hanging"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("hanging://", "/"))

    def cat_file(self, path, start=None, end=None, **kwargs):
        if "never" in path:
            threading.Event().wait()
        return super().cat_file(path, start, end, **kwargs)


def test_a_store_that_hangs_costs_the_video_it_hangs_on(folder, tmp_path, store):
    fsspec.register_implementation("hanging", _HangingStore, clobber=True)
    content = (folder / "a b.mp4").read_bytes()
    names = ["0.mp4", "1.mp4", "never.mp4", "3.mp4"]
    store.pipe({f"/{name}": content for name in names})  # both have the same files
    (tmp_path / "train.csv").write_text("".join(f"{name} 0\n" for name in names))
    videos = read_kinetics(DataFolder(str(tmp_path), prefix="hanging://"), "train")
    transform = TrainTransform(crop_size=32, area=(0.5, 1.0))
    dataset = ClipDataset(
        videos,
        RandomView(transform=transform, num_frames=4, temporal=RandomFrames(sampling_rate=2)),
    )
    loader = ClipLoader(dataset, 2, shuffle=False, num_workers=1, decode_timeout=1.0)
    batches = list(loader.epoch(0))
    assert [row for batch in batches for row in batch.index.tolist()] == [0, 1, 3]
    (lost,) = [lost for batch in batches for lost in batch.lost]
    assert lost.path == "hanging://never.mp4"
    assert "the decoder hung" in lost.reason


def test_official_labels_lie_in_stores_too(store):
    store.pipe_file("/ssv2/labels/labels.json", b'{"Jumping something": "0"}')
    store.pipe_file("/ssv2/labels/train.json", b'[{"id": "8", "template": "Jumping [something]"}]')
    data = DataFolder("memory://ssv2", prefix="memory://webm")
    videos = read_ssv2(data, "train", ssv2_class_names(data))
    assert (videos.path(0), videos.labels.tolist()) == ("memory://webm/8.webm", [0])


def test_a_local_prefix_keeps_addresses_as_they_are(tmp_path):
    (tmp_path / "train.csv").write_text("http://host/a.mp4 0\nb.mp4 0\n")
    videos = read_kinetics(DataFolder(str(tmp_path), prefix="/data"), "train")
    assert [videos.path(0), videos.path(1)] == ["http://host/a.mp4", os.path.join("/data", "b.mp4")]
