"""Checks of the goldens of BEiT and of BEVT's masks, for tests/test_method_goldens.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.method_goldens import MethodGolden, numbers_in, pcg64, seed_offset
from torch import Tensor
from torch.nn.functional import cross_entropy

from slowfast_maskfeat.backbones import BlockOptions, EncoderOptions, MaskedMViT
from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import (
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)
from slowfast_maskfeat.masks import bevt_mask
from slowfast_maskfeat.schedules import learning_rate
from slowfast_maskfeat.shapes import Grid

_PATCH = 16  # of the goldens that do not say it
_GRID = Grid(1, 14, 14)
_FACTS = ModelFacts(grid=_GRID)


def beit_model(config: Mapping[str, Any], variant: Mapping[str, Any]) -> MaskedMViT:
    """The masked model with BEiT's settings, by the names of its code."""
    side, bias = config["patch_size"], ""
    if variant.get("use_rel_pos_bias"):
        bias = "block"
    if variant.get("use_shared_rel_pos_bias"):
        bias = "shared"
    options = EncoderOptions(
        clip_size=(1, *config["img_size"]),
        patch_kernel=(side, side),
        patch_stride=(side, side),
        patch_padding=(0, 0),
        width=config["embed_dim"],
        num_heads=config["num_heads"],
        depth=config["depth"],
        block=BlockOptions(
            mlp_ratio=config["mlp_ratio"],
            key_bias=False,
            position_bias=bias,
            layer_scale=variant["init_values"],
        ),
        absolute_positions=variant["use_abs_pos_emb"],
        decays_mask_token=True,
        initialization="beit",
    )
    last = config["depth"] - 1
    return MaskedMViT(options, prediction_depths=[last], prediction_dims=[config["vocab_size"]])


def variant_of(names: Iterable[str], scale: float) -> dict[str, Any]:
    """The kind of positions, and whether the layers have a scale, by the names of parameters."""
    names = set(names)
    return {
        "use_abs_pos_emb": "pos_embed" in names,
        "use_shared_rel_pos_bias": "rel_pos_bias.relative_position_bias_table" in names,
        "use_rel_pos_bias": any(
            name.endswith(".attn.relative_position_bias_table") for name in names
        ),
        "init_values": scale if any(name.endswith(".gamma_1") for name in names) else 0.0,
    }


def in_their_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names of BEiT's code instead of ours."""
    return NAMINGS["beit"].from_published(values, _FACTS)


def fill(model: MaskedMViT, golden: MethodGolden) -> None:
    """Load the weights of the golden rule, which go by BEiT's names, in the golden's dtype."""
    theirs = in_their_names(model.state_dict())
    weights = golden.weights({name: value.shape for name, value in theirs.items()})
    model.to(golden.dtype).load_state_dict(NAMINGS["beit"].to_published(weights, _FACTS))


def gradients(model: MaskedMViT) -> dict[str, Tensor]:
    """Gradients by BEiT's names."""
    return in_their_names({name: value.grad for name, value in model.named_parameters()})


def loss_of(model: MaskedMViT, images: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Any, Tensor]:
    """Logits at the masked tokens, and the cross-entropy with theirs."""
    (logits,) = model(images[:, :, None], mask[:, None])
    return logits, cross_entropy(logits, tokens[mask.flatten(1)])


def check_beit_mim(golden: MethodGolden) -> None:
    """Logits, tokens after each block, loss and gradients of the three kinds of positions."""
    settings = golden.settings
    assert settings["layer_norm_eps"] == LAYER_NORM_EPSILON
    images, mask, tokens = (golden.input(name) for name in ("images", "mask", "tokens"))
    for variant, given in settings["variants"].items():
        model = beit_model(settings["config"], given).eval()
        fill(model, golden)
        outputs: list[Tensor] = []
        for block in model.blocks:
            block.register_forward_hook(partial(_keep_tokens, outputs))
        logits, loss = loss_of(model, images, mask, tokens)
        loss.backward()
        golden.compare(f"{variant}/logits", logits)
        golden.compare(f"{variant}/loss", loss)
        for index, output in enumerate(outputs):
            golden.compare(f"{variant}/block{index}", output)
        check_gradients(golden, variant, gradients(model))
        _check_rounding(golden, variant, model, (images, mask, tokens), logits)
    if "relative_position_index" in golden.array_names:
        biased = beit_model(settings["config"], settings["variants"]["shared"])
        golden.compare("relative_position_index", biased.rel_pos_bias.relative_position_index)


def _keep_tokens(kept: list[Tensor], _: object, __: object, output: tuple[Tensor, Grid]) -> None:
    """Hook of a block that keeps its tokens."""
    kept.append(output[0])


