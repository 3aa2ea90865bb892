"""Models of the published experiment files: names, shapes, blocks; outputs of some (slow)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_rule import (
    GOLDEN,
    fill_with_golden_weights,
    golden_json,
    golden_npz,
    golden_randn,
    relative_error,
    sample_by_step,
)
from torch import nn

from slowfast_maskfeat.build.model import build_model
from slowfast_maskfeat.config.load import parse_config

NAMES = sorted(path.stem for path in (GOLDEN / "models").glob("*.json"))
OUTPUTS = sorted(path.stem for path in (GOLDEN / "outputs").glob("*.json"))
ROOMS = ("DATA.NUM_FRAMES", "DATA.TRAIN_CROP_SIZE", "MODEL.", "MVIT.", "MASK.")


def published_config(name: str, **overrides: Any) -> Any:
    """The configuration of a published file, what concerns the model."""
    experiment = golden_json(f"models/{name}.json")["config"]
    values = golden_json("published_configs.json")["files"][experiment]["values"]
    values = {k: v for k, v in values.items() if k.startswith(ROOMS)} | overrides
    return parse_config(json.dumps(values), name)


def published_model(name: str, **overrides: Any) -> nn.Module:
    return build_model(published_config(name, **overrides))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_blocks_are_the_published_ones(name: str) -> None:
    expected = golden_json(f"models/{name}.json")
    with torch.device("meta"):
        model = published_model(name)
    shapes = {n: list(s) for n, s in expected["state"] if not n.startswith("hogs.")}
    assert {n: list(t.shape) for n, t in model.state_dict().items()} == shapes
    assert sum(p.numel() for p in model.parameters()) == expected["param_count"]
    assert list(model.patch_grid(model.options.clip_size)) == expected["patch_dims"]
    for geometry, block in zip(model.geometries, expected["blocks"], strict=True):
        assert geometry.dim == block["dim"]
        assert geometry.dim_out == block["dim_out"]
        assert geometry.attention_dim == block["att_dim"]
        assert geometry.num_heads == block["heads"]
        assert list(geometry.stride_q or []) == block["stride_q"]
        assert list(geometry.stride_kv or []) == block["stride_kv"]
        assert list(geometry.kernel_q or []) == (block["kernel_q"] if block["q_pool"] else [])
        assert list(geometry.kernel_kv or []) == (block["kernel_kv"] if block["kv_pool"] else [])
        assert geometry.drop_path == block["drop_path"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OUTPUTS)
def test_full_size_outputs_agree_with_reference(name: str) -> None:
    expected, arrays = golden_json(f"outputs/{name}.json"), golden_npz(f"outputs/{name}.npz")
    model = fill_with_golden_weights(published_model(name)).eval()
    clips = golden_randn(1000, tuple(expected["input_shape"]))
    clips = clips.unsqueeze(2) if clips.ndim == 4 else clips
    with torch.no_grad():
        if "logits" in arrays:
            assert relative_error(model(clips), arrays["logits"]) < 1e-4
            return
        shape = tuple(expected["mask_shape"])
        generator = np.random.Generator(np.random.PCG64(expected["mask_seed"]))
        mask = torch.from_numpy(generator.random(shape) < 0.4)
        mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
        (prediction,) = model(clips, mask)
    assert list(prediction.shape) == expected["pred0"]["shape"]
    assert float(prediction.double().norm()) == pytest.approx(expected["pred0"]["norm"], rel=1e-5)
    sample = sample_by_step(prediction, expected["pred0_stride"])
    assert relative_error(sample, arrays["pred0_sample"]) < 1e-4


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(golden_json("init_stats.json")["rows"]) & set(NAMES)))
def test_initial_weights_have_the_published_statistics(name: str) -> None:
    torch.manual_seed(0)
    model = published_model(name)
    state = model.state_dict()
    for entry, shape, mean, std, largest in golden_json("init_stats.json")["rows"][name]:
        tensor = state[entry].double()
        assert list(tensor.shape) == shape, entry
        # Of n normal draws the mean has the error std / sqrt(n), the std std / sqrt(2 n).
        slack = 6.0 / np.sqrt(tensor.numel())
        deviation = float(tensor.std()) if tensor.numel() > 1 else 0.0
        assert float(tensor.mean()) == pytest.approx(mean, abs=1.5 * slack * std + 1e-6), entry
        assert deviation == pytest.approx(std, rel=1.5 * slack, abs=1.5e-6), entry
        assert float(tensor.abs().max()) == pytest.approx(largest, rel=0.5, abs=1e-6), entry
