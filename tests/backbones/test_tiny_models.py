"""Every tiny golden model: names, features, outputs, losses and gradients of the reference."""

from __future__ import annotations

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
    strided_sample,
)
from helpers.tiny_cases import model_of, tiny_options
from torch import Tensor, nn
from torch.nn import functional as F

NAMES = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.json"))
CLASSIFIERS = [name for name in NAMES if not name.startswith(("pt_", "mae_", "ava_"))]
DETECTORS = [name for name in NAMES if name.startswith("ava_")]
# In float32 rounding decides ties of max pooling now and then, otherwise from processor to
# processor, and one such tie moves a gradient by 1e-4. So gradients are held in float64.
EXACT = {"of_all": 1e-5, "of_each": 1e-5}
MASKED = [name for name in NAMES if name.startswith(("pt_", "mae_"))]


def tiny_model(name: str) -> nn.Module:
    """The golden model of that name with the golden weights, in evaluation mode."""
    if name == "vid_vit_sincos":
        twice = tiny_options(name, MVIT__SINCOS_POS_TWICE=True)
        return fill_with_golden_weights(model_of(twice), keep=("pos_embed",)).eval()
    return fill_with_golden_weights(model_of(tiny_options(name))).eval()


def tiny_clips(name: str) -> Tensor:
    """Its input (B, C, T, H, W); images get T = 1."""
    clips = golden_randn(1000, tuple(golden_json(f"tiny/{name}.json")["input_shape"]))
    return clips.unsqueeze(2) if clips.ndim == 4 else clips


def tiny_mask(name: str) -> Tensor:
    """Its mask (B, t, h, w)."""
    case = golden_json(f"tiny/{name}.json")
    return golden_mask(case, ratio=case["options"].get("AUG.MASK_RATIO", 0.0), grid=(4, 4, 4))


def total_gradient(model: nn.Module) -> float:
    """2-norm of all gradients together."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.stack([g.double().norm() for g in gradients]).norm())


def check_features(features: dict[str, Tensor], name: str) -> None:
    """Compares a sample of each block's tokens."""
    case = golden_json(f"tiny/{name}.json")
    expected = case["feats"]
    arrays = golden_npz(f"tiny/{name}.npz")
    assert len(features) == len(expected) - 1  # the other is patch_embed
    for key, tokens in features.items():
        if name.startswith("mae_"):
            tokens = in_published_order(tokens, case, case["options"]["AUG.MASK_RATIO"])
        assert list(tokens.shape) == expected[key]["shape"], key
        sample = sample_by_step(tokens, expected[key]["stride"])
        assert relative_error(sample, arrays[f"feat/{key}/sample"]) < 1e-4, key


@pytest.mark.parametrize("name", CLASSIFIERS + DETECTORS + MASKED)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    expected = {
        entry: shape
        for entry, shape in golden_json(f"tiny/{name}.json")["state"]
        if not entry.startswith("hogs.")
    }
    model = tiny_model(name)
    assert {n: list(t.shape) for n, t in model.state_dict().items()} == expected
    count = golden_json(f"tiny/{name}.json")["param_count"]
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_agrees_with_reference(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model, clips = tiny_model(name), tiny_clips(name)
    features = recorded_features(model)
    logits = model(clips)
    check_features(features, name)
    assert relative_error(logits.detach(), arrays["logits"]) < 1e-5
    target = soft_target(*logits.shape)
    loss = -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    loss.backward()
    assert total_gradient(model) == pytest.approx(expected["grad_total_norm"], rel=1e-4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_agrees_in_float64(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model = tiny_model(name).double()
    logits = model(tiny_clips(name).double())
    assert relative_error(logits.detach(), arrays["logits_fp64"]) < 1e-8
    target = soft_target(*logits.shape).double()
    (-(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()).backward()
    check_gradients(model, expected, arrays, **EXACT)


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_agrees_with_reference(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model = tiny_model(name)
    features = recorded_features(model)
    logits = model(tiny_clips(name), torch.from_numpy(arrays["boxes"]))
    check_features(features, name)
    assert relative_error(logits.detach(), arrays["logits"]) < 1e-5
    assert relative_error(logits.detach().sigmoid(), arrays["probs"]) < 1e-5
    target = np.random.Generator(np.random.PCG64(11)).random(logits.shape) < 0.05
    assert np.array_equal(target, arrays["target"])
    # The published loss is of probabilities, without the care that logits allow.
    loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(target).float())
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    loss.backward()
    assert total_gradient(model) == pytest.approx(expected["grad_total_norm"], rel=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_agrees_in_float64(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model = tiny_model(name).double()
    logits = model(tiny_clips(name).double(), torch.from_numpy(arrays["boxes"]).double())
    assert relative_error(logits.detach(), arrays["logits_fp64"]) < 1e-8
    target = torch.from_numpy(arrays["target"]).double()
    F.binary_cross_entropy_with_logits(logits, target).backward()
    check_gradients(model, expected, arrays, **EXACT)


@pytest.mark.parametrize("name", MASKED)
def test_masked_model_agrees_with_reference(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model, clips, mask = tiny_model(name), tiny_clips(name), tiny_mask(name)
    features = recorded_features(model)
    (prediction,) = model(clips, mask)
    check_features(features, name)
    sample = strided_sample(prediction, 4096)
    assert relative_error(sample, arrays["pred0_sample_fp64"]) < 1e-5
    loss = (prediction - torch.from_numpy(arrays["label0"])).square().mean()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)
    loss.backward()
    assert total_gradient(model) == pytest.approx(expected["grad_total_norm"], rel=1e-4)


@pytest.mark.parametrize("name", MASKED)
def test_masked_model_agrees_in_float64(name: str) -> None:
    expected, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    model = tiny_model(name).double()
    (prediction,) = model(tiny_clips(name).double(), tiny_mask(name))
    sample = strided_sample(prediction, 4096)
    assert relative_error(sample, arrays["pred0_sample_fp64"]) < 1e-8
    (prediction - torch.from_numpy(arrays["label0"])).square().mean().backward()
    check_gradients(model, expected, arrays, **EXACT)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CLASSIFIERS + DETECTORS + MASKED)
def test_a_gpu_gives_the_same(name: str) -> None:
    """Float32 as the CPU, bf16 near it, and a gradient for every parameter that has one."""
    arrays = golden_npz(f"tiny/{name}.npz")
    model, inputs = tiny_model(name).cuda(), [tiny_clips(name).cuda()]
    if name in DETECTORS:
        inputs.append(torch.from_numpy(arrays["boxes"]).cuda())
    if name in MASKED:
        inputs.append(tiny_mask(name).cuda())

    def error(output: Tensor) -> float:
        output = output.detach().float().cpu()
        if name in MASKED:
            return relative_error(strided_sample(output, 4096), arrays["pred0_sample_fp64"])
        return relative_error(output, arrays["logits"])

    def run() -> Tensor:
        output = model(*inputs)
        return output[0] if name in MASKED else output

    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        output = run()
        assert error(output) < 1e-4
        output.square().sum().backward()
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        assert error(run()) < 0.1
