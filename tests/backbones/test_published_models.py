"""Models of the published experiment files: names, shapes, blocks; outputs of some (slow)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_rule import (
    GOLDEN,
    check_gradients,
    fill_with_golden_weights,
    golden_json,
    golden_mask,
    golden_npz,
    golden_randn,
    in_published_order,
    recorded_features,
    relative_error,
    sample_by_step,
    soft_target,
)
from helpers.published_files import published_config
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.task import build_targets
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.losses import soft_cross_entropy
from slowfast_maskfeat.tasks.masked_prediction import masked_rows

NAMES = sorted(path.stem for path in (GOLDEN / "models").glob("*.json"))
OUTPUTS = sorted(path.stem for path in (GOLDEN / "outputs").glob("*.json"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_blocks_are_the_published_ones(name: str) -> None:
    expected = golden_json(f"models/{name}.json")
    with torch.device("meta"):
        model = build_model(published_config(name))
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
    """Tokens after each block, outputs, loss; gradients where there are some."""
    expected, arrays = golden_json(f"outputs/{name}.json"), golden_npz(f"outputs/{name}.npz")
    cfg = published_config(name)
    model = fill_with_golden_weights(build_model(cfg)).eval()
    clips = golden_randn(1000, tuple(expected["input_shape"]))
    clips = clips.unsqueeze(2) if clips.ndim == 4 else clips
    features = recorded_features(model)
    with torch.set_grad_enabled("grad_norm" in expected):
        if "logits" in arrays:
            loss = _classify(model, clips, arrays)
        else:
            loss = _predict(model, clips, cfg, expected, arrays)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-4)
    assert len(features) == len(expected["feats"]) - 1  # the other is patch_embed
    for key, tokens in features.items():
        if cfg.MASK.MAE_ON:
            tokens = in_published_order(tokens, expected, cfg.AUG.MASK_RATIO)
        assert list(tokens.shape) == expected["feats"][key]["shape"], key
        sample = sample_by_step(tokens, expected["feats"][key]["stride"])
        assert relative_error(sample, arrays[f"feat/{key}/sample"]) < 1e-4, key
    if "grad_norm" in expected:
        loss.backward()
        # Max pooling sends a gradient to the largest token, and float32 decides close calls by
        # rounding, differently on each processor: up to 3e-3 of a sample, as much as float64
        # differs from these float32 goldens. The small models agree to 1e-5.
        check_gradients(model, expected, arrays, of_all=1e-4, of_each=1e-3, of_samples=5e-3)


def _classify(model: nn.Module, clips: Tensor, arrays: dict[str, Any]) -> Tensor:
    """Compares the logits; returns the published loss."""
    if "boxes" in arrays:
        logits = model(clips, torch.from_numpy(arrays["boxes"]))
        target = torch.from_numpy(arrays["target"]).float()
        loss = F.binary_cross_entropy_with_logits(logits, target)
    else:
        logits = model(clips)
        loss = soft_cross_entropy(logits, soft_target(*logits.shape)).mean()
    assert relative_error(logits.detach(), arrays["logits"]) < 1e-4
    return loss


def _predict(
    model: nn.Module, clips: Tensor, cfg: Any, expected: dict[str, Any], arrays: dict[str, Any]
) -> Tensor:
    """Compares predictions and labels; returns the published loss."""
    grid = model.patch_grid(model.options.clip_size)
    mask = golden_mask(expected, ratio=cfg.AUG.MASK_RATIO, grid=grid)
    (prediction,) = model(clips, mask)
    assert list(prediction.shape) == expected["pred0"]["shape"]
    assert float(prediction.double().norm()) == pytest.approx(expected["pred0"]["norm"], rel=1e-5)
    sample = sample_by_step(prediction, expected["pred0_stride"])
    assert relative_error(sample, arrays["pred0_sample"]) < 1e-4
    (target,), (predicted,) = build_targets(cfg), model.prediction_grids(clips.shape[2:])
    labels = masked_rows(target, ClipBatch(clips, mask=mask), predicted)
    sample = sample_by_step(labels, expected["label0_stride"])
    assert relative_error(sample, arrays["label0_sample"]) < 1e-4
    return target.loss(prediction, labels).mean()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(golden_json("init_stats.json")["rows"]))
def test_initial_weights_have_the_published_statistics(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(published_config(name))
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