def check_gradients(golden: MethodGolden, variant: str, found: Mapping[str, Tensor]) -> None:
    """Norms of all gradients, and those that the golden has whole."""
    norms = golden.settings[f"{variant}/grad_norm"]
    assert found.keys() == norms.keys()
    tolerance = 1e-9 if golden.dtype == torch.float64 else 1e-4
    for name, expected in norms.items():
        assert float(found[name].norm()) == pytest.approx(expected, rel=tolerance), name
        if f"{variant}/grad/{name}" in golden.array_names:
            golden.compare(f"{variant}/grad/{name}", found[name])


def _check_rounding(
    golden: MethodGolden,
    variant: str,
    model: MaskedMViT,
    inputs: tuple[Tensor, Tensor, Tensor],
    logits: Tensor,
) -> None:
    """Facts about rounding: of float32, and of the same model in transformers."""
    images, mask, tokens = inputs
    expected = torch.from_numpy(golden.raw(f"{variant}/logits"))
    with torch.no_grad():
        logits = logits.detach()
        single, _ = loss_of(model.float(), images.float(), mask, tokens)
    noise, own = (
        float((value.double() - expected).norm() / expected.norm()) for value in (single, logits)
    )
    if f"noise_fp32/{variant}/logits" in golden.scalars:
        golden.compare_absolutely(f"noise_fp32/{variant}/logits", noise, tolerance=1e-6)
    if f"hf_rel_difference/{variant}" in golden.scalars:
        rounding = 1e-12 if golden.dtype == torch.float64 else 1e-5
        golden.compare_absolutely(f"hf_rel_difference/{variant}", own, tolerance=rounding)


def check_beit_init(golden: MethodGolden) -> None:
    """Standard deviation, mean and largest absolute value of parameters as initialized."""
    settings = golden.settings
    stats = settings["stats"]
    # The golden may not state the scale of layers: one of them gives those of all others.
    scales = [mean for name, (_, mean, _) in stats.items() if name.endswith(".gamma_1")]
    scale = settings.get("init_values", scales[0] if scales else 0.0)
    # The statistics depend on none of these, which the golden may not state either.
    config = {
        "img_size": (_PATCH * _GRID.h, _PATCH * _GRID.w),
        "patch_size": _PATCH,
        "vocab_size": 1024,
        "num_heads": 1,
        "mlp_ratio": 4,
    }
    torch.manual_seed(0)
    model = beit_model(config | settings, variant_of(stats, scale))
    weights = in_their_names(dict(model.named_parameters()))
    assert stats.keys() <= weights.keys()  # of some blocks
    golden.require(stats)
    for name, (deviation, mean, largest) in stats.items():
        value, size = weights[name].detach(), weights[name].numel()
        noise = 6 / size**0.5
        if deviation < 1e-6:  # a constant
            assert value.min() == value.max() == pytest.approx(mean, rel=1e-6), name
        else:
            # Of a uniform distribution, which a cut one nearly is, the deviation varies less.
            assert float(value.std()) == pytest.approx(deviation, rel=max(0.01, noise)), name
            # The golden's mean is of one draw, too.
            assert abs(float(value.mean()) - mean) <= 2**0.5 * noise * deviation, name
            assert float(value.abs().max()) == pytest.approx(largest, rel=max(0.001, noise)), name
        golden.accept(name)


def check_beit_train_steps(golden: MethodGolden) -> None:
    """Losses, gradient norms before clipping, and final norms of a few optimizer steps."""
    settings = golden.settings
    config, rates = settings["config"], settings["lr"]
    model = beit_model(config, variant_of(settings["final_norms"], scale=1.0)).train()
    fill(model, golden)
    groups = parameter_groups(
        model,
        weight_decay=settings["weight_decay"],
        zero_decay_1d=True,
        zero_decay_names=model.no_weight_decay(),
    )
    theirs = in_their_names(dict(model.named_parameters()))
    for key, group in zip(("decay", "no_decay"), groups, strict=True):
        members = {id(p) for p in group["params"]}
        found = [name for name, p in theirs.items() if id(p) in members]
        assert sorted(found) == sorted(settings[key])
    optimizer = make_optimizer(groups, method="adamw", lr=0.0, betas=tuple(settings["betas"]))
    for group in optimizer.param_groups:
        group["eps"] = settings["eps"]
    step = GradientStep(optimizer, clip_l2norm=settings["clip"])
    tolerance = 1e-9 if golden.dtype == torch.float64 else 1e-4
    for number, rate in enumerate(rates):
        set_learning_rate(optimizer, rate)
        _, loss = loss_of(model, *_inputs_of_step(golden, number))
        loss.backward()
        result = step(torch.tensor(1), loss)
        optimizer.zero_grad()
        assert float(loss.detach()) == pytest.approx(settings["losses"][number], rel=tolerance), (
            number
        )
        norm = float(result.gradient_norm)
        # Rounding of float32 grows from step to step.
        growth = 1 if golden.dtype == torch.float64 else 10
        assert norm == pytest.approx(settings["grad_norms"][number], rel=growth * tolerance), number
    golden.require(settings["final_norms"])
    assert theirs.keys() == settings["final_norms"].keys()
    for name, expected in settings["final_norms"].items():
        assert float(theirs[name].detach().norm()) == pytest.approx(expected, rel=tolerance), name
        golden.accept(name)


