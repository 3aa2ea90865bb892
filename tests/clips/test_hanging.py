"""Decoders that hang: the worker is ended, its video is lost, and every other clip is as ever."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from helpers.videos_on_disk import write_video

from slowfast_maskfeat.augment import TrainTransform
from slowfast_maskfeat.clips import ClipDataset, ClipLoader, RandomFrames, RandomView
from slowfast_maskfeat.clips.views import Generators, ViewClips, ViewKind
from slowfast_maskfeat.datasets import OpenedRow, read_list
from slowfast_maskfeat.videos.decode import StalledError, available_backends, open_video
from slowfast_maskfeat.videos.decode_options import DecodeOptions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files that hang are Linux's")

if sys.platform == "linux":
    from helpers.stalling import hanging_to_open, serve

NUM_VIDEOS = 10
HUNG = 4
TIMEOUT = 3.0
TEMPORAL = RandomFrames(sampling_rate=2)
BACKENDS = [name for name, note in available_backends().items() if "absent" not in note]


@pytest.fixture
def folder(tmp_path):
    """Videos of noise, so that their files are not small beside a read buffer."""
    random = np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        frames = random.integers(0, 256, (24, 64, 96, 3), dtype=np.uint8)
        write_video(
            tmp_path / f"{number}.mp4",
            frames,
            options={"crf": "1"},
            container_options={"movflags": "faststart"},
        )
    _write_list(tmp_path, str(tmp_path))
    return tmp_path


def _write_list(folder: Path, prefix: str) -> None:
    rows = "".join(f"{prefix}/{number}.mp4 {number % 3}\n" for number in range(NUM_VIDEOS))
    (folder / "list.csv").write_text(rows)


@dataclass(frozen=True)
class _Pausing:
    """Views that hang on one video: in C code that neither returns nor lets Python run."""

    view: RandomView
    reach: ClassVar[float] = 0.0

    @property
    def kinds(self) -> tuple[ViewKind, ...]:
        return self.view.kinds

    def load(self, row: OpenedRow, generators: Generators) -> tuple[ViewClips, ...]:
        if row.video.path.endswith(f"/{HUNG}.mp4"):
            ctypes.PyDLL(None).pause()  # PyDLL keeps the interpreter's lock
        return self.view.load(row, generators)


def _view() -> RandomView:
    transform = TrainTransform(crop_size=32, area=(0.5, 1.0))
    return RandomView(transform=transform, num_frames=4, temporal=TEMPORAL)


def _loader(folder: Path, *, training: bool, num_workers: int, **options) -> ClipLoader:
    views = options.pop("views", _view())
    batch_size = options.pop("batch_size", 2)
    decode_timeout = options.pop("decode_timeout", TIMEOUT)
    dataset = ClipDataset(
        read_list(folder / "list.csv"), views, seed=1, replace_lost=training, **options
    )
    return ClipLoader(
        dataset,
        batch_size,
        shuffle=training,
        seed=5,
        num_workers=num_workers,
        decode_timeout=decode_timeout,
    )


def _content(batches):
    return [
        (batch.clips.clone(), batch.index.tolist(), [lost[:2] for lost in batch.lost])
        for batch in batches
    ]


def _assert_same(first, second):
    assert [rest for _, *rest in first] == [rest for _, *rest in second]
    assert all(a[0].equal(b[0]) for a, b in zip(first, second, strict=True))


@pytest.fixture
def expected(folder):
    """Batches by (training, epoch) where the video is broken instead of hanging."""
    whole = (folder / f"{HUNG}.mp4").read_bytes()
    (folder / f"{HUNG}.mp4").write_text("this is no video")
    found = {
        (training, epoch): _content(_loader(folder, training=training, num_workers=0).epoch(epoch))
        for training in (True, False)
        for epoch in (0, 1)
    }
    (folder / f"{HUNG}.mp4").write_bytes(whole)
    for batches in found.values():
        assert [row for *_, lost in batches for row, _ in lost].count(HUNG) > 0
    return found


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("where", [*BACKENDS, "with-the-interpreter-locked"])
def test_a_worker_that_hangs_is_replaced(folder, expected, where, num_workers, training):
    path = folder / f"{HUNG}.mp4"
    options = (
        {"decoding": DecodeOptions(backend=where)}
        if where in BACKENDS
        else {"views": _Pausing(_view())}
    )
    with hanging_to_open(path) if where in BACKENDS else nullcontext():
        loader = _loader(folder, training=training, num_workers=num_workers, **options)
        start = time.monotonic()
        first = list(loader.epoch(0))
        first_seconds = time.monotonic() - start
        workers = {process.pid for process in multiprocessing.active_children()}
        second = list(loader.epoch(1))
    if where in ("pyav", "with-the-interpreter-locked"):  # the frames of another decoder differ
        _assert_same(_content(first), expected[training, 0])
        _assert_same(_content(second), expected[training, 1])
    for batches, epoch in ((first, 0), (second, 1)):
        rows = [batch.index.tolist() for batch in batches]
        assert rows == [index for _, index, _ in expected[training, epoch]]
    (lost,) = {lost for batch in (*first, *second) for lost in batch.lost}
    assert lost.row == HUNG
    assert lost.path == str(path)
    assert "DATA.DECODE_TIMEOUT" in lost.reason
    assert first_seconds > TIMEOUT
    assert len(workers) == num_workers
    # It is not tried again: no worker was ended for it and replaced.
    assert {process.pid for process in multiprocessing.active_children()} == workers
    del loader
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_epoch_that_is_gone_on_with_hangs_and_goes_on(folder, expected, num_workers):
    views = _Pausing(_view())
    loader = _loader(folder, training=True, num_workers=num_workers, views=views)
    _assert_same(_content(loader.epoch(0, first_batch=2)), expected[True, 0][2:])


@pytest.mark.slow
def test_an_epoch_that_was_broken_off_before_a_hang_does_not_block_the_next(folder, expected):
    loader = _loader(folder, training=False, num_workers=2, views=_Pausing(_view()))
    next(iter(loader.epoch(0)))  # the workers go on to the video that hangs
    time.sleep(0.5)
    _assert_same(_content(loader.epoch(1)), expected[False, 1])


def test_slow_videos_are_waited_for(folder):
    class Slow(RandomView):
        def load(self, row, generators):
            time.sleep(0.4)
            return super().load(row, generators)

    views = Slow(**_view().__dict__)
    loader = _loader(
        folder,
        training=False,
        num_workers=1,
        views=views,
        batch_size=NUM_VIDEOS,
        decode_timeout=2.0,
    )
    batches = list(loader.epoch(0))  # a batch takes longer than the limit, no video does
    assert [row for batch in batches for row in batch.index.tolist()] == list(range(NUM_VIDEOS))


def test_a_worker_that_fails_is_no_worker_that_hangs(folder):
    class Failing(RandomView):
        def load(self, row, generators):
            raise RuntimeError("of its own")

    views = Failing(**_view().__dict__)
    loader = _loader(folder, training=False, num_workers=1, views=views)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match="of its own"):
            list(loader.epoch(0))
        del loader
        assert not multiprocessing.active_children()  # and nothing is left to be ended later on
    finally:
        gc.enable()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_server_that_stops_sending_costs_one_video(folder, training, num_workers):
    with serve(folder, stalling=(f"{HUNG}.mp4",)) as address:
        _write_list(folder, address)
        loader = _loader(
            folder,
            training=training,
            num_workers=num_workers,
            # A busy machine would have to be so late twice in a row.
            decoding=DecodeOptions(backend="pyav", read_timeout=3.0),
            decode_timeout=60.0,  # the decoder itself is to give up
        )
        batches = list(loader.epoch(0))
    assert len(batches) == len(loader)
    lost = {lost for batch in batches for lost in batch.lost}
    assert {video.row for video in lost} == {HUNG}, lost
    (lost,) = lost
    assert lost.path == f"{address}/{HUNG}.mp4"
    assert "stalled" in lost.reason
    rows = [row for batch in batches for row in batch.index.tolist()]
    assert HUNG not in rows
    assert len(rows) == NUM_VIDEOS - (not training)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stall_that_passes_costs_no_video(folder, num_workers):
    decoding = DecodeOptions(backend="pyav", read_timeout=4.0)
    expected = _content(_loader(folder, training=True, num_workers=0, decoding=decoding).epoch(0))
    with serve(folder, stalling=(f"{HUNG}.mp4",), when=lambda count: count == 0) as address:
        _write_list(folder, address)
        loader = _loader(
            folder,
            training=True,
            num_workers=num_workers,
            decoding=decoding,
            decode_timeout=60.0,
        )
        start = time.monotonic()
        batches = list(loader.epoch(0))
        assert time.monotonic() - start > 4.0
    _assert_same(_content(batches), expected)
    assert not [lost for batch in batches for lost in batch.lost]


@pytest.mark.slow
def test_a_decoder_without_a_time_limit_is_ended_on_a_server_that_stops_sending(folder):
    if "decord" not in BACKENDS:
        pytest.skip("decord is absent")
    with serve(folder, stalling=(f"{HUNG}.mp4",)) as address:
        _write_list(folder, address)
        loader = _loader(
            folder, training=False, num_workers=1, decoding=DecodeOptions(backend="decord")
        )
        batches = list(loader.epoch(0))
    assert [lost.row for batch in batches for lost in batch.lost] == [HUNG]


# The first half of the file has half of the frames; in its first bytes not even a stream is named.
@pytest.mark.parametrize("share", [0.5, 0.0005])
def test_a_stall_is_never_taken_for_the_end_of_a_file(folder, share):
    with serve(folder, stalling=("0.mp4",), share=share) as address:
        with pytest.raises(StalledError, match="stalled"):
            open_video(f"{address}/0.mp4", "pyav", read_timeout=1.0)
        with open_video(f"{address}/1.mp4", "pyav", read_timeout=60.0) as video:
            whole = video.frames(range(24))
    with open_video(folder / "1.mp4", "pyav") as video:
        assert np.array_equal(video.frames(range(24)), whole)


def test_a_stall_while_seeking_ends(folder):
    frames = np.random.default_rng(0).integers(0, 256, (120, 64, 96, 3), dtype=np.uint8)
    write_video(folder / "long.ts", frames, options={"crf": "1", "g": "24"})
    opened = threading.Event()
    with serve(folder, stalling=("long.ts",), share=0.0, when=lambda _: opened.is_set()) as address:
        while True:
            try:
                video = open_video(f"{address}/long.ts", "pyav", read_timeout=0.3)
            except StalledError:
                continue  # a busy machine: opening is not what this test is about
            break
        with video:
            assert video.frames([0]).shape == (1, 64, 96, 3)
            opened.set()
            with pytest.raises(StalledError):
                video.frames([100])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_has_no_time_limit(folder, backend):
    """The clock also runs while a run is stopped, and its files are not to be lost for that."""
    with open_video(folder / "0.mp4", backend, read_timeout=1e-9) as video:
        assert video.frames([3, 20]).shape == (2, 64, 96, 3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_pipe_in_the_list_is_lost_without_waiting(folder, num_workers):
    path = folder / f"{HUNG}.mp4"
    half = path.read_bytes()[: path.stat().st_size // 2]
    path.unlink()
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # half of the bytes wait there, no more come
    try:
        os.write(pipe, half[: 1 << 15])
        loader = _loader(folder, training=False, num_workers=num_workers, decode_timeout=60.0)
        batches = list(loader.epoch(0))
    finally:
        os.close(pipe)
    (lost,) = (lost for batch in batches for lost in batch.lost)
    assert (lost.row, lost.path) == (HUNG, str(path))
    assert "not a regular file" in lost.reason
    shutil.rmtree(folder)
