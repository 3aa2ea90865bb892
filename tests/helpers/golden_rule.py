"""The golden rule: weights, inputs and samples that the golden numbers were made with.

Weights follow from name and shape alone, inputs from a seed, so that tests need only the results.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_array(name: str, seed_prefix: str = "", *, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of the entry `name` of a state dict, float32."""
    seed = zlib.crc32((seed_prefix + name).encode())
    normal = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    last = name.rpartition(".")[2]
    if "rel_pos" in last or "pos_embed" in last or last.endswith("_token"):
        return normal * np.float32(0.5)
    if len(shape) >= 2:
        return normal * np.float32(1.0 / np.sqrt(np.float64(np.prod(shape[1:]))))
    if last == "weight":
        return np.float32(1) + np.float32(0.1) * normal
    return np.float32(0.1) * normal


def fill_with_golden_weights(
    model: nn.Module, *, keep: tuple[str, ...] = (), seed_prefix: str = ""
) -> nn.Module:
    """Fills every floating entry of the state dict, `keep` excepted; returns the model."""
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and name not in keep:
            array = golden_array(name, seed_prefix, shape=tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(array))
    return model


def golden_randn(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal input, float32."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def golden_visible(case: Any, ratio: float) -> np.ndarray:
    """Places that random masking leaves visible in a golden case, (B, V), in the published order.

    They are those of the smallest noise, in the order of the noise.
    """
    generator = np.random.Generator(np.random.PCG64(case["noise_seed"]))
    noise = generator.random(case["noise_shape"], dtype=np.float32)
    return noise.argsort(axis=1)[:, : int(noise.shape[1] * (1 - ratio))]


def golden_mask(case: Any, *, ratio: float, grid: tuple[int, ...]) -> Tensor:
    """Mask (B, t, h, w) of a golden case; `ratio` and `grid` matter to random masking only."""
    if "noise_shape" in case:
        mask = np.ones(case["noise_shape"], dtype=bool)
        np.put_along_axis(mask, golden_visible(case, ratio), False, axis=1)
        return torch.from_numpy(mask).unflatten(1, tuple(grid))
    generator = np.random.Generator(np.random.PCG64(case["mask_seed"]))
    mask = generator.random(tuple(case["mask_shape"])) < 0.4
    return torch.from_numpy(mask if mask.ndim == 4 else mask[:, None])


def in_published_order(tokens: Tensor, case: Any, ratio: float) -> Tensor:
    """Visible tokens (B, 1 + V, D) in the order of the noise that chose them; here they ascend."""
    visible = golden_visible(case, ratio)
    places = torch.from_numpy(visible.argsort(axis=1).argsort(axis=1) + 1)
    return torch.cat((tokens[:, :1], tokens.take_along_dim(places[..., None], dim=1)), dim=1)


def soft_target(batch: int, num_classes: int) -> Tensor:
    """What golden classification losses aim at, (B, K)."""
    target = torch.full((batch, num_classes), 0.1 / num_classes)
    for b in range(batch):
        target[b, (3 + 11 * b) % num_classes] += 0.63
        target[b, (7 + 13 * b) % num_classes] += 0.27
    return target


def recorded_features(model: nn.Module) -> dict[str, Tensor]:
    """A dict that the next run of the model fills with the tokens after each block."""
    features: dict[str, Tensor] = {}
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(
            lambda module, args, out, key=f"block{i}": features.__setitem__(key, out[0].detach())
        )
    return features


def strided_sample(tensor: Tensor, size: int = 1024) -> Tensor:
    """Every so many-th number of a tensor in C order: an odd step of about numel / size."""
    flat = tensor.detach().flatten()
    step = max(flat.numel() // size, 1)
    return flat[:: step + (step % 2 == 0)]


def sample_by_step(tensor: Tensor, step: int) -> Tensor:
    """Every `step`-th number of a tensor in C order."""
    return tensor.detach().flatten()[::step]


@cache
def golden_json(name: str) -> Any:
    """A golden JSON file by its name below tests/golden."""
    return json.loads((GOLDEN / name).read_text())


def golden_npz(name: str) -> dict[str, np.ndarray]:
    """A golden npz file by its name below tests/golden."""
    with np.load(GOLDEN / name) as archive:
        return {key: archive[key] for key in archive.files}


@cache
def golden_parameter_groups() -> dict[str, Any]:
    """Facts of param_groups.json by recipe, with `rows` of name, group, scale and decay."""
    groups = {recipe: dict(facts) for recipe, facts in golden_json("param_groups.json").items()}
    for recipe, rows in golden_npz("param_groups.npz").items():
        groups[recipe]["rows"] = rows.tolist()
    return groups


def check_gradients(
    model: nn.Module,
    expected: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    of_all: float,
    of_each: float,
    of_samples: float | None = None,
) -> None:
    """Compares the gradients of a model: the norm of all, each norm, and samples of some.

    Args:
        model: After its backward pass.
        expected: Golden JSON with `grad_total_norm`, `grad_norm` and `grad_stride`.
        arrays: Golden arrays with the samples.
        of_all: Relative error that the norm of all together may have.
        of_each: Relative error that the norm of each may have.
        of_samples: Relative error that the sample of each may have; None for `of_each`.
    """
    total = expected["grad_total_norm"]
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    norms = {name: float(gradient.double().norm()) for name, gradient in gradients.items()}
    published = {name: norm for name, norm in expected["grad_norm"].items() if norm is not None}
    assert set(norms) == set(published)  # fixed sine positions have none
    assert np.linalg.norm(list(norms.values())) == pytest.approx(total, rel=of_all)
    for name, norm in published.items():
        # A shift of all keys changes next to nothing: what is left of its gradient is rounding.
        # Elsewhere both sides have the rounding of float32, which no order of operations repeats.
        noise = 1e-5 if name.endswith("norm_k.bias") else 2e-7
        assert norms[name] == pytest.approx(norm, rel=of_each, abs=noise * total), name
    for name, step in expected["grad_stride"].items():
        sample = arrays[f"grad/{name}/sample"]
        error = np.linalg.norm(sample_by_step(gradients[name], step).numpy() - sample)
        bound = of_each if of_samples is None else of_samples
        assert error < bound * np.linalg.norm(sample) + 1e-8 * total, name


def relative_error(result: Any, expected: Any) -> float:
    """2-norm of the difference over that of what is expected, in float64."""
    result = np.asarray(result, dtype=np.float64)
    expected = np.asarray(expected, dtype=np.float64)
    assert result.shape == expected.shape, (result.shape, expected.shape)
    return float(np.linalg.norm(result - expected) / max(np.linalg.norm(expected), 1e-30))
