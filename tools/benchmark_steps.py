"""Training steps for `benchmark.py`, and the count of what one does on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark_report import Counts
from benchmark_traffic import DEVICE, FakeGpu
from fvcore.common.config import CfgNode
from plain_forms import encode_all, make_plain, separate_casts
from plain_hog import PlainHOGTarget
from torch import nn

from slowfast_maskfeat.backbones import compiled
from slowfast_maskfeat.builders.augment import build_batch_transform, build_erase_sampler
from slowfast_maskfeat.builders.kernels import switch_on_kernels
from slowfast_maskfeat.builders.methods import build_model, build_task, find_method
from slowfast_maskfeat.builders.optimizer import build_optimizer
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.train_settings import TrainSettings
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.targets.hog import HOGTarget
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

    MODEL.KERNELS and TRAIN.COMPILE have their meaning.

    Args:
        cfg: configuration.
        form: one of the forms above.
        device: device of the step.
        move: function that moves a module there; None: `Module.to`.
    """
    torch.manual_seed(0)
    move = move or (lambda module: module.to(device))
    model = build_model(cfg).train()
    move(model)
    task = build_task(cfg, model)
    if form == ALL:
        encode_all(model)
    if form == PLAIN:
        for network in (model, task):
            make_plain(network, attention=True, pooling=True)
        for target in task.targets if isinstance(task, MaskedPrediction) else ():
            if type(target) is HOGTarget:
                target.__class__ = PlainHOGTarget
    move(task)
    switch_on_kernels(cfg, device, model, task)
    stepper = GradientStep(
        build_optimizer(cfg, model),
        clip_l2norm=cfg.SOLVER.CLIP_GRAD_L2NORM,
        per_parameter=cfg.SOLVER.CLIP_GRAD_PER_PARAM,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    state = TrainState(model=model, task=task, stepper=stepper, scaler=scaler)
    state.model = compiled(model, cfg.TRAIN.COMPILE)  # as `runs.train` does
    return state


def make_batch(cfg: CfgNode, size: int) -> ClipBatch:
    """Batch of random clips with masks and labels, of all kinds of views, as a loader returns it.

    Args:
        cfg: configuration.
        size: number of samples.
    """
    generator = np.random.default_rng(0)
    method, data = find_method(cfg), cfg.DATA
    specs = method.views(cfg)
    samplers = method.masks(cfg) or (None,) * max(len(specs), 1)
    shapes = [(size * s.count, s.num_frames, s.crop_size, s.crop_size, 3) for s in specs]
    shapes = shapes or [(size, data.NUM_FRAMES, data.TRAIN_CROP_SIZE, data.TRAIN_CROP_SIZE, 3)]
    first, *further = [
        _random_clips(shape, sampler, generator, views_per_sample=shape[0] // size)
        for shape, sampler in zip(shapes, samplers, strict=True)
    ]
    if method.has_labels:
        labels = torch.from_numpy(generator.integers(0, cfg.MODEL.NUM_CLASSES, size))
        erase = build_erase_sampler(cfg)
        boxes = None if erase is None else torch.stack([erase(generator) for _ in range(size)])
        first = replace(first, labels=labels, erase=boxes)
    return replace(first, further=tuple(further))


def _random_clips(
    shape: tuple[int, ...],
    sampler: MaskSampler | None,
    generator: np.random.Generator,
    *,
    views_per_sample: int,
) -> ClipBatch:
    """Batch of one kind of views: clips of shape (B, T, H, W, C), and a mask for each."""
    clips = torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))
    masks = None if sampler is None else torch.stack([sampler(generator) for _ in clips])
    clips = clips.permute(0, 4, 1, 2, 3)
    return ClipBatch(clips, mask=masks, views_per_sample=views_per_sample)


def make_step(
    cfg: CfgNode, form: str, batch: ClipBatch, device: torch.device, precision: str
) -> Callable[[int], object]:
    """Function that runs one training step."""
    return step_of(cfg, make_state(cfg, form, device), batch, device, precision, form)


def step_of(
    cfg: CfgNode,
    state: TrainState,
    batch: ClipBatch,
    device: torch.device,
    precision: str,
    form: str = FAST,
) -> Callable[[int], object]:
    """Function that runs one training step of a state, made in the same form."""
    settings = TrainSettings(
        max_epoch=1,
        learning_rate=lambda _: cfg.SOLVER.BASE_LR,
        precision=PRECISIONS[precision],
        folder=Path(),
    )
    transform = build_batch_transform(cfg)

    def step(number: int) -> object:
        with separate_casts() if form == PLAIN else nullcontext():
            if transform is None:
                return train_step(state, batch, settings, device)
            transformed = transform(batch, device, epoch=0, step=number)
            return train_step(state, transformed, settings, device)

    return step


def count_traffic(cfg: CfgNode, size: int, precision: str = "bfloat16") -> Counts:
    """Count launches and bytes of a training step on a GPU, see `benchmark_traffic`."""
    gpu = FakeGpu()
    batch = gpu.pin(make_batch(cfg, size))
    state = make_state(cfg, FAST, DEVICE, gpu.move)
    gpu.make_state(state.stepper.optimizer)
    return gpu.count(step_of(cfg, state, batch, DEVICE, precision), state.bare)