def _inputs_of_step(golden: MethodGolden, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, mask and tokens of a step, whose seeds and sizes are given in words."""
    settings = golden.settings
    config, words = (
        settings["config"],
        {key: settings[key] for key in ("images", "masks", "tokens")},
    )
    draw = {
        key: pcg64(settings["base"] + seed_offset(given) + number) for key, given in words.items()
    }
    size, channels = (int(n) for n in numbers_in(words["images"], r"\((\d+), (\d+), H, W\)"))
    (share,) = numbers_in(words["masks"], r"< ([\d.]+)")
    grid = [side // config["patch_size"] for side in config["img_size"]]
    images = draw["images"].standard_normal((size, channels, *config["img_size"]), dtype=np.float32)
    mask = draw["masks"].random((size, *grid), dtype=np.float32) < float(share)
    tokens = draw["tokens"].integers(0, config["vocab_size"], (size, grid[0] * grid[1]))
    return torch.from_numpy(images).to(golden.dtype), torch.tensor(mask), torch.tensor(tokens)


def _learning_rates(
    base: float, end: float, *, num_epochs: int, num_steps: int, num_warmup: int
) -> list[float]:
    """Learning rate of every step of so many epochs."""
    return [
        learning_rate(
            epoch + step / num_steps,
            base_lr=base,
            end_lr=end,
            max_epoch=num_epochs,
            warmup_epochs=num_warmup / num_steps,
            warmup_last_step=1 / num_steps,
            cosine_after_warmup=True,
        )
        for epoch in range(num_epochs)
        for step in range(num_steps)
    ]


def check_beit_schedule(golden: MethodGolden) -> None:
    """Learning rates by step; base, end, epochs, steps and warm-up are in the names."""
    for name in golden.array_names:
        match = re.fullmatch(r"lr_([^_]+)_([^_]+)_epochs(\d+)x(\d+)_warm(steps)?(\d+)", name)
        assert match, name
        num_epochs, num_steps, warmup = int(match[3]), int(match[4]), int(match[6])
        rates = _learning_rates(
            float(match[1]),
            float(match[2]),
            num_epochs=num_epochs,
            num_steps=num_steps,
            num_warmup=warmup if match[5] else warmup * num_steps,
        )
        golden.compare(name, torch.tensor(rates, dtype=torch.float64))


def check_mask_bevt(golden: MethodGolden) -> None:
    """Ratios by time step, lengths of the runs, and samples of BEVT's masks."""
    facts = golden.settings
    size, steps = facts["input_size"], facts["t"]
    grid = Grid(steps, *((size, size) if isinstance(size, int) else size))
    assert facts["same_mask_in_all_masked_steps"]
    golden.require({"mean_ratio": facts["mean_ratio"], "ratio_per_step": facts["ratio_per_step"]})
    generator, number = np.random.default_rng(0), 3000
    ratio = facts["num_masking_patches"] / (grid.h * grid.w)
    masks = np.stack(
        [
            bevt_mask(
                grid,
                ratio,
                generator,
                max_block=facts["max_num_patches"],
                min_block=facts["min_num_patches"],
                length_range=tuple(facts["masked_tube_range"]),
            ).numpy()
            for _ in range(number)
        ]
    )
    golden.compare_absolutely("mean_ratio", masks.mean(), tolerance=0.01)
    golden.compare_absolutely("ratio_per_step", masks.mean(axis=(0, 2, 3)), tolerance=0.02)
    samples = np.unpackbits(golden.raw("samples"), axis=1, count=grid.num_tokens)
    theirs = samples.reshape(-1, *grid).astype(bool)
    for some in (masks, theirs):
        is_run = some.any(axis=(2, 3))
        frame = some.any(axis=1)[:, None]
        assert (some == frame * is_run[..., None, None]).all()  # one mask in all masked steps
        # A run that wraps around begins once.
        begins = (is_run & ~np.roll(is_run, 1, axis=1)).sum(axis=1)
        assert (begins == (is_run.any(axis=1) & ~is_run.all(axis=1))).all()
        assert frame.sum(axis=(1, 2, 3)).max() <= facts["num_masking_patches"]
    lengths, counts = np.unique(masks.any(axis=(2, 3)).sum(axis=1), return_counts=True)
    histogram = {int(length): times for length, times in facts["length_hist"].items()}
    total = sum(histogram.values())
    assert set(lengths) == set(histogram)
    for length, count in zip(lengths, counts, strict=True):
        assert abs(count / number - histogram[int(length)] / total) <= 0.04, length
    golden.accept("samples")


BEIT_CHECKS: dict[str, Callable[[MethodGolden], None]] = {
    "beit_init": check_beit_init,
    "beit_mim": check_beit_mim,
    "beit_schedule": check_beit_schedule,
    "beit_train_steps": check_beit_train_steps,
    "mask_bevt": check_mask_bevt,
}
