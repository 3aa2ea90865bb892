"""The loading benchmark: it compares like with like, and its figures follow from its times."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.load_tool import load_tool, run_tool

from slowfast_maskfeat.builders.contrastive_views import contrastive_views
from slowfast_maskfeat.clips import MultiView
from slowfast_maskfeat.clips.dataset import SampleKey

benchmark = load_tool("tools/benchmark.py")
benchmark_data = load_tool("tools/benchmark_data.py")
benchmark_views = load_tool("tools/benchmark_views.py")
Row = load_tool("tools/benchmark_report.py").Row
write_videos = load_tool("tools/benchmark_video.py").write_videos


@pytest.fixture
def loader(tmp_path):
    write_videos(tmp_path, num_videos=4, num_frames=30, size=(48, 64))
    options = benchmark_data.parse_arguments(["--quick"])
    return benchmark.loader_of(benchmark.read_config(options.config), tmp_path, 4, 0, "pyav")


def test_bare_decoding_decodes_the_frames_of_the_loader(loader):
    taken = []

    class Watch:
        def __init__(self, views):
            self.views, self.kinds, self.reach = views, views.kinds, views.reach

        def load(self, row, generators):
            video, frames = row.video, row.video.frames

            def watched(indices):
                taken.append((video.path, list(indices)))
                return frames(indices)

            video.frames = watched
            return self.views.load(row, generators)

    views = loader.dataset.views
    wanted = []
    for form in (views, benchmark_data.BareDecoding(views)):
        loader.dataset.views = Watch(form)
        list(loader.epoch(2))
        wanted.append(taken[:])
        taken.clear()
    assert len(wanted[0]) == 4
    assert wanted[0] == wanted[1]


def test_the_stopwatch_changes_nothing_and_its_shares_add_up(loader):
    plain = loader.dataset[SampleKey(1, 2)]
    stopwatch = benchmark_data.Stopwatch()
    with stopwatch.watching(loader):
        watched = loader.dataset[SampleKey(1, 2)]
    assert watched.clips.equal(plain.clips)
    assert watched.mask.equal(plain.mask)
    split = stopwatch.split()
    assert sum(split.values()) == pytest.approx(1)
    assert {"open", "seek", "decode", "convert", "resize", "mask"} <= set(split)
    assert min(split.values()) >= 0
    before = dict(stopwatch.seconds)
    assert loader.dataset[SampleKey(1, 2)].clips.equal(plain.clips)
    assert dict(stopwatch.seconds) == before  # nothing is timed any more


def test_figures_follow_from_times():
    rows = {
        ("pyav", 0, "loader"): Row("", "s", [6.0, 6.0, 6.0], [4.0, 5.0, 4.0]),
        ("pyav", 0, "bare"): Row("", "s", [3.0, 3.0, 3.0], [3.0, 3.0, 3.0]),
        ("pyav", 1, "loader"): Row("", "s", [4.0, 4.0, 5.0]),
        ("pyav", 1, "bare"): Row("", "s", [3.0, 3.0, 3.0]),
        ("pyav", 2, "loader"): Row("", "s", [2.5, 2.5, 2.5]),
        ("pyav", 2, "bare"): Row("", "s", [1.5, 1.5, 1.5]),
        ("pyav", 2, "handed over"): Row("", "s", [1.6, 2.0, 2.0]),
    }
    none, one, two = benchmark_data.tabulate(rows, num_clips=20, batch=10, step_seconds=1.5)
    assert (none["of_bare_decoding"], none["of_bare_cpu_time"]) == (0.5, 0.75)
    assert one["clips_per_second"] == 5
    assert one["of_bare_decoding"] == 0.75
    assert "scaling" not in one
    assert one["wait"] == pytest.approx(0.25)  # 2 s to load a batch, of which 1.5 are computed in
    assert two["scaling"] == pytest.approx(1.6)
    assert two["scaling_of_bare_scaling"] == pytest.approx(0.8)
    assert two["handed_over_of_bare_decoding"] == 0.75
    assert two["wait"] == 0  # 1.25 s to load a batch
    assert np.isfinite([record["clips_per_second"] for record in (one, two)]).all()


@pytest.mark.parametrize("images", [True, False])
def test_the_crops_alone_are_those_of_all_views(images):
    options = benchmark_data.parse_arguments(["--quick"])
    cfg = benchmark_views.views_config(benchmark.read_config(options.config), images=images)
    specs = contrastive_views(cfg)
    alone = benchmark_views.crops_alone(specs)
    assert [(spec.count, number) for spec, number in alone] == [(1, 1), (1, 1), (1, 4)]
    sizes = [specs[0].crop_size] * 2 + [specs[1].crop_size]
    assert [spec.crop_size for spec, _ in alone] == sizes
    recipes = [*specs[0].colors, specs[1].augmentation.colors]
    assert [spec.augmentation.colors for spec, _ in alone] == recipes
    assert all(MultiView((spec,)).kinds[0].views_per_sample == 1 for spec, _ in alone)


def test_the_cost_of_views_follows_from_times():
    times = {"views": [3.0, 6.0, 9.0], "crop 0": [1.0, 1.0, 1.0], "crop 1": [1.0, 0.5, 1.0]}
    rows = {name: Row("", "s", values) for name, values in times.items()}
    counts = {"views": 0, "crop 0": 1, "crop 1": 4}
    ratio = benchmark_views._of_sum(rows, counts, lambda row: row.values)
    assert ratio == pytest.approx(9 / 5)  # of 3/5, 6/3 and 9/5


def test_the_views_at_tiny_sizes(tmp_path):
    target, num_threads = tmp_path / "values.json", torch.get_num_threads()
    try:
        words = ["--quick", "--only", "views", "--json", target]
        done = run_tool("tools/benchmark_data.py", *words)
    finally:
        torch.set_num_threads(num_threads)
    assert done.returncode == 0, done.stderr
    assert "cost of 2 + 4 views" in done.stdout
    records = json.loads(target.read_text())["views"]
    named = [(record["clips"], record["decoded_before"]) for record in records]
    assert named == [(c, d) for c in ("images", "videos") for d in (False, True)]
    assert all(record["of_crops"] > 0 and record["of_crops_cpu_time"] > 0 for record in records)


@pytest.mark.slow  # worker processes that import torch
def test_the_whole_run_at_tiny_sizes(tmp_path):
    target, num_threads = tmp_path / "values.json", torch.get_num_threads()
    try:
        words = ["--quick", "--workers", "0", "1", "2", "--step-seconds", "0.1", "--shards"]
        done = run_tool("tools/benchmark_data.py", *words, "--json", target)
    finally:
        torch.set_num_threads(num_threads)
    assert done.returncode == 0, done.stderr
    assert "share of the time per clip" in done.stdout
    content = json.loads(target.read_text())
    decoders = {record["decoder"] for record in content["rates"]}
    assert decoders == set(content["split"])
    assert len(content["rates"]) == 3 * len(decoders)
    assert len(content["shards"]) == 3 * len(decoders)
    assert all(record["of_files"] > 0 for record in content["shards"])
    for record in content["rates"]:
        assert 0 <= record["wait"] <= 1
        assert record["handed_over_of_bare_decoding"] > 0
    assert any(name.startswith("crop on") for name in content)
