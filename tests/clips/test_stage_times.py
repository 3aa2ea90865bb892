"""Times of the stages of loading, measured where the samples are loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from helpers.tiny_run import MODEL, PRETRAINING, make_videos, pairs

from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.clips.stage_times import StageTimes
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos.stopwatch import Stopwatch


def test_times_add_up():
    one = StageTimes(opening=1.0, decoding=2.0, augmentation=4.0, waiting=0.5)
    assert one + StageTimes() == one
    assert one + one == StageTimes(opening=2.0, decoding=4.0, augmentation=8.0, waiting=1.0)
    assert one.total == 7.0  # waiting is a part of opening and decoding


def test_a_stopwatch_tells_computing_from_waiting():
    watch = Stopwatch()
    with watch.running():
        time.sleep(0.2)
    assert watch.seconds >= 0.2
    assert watch.computing < 0.1
    assert watch.waiting >= 0.1


def compute_on_a_core_that_another_uses() -> Stopwatch:
    """Compute for 0.2 s, which takes longer."""
    watch, cores = Stopwatch(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # which its child inherits
    other = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with watch.running():
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
    finally:
        other.kill()
        other.communicate()
        os.sched_setaffinity(0, cores)
    return watch


@pytest.mark.skipif(
    not os.path.exists("/proc/thread-self/schedstat"), reason="the system does not say it"
)
def test_waiting_for_a_core_is_not_waiting_for_a_disk() -> None:
    watch = compute_on_a_core_that_another_uses()
    assert watch.computing >= 0.2
    assert watch.queued > 0.05
    assert watch.seconds - watch.computing > 0.05
    assert watch.waiting < 0.03


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_brings_the_times_of_its_samples(tmp_path, num_workers):
    make_videos(tmp_path, num_videos=4)
    options = {
        "DATA.PATH_TO_DATA_DIR": tmp_path,
        "TRAIN.BATCH_SIZE": 4,
        "DATA_LOADER.NUM_WORKERS": num_workers,
    }
    loader = build_loader(load_config([], pairs(MODEL, PRETRAINING, options)), "train")
    start = time.perf_counter()
    (batch,) = loader.epoch(0)
    seconds = time.perf_counter() - start
    times = batch.stages
    assert min(times.opening, times.decoding, times.augmentation) > 0
    assert 0 <= times.waiting <= times.opening + times.decoding
    assert times.total <= seconds
