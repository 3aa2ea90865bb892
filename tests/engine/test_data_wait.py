"""The bottleneck of loading, found from the times of its stages."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch

from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.clips.stage_times import StageTimes
from slowfast_maskfeat.config import default_config
from slowfast_maskfeat.engine.data_wait import data_bound
from slowfast_maskfeat.engine.reporter import Reporter
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.trackers import Trackers

DECODING = StageTimes(opening=1.0, decoding=12.0, augmentation=5.0, waiting=0.5)


@pytest.mark.parametrize(
    ("times", "num_workers", "num_cores", "bound", "text"),
    [
        (DECODING, 0, 8, "workers", "set DATA_LOADER.NUM_WORKERS"),
        (DECODING, 2, 8, "workers", "raise DATA_LOADER.NUM_WORKERS, 2 on 8 cores"),
        (DECODING, 2, 2, "decoding", "decoding takes 67% of the workers' time"),
        (DECODING, 8, 8, "workers", "raise DATA_LOADER.PREFETCH_FACTOR"),
        (StageTimes(opening=9.0, decoding=9.0, waiting=12.0), 2, 2, "disk", "67% of their time"),
        (StageTimes(opening=15.0, decoding=3.0), 2, 2, "opening", "DATA.TRAIN_SHARDS"),
        (StageTimes(opening=1.0, augmentation=17.0), 2, 2, "augmentation", "AUG.ON_DEVICE True"),
    ],
)
def test_the_bound_and_the_key_that_helps(times, num_workers, num_cores, bound, text):
    found, line = data_bound(times, 10.0, num_workers=num_workers, num_cores=num_cores)
    assert found == bound
    assert text in line
    assert "\n" not in line
    keys = {word.strip(",;()") for word in line.split() if "." in word and word[0].isupper()}
    cfg = default_config()
    assert all(
        section in cfg and key in cfg[section] for section, key in (k.split(".") for k in keys)
    )


def _reporter(path, stream, **options):
    return Reporter(EventLog(path), Trackers(), stream, 100, (), **options)


def test_a_period_that_waits_is_explained_once(tmp_path):
    """Not the first one, in which the workers start, nor one that waits little."""
    path, stream = tmp_path / "stats.jsonl", io.StringIO()
    reporter = _reporter(path, stream, num_workers=1)
    scaler = SimpleNamespace(is_enabled=lambda: False)
    state = SimpleNamespace(epoch=0, step=1, scaler=scaler)
    lost = SimpleNamespace(num_distinct=0)
    for waits in (True, True, True, False):
        batch = ClipBatch(
            torch.zeros(2, 3, 1, 4, 4), stages=StageTimes(opening=0.1, decoding=50.0, waiting=40.0)
        )
        if waits:
            with reporter.throughput.waiting():
                torch.linalg.svd(torch.rand(200, 200))
        else:
            torch.linalg.svd(torch.rand(200, 200))
        reporter.step(batch)
        reporter.window(state, {"loss": 1.0, "num_skipped": 0}, 0.1, lost)
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event.get("data_bound") for event in logged] == [None, "disk", "disk", None]
    assert all(event.get("rss_gib", event.get("memory_gib")) > 0 for event in logged)
    (line,) = [line for line in stream.getvalue().splitlines() if line.startswith("data wait")]
    assert "the workers wait for the disk or network 80% of their time" in line


def test_steps_after_the_last_period_of_an_epoch_do_not_count_in_the_next(tmp_path):
    path, stream = tmp_path / "stats.jsonl", io.StringIO()
    reporter = _reporter(path, stream, num_workers=1)
    state = SimpleNamespace(epoch=0, step=1, scaler=SimpleNamespace(is_enabled=lambda: False))
    lost = SimpleNamespace(num_distinct=0)
    reporter.window(state, {"loss": 1.0, "num_skipped": 0}, 0.1, lost)
    reporter.step(ClipBatch(torch.zeros(2, 3, 1, 4, 4), stages=StageTimes(decoding=100.0)))
    reporter.start_epoch(1, 2, 0)
    with reporter.throughput.waiting():
        torch.linalg.svd(torch.rand(200, 200))
    reporter.step(ClipBatch(torch.zeros(2, 3, 1, 4, 4), stages=StageTimes(opening=1.0)))
    reporter.window(state, {"loss": 1.0, "num_skipped": 0}, 0.1, lost)
    reporter.close()
    (line,) = [line for line in stream.getvalue().splitlines() if line.startswith("data wait")]
    assert "opening takes 100% of the workers' time" in line
