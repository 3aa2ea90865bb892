"""tools/benchmark.py compares like with like, and runs from end to end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.load_tool import load_tool, run_tool

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.videos.decode import open_video

benchmark, report, rendered, of_targets, steps = (
    load_tool(f"tools/benchmark{name}.py")
    for name in ("", "_report", "_video", "_targets", "_steps")
)
Row, Table = report.Row, report.Table
KEY_FRAME_DISTANCE = rendered.KEY_FRAME_DISTANCE
decode_by_hand, write_videos = rendered.decode_by_hand, rendered.write_videos
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    num_frames = KEY_FRAME_DISTANCE + 20
    return write_videos(folder, num_videos=1, num_frames=num_frames, size=(48, 64))[0]


def test_key_frames_are_far_apart_and_the_content_moves(video):
    with av.open(str(video)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, KEY_FRAME_DISTANCE]
    with open_video(video) as opened:
        frames = opened.frames([0, 30, 60]).astype(float)
    assert frames.std(axis=(1, 2)).min() > 10
    assert np.abs(np.diff(frames, axis=0)).mean() > 10


def test_decoding_by_hand_gives_the_same_frames(video):
    for first in (0, 3, 190, 249, 250, 251):
        indices = np.arange(first, min(first + 64, KEY_FRAME_DISTANCE + 20), 4)
        with open_video(video, "pyav") as opened:
            np.testing.assert_array_equal(
                decode_by_hand(str(video), indices), opened.frames(indices)
            )


def test_bare_decoding_takes_the_frames_of_the_loader(tmp_path):
    write_videos(tmp_path, num_videos=4, num_frames=40, size=(48, 64))
    options = benchmark.parse_arguments(["--quick"])
    loader = benchmark.loader_of(benchmark.read_config(options.config), tmp_path, 4, 0)
    view, taken = loader.dataset.views, []

    class Watch:
        kinds, reach = view.kinds, view.reach

        def load(self, row, generators):
            video, frames = row.video, row.video.frames

            def watched(indices):
                taken.append((video.path, list(indices)))
                return frames(indices)

            video.frames = watched
            return view.load(row, generators)

    plan = benchmark.frames_of_epoch(loader, 3)
    loader.dataset.views = Watch()
    list(loader.epoch(3))
    assert sorted(taken) == sorted((path, list(indices)) for path, indices in plan)


def test_fast_and_plain_forms_take_the_same_step():
    options = benchmark.parse_arguments(["--quick"])
    cfg = benchmark.read_config(options.config)
    batch = benchmark.make_batch(cfg, 2)
    losses, norms = [], []
    for form in (benchmark.FAST, benchmark.PLAIN):
        step = benchmark.make_step(cfg, form, batch, CPU, "float32")
        names, sums, result = step(0)
        assert names[0] == "loss"
        losses.append(float(sums[1] / sums[0]))
        norms.append(float(result.gradient_norm))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # HOG of noise has ties
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_the_encoder_is_given_all_tokens_and_the_rest_stays():
    file = benchmark.config_of(benchmark.parse_arguments(["--quick"]), "mae")
    cfg = benchmark.read_config(file)
    batch = benchmark.make_batch(cfg, 2)
    counts, shapes = {}, {}
    for form in benchmark.FORMS["mae"]:
        model = steps.make_state(cfg, form, CPU).bare
        blocks = {"encoder": model.blocks[0], "decoder": model.pred_head.transforms[0][0]}
        for part, block in blocks.items():
            key = form, part
            block.register_forward_pre_hook(
                lambda _, args, key=key: counts.__setitem__(key, args[0].shape[1])
            )
        (prediction,) = model(batch.clips.float(), batch.mask)
        shapes[form] = prediction.shape, sum(p.numel() for p in model.parameters())
    num_tokens = model.patch_grid(batch.clips.shape[2:]).num_tokens
    visible, everything = (counts[form, "encoder"] - 1 for form in benchmark.FORMS["mae"])
    assert (visible, everything) == (num_tokens - int(batch.mask[0].sum()), num_tokens)
    assert visible < 0.3 * num_tokens
    assert {counts[form, "decoder"] for form in benchmark.FORMS["mae"]} == {num_tokens + 1}
    assert shapes[benchmark.VISIBLE] == shapes[benchmark.ALL]


def test_steps_of_targets_differ_in_the_target_alone(tmp_path):
    options = benchmark.parse_arguments(["--quick"])
    file = benchmark.config_of(options, "targets")
    batch = benchmark.make_batch(benchmark.read_config(file), 2)
    targets, encoders, gradients = {}, set(), {}
    for form, pairs in of_targets.target_pairs(tmp_path, quick=True).items():
        cfg = benchmark.read_config(file, pairs)
        state = steps.make_state(cfg, form, CPU)
        targets[form] = type(state.task.targets[0]).__name__
        parameters = {n: p for n, p in state.bare.named_parameters() if "pred_head" not in n}
        encoders.add(tuple((name, tuple(p.shape)) for name, p in parameters.items()))
        names, _, result = benchmark.make_step(cfg, form, batch, CPU, "float32")(0)
        assert names[0] == "loss"
        gradients[form] = float(result.gradient_norm)
    assert targets == {
        "features": "FeatureTarget",
        "pseudo_labels": "PseudoLabelTarget",
        "tokens": "TokenTarget",
        "pixels": "PixelTarget",
        "hog": "HOGTarget",
    }
    assert len(encoders) == 1
    assert min(gradients.values()) > 0
    assert benchmark.FORMS["targets"] == tuple(targets)


def test_the_networks_of_targets_have_the_documented_size(tmp_path):
    """The teacher is a ViT-B of 1000 classes, and the tokenizer has a code for each token."""
    with torch.device("meta"):
        teacher, tokenizer = (
            build_model(load_config([str(path)], pairs))
            for path, pairs in (
                (of_targets.TEACHER, ["MODEL.NUM_CLASSES", str(of_targets.NUM_CLASSES)]),
                (of_targets.TOKENIZER, []),
            )
        )
    assert sum(p.numel() for p in teacher.parameters()) == 86_567_656  # timm's vit_base_patch16_224
    assert (tokenizer.num_codes, tokenizer.pixels_per_code) == (8192, 16)


def test_costs_are_ratios_to_the_last_row():
    slow, hog = Row("tokens", "s", [2.0, 6.0, 4.0]), Row("hog", "s", [1.0, 2.0, 4.0])
    ratios = Table("targets", "", [slow, hog], is_cost=True).ratios(slow)
    assert ratios == {"ratio": 2.0, "of_minima": 2.0}


def test_ratios_pair_the_rounds():
    fast, plain = Row("fast", "s", [1.0, 2.0, 4.0]), Row("plain", "s", [3.0, 4.0, 16.0])
    ratios = Table("hog", "", [fast, plain]).ratios(fast)
    assert ratios == {"ratio": 3.0, "of_minima": 3.0}
    fast.cpu, plain.cpu = [1.0, 1.0, 1.0], [2.0, 5.0, 3.0]
    assert Table("hog", "", [fast, plain]).ratios(fast)["of_cpu_time"] == 3.0


@pytest.mark.slow  # it starts processes that import torch
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")
def test_the_whole_run_at_tiny_sizes(tmp_path):
    target = tmp_path / "values.json"
    done = run_tool("tools/benchmark.py", "--quick", "--json", target)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("date")
    content = json.loads(target.read_text())
    assert content["machine"]["torch"] == str(torch.__version__)
    on_cpu = [table for table in content["tables"] if "cuda" not in table["title"]]
    sections = [table["section"] for table in on_cpu]
    assert sections == [
        "hog",
        "loader",
        "precision",
        "latency",
        *(s for s in ("step", "mae", "targets") for _ in range(2)),
    ]
    for table in on_cpu:
        assert f"{table['title']}" in lines
        assert all(min(row["values"]) > 0 for row in table["rows"])
        assert all(ratio["ratio"] > 0 for ratio in table["ratios"].values())
    names, units = ({} for _ in range(2))
    for table in on_cpu:
        names[table["section"]] = [row["name"] for row in table["rows"]]
        units.setdefault(table["section"], []).append(table["rows"][0]["unit"])
    assert names["loader"][-1] == "bare decoding"
    assert names["precision"] == ["bf16", "float32"]
    assert names["latency"] == ["onnxruntime", "torch, compiled", "torch"]
    assert names["mae"] == ["visible tokens", "all tokens"]
    assert names["targets"][-1] == "hog"
    assert units["precision"] == ["s"]
    assert units["step"] == units["mae"] == units["targets"] == ["s", "MiB"]
    assert list(content["traffic"]) == list(report.PHASES)
