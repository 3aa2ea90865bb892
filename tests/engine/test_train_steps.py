"""Six optimizer steps against the published ones (tests/golden/train_steps.json).

Loss, clipping, schedule, parameter groups and optimizer together, on tiny models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_rule import (
    fill_with_golden_weights,
    golden_json,
    golden_randn,
    soft_target,
)
from helpers.tiny_cases import model_of
from torch import Tensor, nn

from slowfast_maskfeat.backbones import resize_mask
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import (
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)
from slowfast_maskfeat.losses import soft_cross_entropy
from slowfast_maskfeat.schedules import learning_rate
from slowfast_maskfeat.targets import HOGTarget

GOLDEN = golden_json("train_steps.json")
CASES = [name for name in GOLDEN if not name.startswith("_")]
QUICK = [("pt_video_hog", 1), ("ft_layer_decay", 1)]


def schedule(options: dict[str, Any], epoch: float) -> float:
    return learning_rate(
        epoch,
        base_lr=options["SOLVER.BASE_LR"],
        end_lr=options["SOLVER.COSINE_END_LR"],
        max_epoch=options["SOLVER.MAX_EPOCH"],
        warmup_epochs=options["SOLVER.WARMUP_EPOCHS"],
        warmup_start_lr=options["SOLVER.WARMUP_START_LR"],
        cosine_after_warmup=options["SOLVER.COSINE_AFTER_WARMUP"],
    )


def optimizer_of(model: nn.Module, options: dict[str, Any]) -> torch.optim.Optimizer:
    groups = parameter_groups(
        model,
        weight_decay=options["SOLVER.WEIGHT_DECAY"],
        zero_decay_1d=options["SOLVER.ZERO_WD_1D_PARAM"],
        zero_decay_names=model.no_weight_decay() if options["MVIT.ZERO_DECAY_POS_CLS"] else (),
        layer_decay=options.get("SOLVER.LAYER_DECAY", 1.0),
        layer_id=model.layer_id,
        num_layers=model.num_layers,
    )
    return make_optimizer(groups, method=options["SOLVER.OPTIMIZING_METHOD"], lr=0.0)


def terms_of(model: nn.Module, clips: Tensor, step: int, mask_shape: list[int] | None) -> Tensor:
    """Loss terms (M,) of masked tokens, or (B,) of clips."""
    if mask_shape is None:
        logits = model(clips)
        return soft_cross_entropy(logits, soft_target(*logits.shape))
    generator = np.random.Generator(np.random.PCG64(100 + step))
    mask = torch.from_numpy(generator.random((2, *mask_shape)) < 0.4)
    (prediction,) = model(clips, mask)
    (grid,) = model.prediction_grids(clips.shape[2:])
    sizes = zip(clips.shape[2:], grid, strict=True)
    target = HOGTarget([pixels // tokens for pixels, tokens in sizes])
    wanted = target.encode(clips, grid)
    return target.loss(prediction, wanted[resize_mask(mask, grid).flatten(1)])


@pytest.mark.parametrize(
    ("name", "micro_batches"),
    [
        pytest.param(name, count, marks=() if (name, count) in QUICK else pytest.mark.slow)
        for name in CASES
        for count in (1, 2)
    ],
)
def test_published_steps(name: str, micro_batches: int) -> None:
    golden = GOLDEN[name]
    options = golden["options"]
    architecture = {key: v for key, v in options.items() if not key.startswith("SOLVER.")}
    model = fill_with_golden_weights(model_of(architecture)).train()
    optimizer = optimizer_of(model, options)
    step = GradientStep(optimizer, clip_l2norm=options.get("SOLVER.CLIP_GRAD_L2NORM"))
    for number, row in enumerate(golden["steps"]):
        rate = schedule(options, number // 2 + (number % 2) / 2)
        assert rate == pytest.approx(row["lr"], rel=1e-9)
        set_learning_rate(optimizer, rate)
        clips = golden_randn(1000 + number, (2, 3, 8, 64, 64))
        if micro_batches == 1:
            terms = terms_of(model, clips, number, golden["mask_shape"])
            loss_sum, weight = terms.sum(), terms.numel()
            loss_sum.backward()
        else:
            loss_sum, weight = torch.zeros(()), 0
            all_terms = terms_of(model, clips, number, golden["mask_shape"])
            for part in all_terms.tensor_split([all_terms.numel() // 3]):
                part.sum().backward(retain_graph=True)
                loss_sum = loss_sum + part.detach().sum()
                weight += part.numel()
        result = step(torch.tensor(weight), loss_sum)
        optimizer.zero_grad()
        # The noise of what the optimizer amplifies grows from step to step.
        assert float(loss_sum.detach()) / weight == pytest.approx(row["loss"], rel=1e-4), number
        assert float(result.gradient_norm) == pytest.approx(row["grad_norm"], rel=1e-3), number
    norms = {n: float(p.detach().double().norm()) for n, p in model.named_parameters()}
    for key, expected in golden["final_param_norm"].items():
        if not key.endswith("norm_k.bias"):  # no gradient but noise, which Adam blows up
            assert norms[key] == pytest.approx(expected, rel=1e-4), key
