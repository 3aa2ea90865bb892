"""Training steps for `benchmark.py`, and the count of what one does on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmark_report import Counts
from benchmark_traffic import DEVICE, FakeGpu
from fvcore.common.config import CfgNode
from plain_forms import encode_all, make_plain
from plain_hog import PlainHOGTarget
from torch import nn

from slowfast_maskfeat.builders.methods import build_model, build_task, find_method
from slowfast_maskfeat.builders.optimizer import build_optimizer
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train import TrainSettings, train_step
from slowfast_maskfeat.tasks import MaskedPrediction

FAST, PLAIN = "fast", "plain"
VISIBLE, ALL = "visible tokens", "all tokens"  # input of the encoder of an autoencoder
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def make_state(
    cfg: CfgNode,
    form: str,
    device: torch.device,
    move: Callable[[nn.Module], object] | None = None,
) -> TrainState:
    """Model, task and optimizer of a training run, in one of the forms above.

    Args:
        cfg: Configuration.
        form: One of the forms above.
        device: Device of the step.
        move: Function that moves a module there; None: `Module.to`.
    """
    torch.manual_seed(0)
    move = move or (lambda module: module.to(device))
    model = build_model(cfg).train()
    move(model)
    task = build_task(cfg, model)
    if form == ALL:
        encode_all(model)
    if form == PLAIN:
        make_plain(model, attention=True)
        assert isinstance(task, MaskedPrediction), "--config must be a pre-training configuration"
        for target in task.targets:
            target.__class__ = PlainHOGTarget
    move(task)
    stepper = GradientStep(
        build_optimizer(cfg, model),
        clip_l2norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
        per_parameter=cfg.SOLVER.CLIP_GRAD_PER_PARAM,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    return TrainState(model=model, task=task, stepper=stepper, scaler=scaler)


def make_batch(cfg: CfgNode, size: int) -> ClipBatch:
    """Batch of random clips with masks, as a loader returns it."""
    generator = np.random.default_rng(0)
    side = cfg.DATA.TRAIN_CROP_SIZE
    shape = (size, cfg.DATA.NUM_FRAMES, side, side, 3)
    clips = torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))
    samplers = find_method(cfg).masks
    sampler = None if samplers is None else samplers(cfg)[0]
    assert sampler is not None
    mask = torch.stack([sampler(generator) for _ in range(size)])
    return ClipBatch(clips.permute(0, 4, 1, 2, 3), mask=mask)


def make_step(
    cfg: CfgNode, form: str, batch: ClipBatch, device: torch.device, precision: str
) -> Callable[[int], object]:
    """Function that runs one training step."""
    return step_of(cfg, make_state(cfg, form, device), batch, device, precision)


def step_of(
    cfg: CfgNode, state: TrainState, batch: ClipBatch, device: torch.device, precision: str
) -> Callable[[int], object]:
    """Function that runs one training step of a state."""
    settings = TrainSettings(
        max_epoch=1,
        learning_rate=lambda _: cfg.SOLVER.BASE_LR,
        precision=PRECISIONS[precision],
        folder=Path(),
    )
    return lambda _: train_step(state, batch, settings, device)


def count_traffic(cfg: CfgNode, size: int, precision: str = "bfloat16") -> Counts:
    """Count launches and bytes of a training step on a GPU, see `benchmark_traffic`."""
    gpu = FakeGpu()
    batch = gpu.pin(make_batch(cfg, size))
    state = make_state(cfg, FAST, DEVICE, gpu.move)
    gpu.make_state(state.stepper.optimizer)
    return gpu.count(step_of(cfg, state, batch, DEVICE, precision), state.bare)
