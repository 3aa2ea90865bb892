"""Whole runs of tools/run_net.py on lists with a video that makes its decoder wait for ever."""

from __future__ import annotations

import sys

import pytest
from helpers.tiny_run import PRETRAINING, events, losses, make_videos, run

if sys.platform == "linux":
    from helpers.stalling import hanging_to_open, serve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="files that hang are Linux's"),
]

OPTIONS = {
    "DATA.DECODING_BACKEND": "pyav",
    "DATA.MAX_BAD_FRACTION": 0.1,
    "SOLVER.MAX_EPOCH": 1,
}
HUNG = "5.mp4"


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return make_videos(folder)


def _assert_went_on(done, output, path) -> None:
    assert done.returncode == 0, done.stderr
    assert sorted(losses(output)) == [1, 2, 3]
    assert [event["path"] for event in events(output, "lost")] == [path]
    assert f"can't decode {path}" in done.stderr
    assert [video["path"] for video in events(output, "validation")[-1]["lost"]] == [path]
    assert events(output, "validation")[-1]["num_decoded"] == 11


def test_a_run_ends_a_worker_that_hangs_and_goes_on(data, tmp_path):
    path, output = data / HUNG, tmp_path / "output"
    with hanging_to_open(path):
        done = run(
            data,
            output,
            PRETRAINING,
            OPTIONS,
            {"DATA_LOADER.NUM_WORKERS": 1, "DATA.DECODE_TIMEOUT": 6},
        )
    _assert_went_on(done, output, str(path))
    assert "DATA.DECODE_TIMEOUT" in events(output, "lost")[0]["reason"]


def test_a_run_without_workers_goes_on_when_a_server_stops_sending(data, tmp_path):
    output = tmp_path / "output"
    with serve(data, stalling=(HUNG,)) as address:
        rows = "".join(f"{address}/{number}.mp4 {number % 3}\n" for number in range(12))
        for split in ("train", "val"):
            (data / f"{split}.csv").write_text(rows)
        done = run(
            data,
            output,
            PRETRAINING,
            OPTIONS,
            {"DATA_LOADER.NUM_WORKERS": 0, "DATA.DECODE_TIMEOUT": 6, "TEST.ENABLE": False},
        )
        _assert_went_on(done, output, f"{address}/{HUNG}")
