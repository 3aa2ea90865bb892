"""Builders of the prediction of EMA latents (MASK.TARGET latents), for its row of `methods.py`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import FeatureModel, MaskedModel, describe_by_layers
from slowfast_maskfeat.builders import teacher as networks
from slowfast_maskfeat.builders.backbones import find_backbone, prediction_strides
from slowfast_maskfeat.builders.batch_parts import check_koleo, warn_of_parts
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.ema import Teacher
from slowfast_maskfeat.masks import MaskSampler, MultiblockSampler
from slowfast_maskfeat.schedules import Schedule
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens
from slowfast_maskfeat.tasks.latents import LatentPrediction


def check_latents(cfg: CfgNode) -> None:
    """Check the keys of EMA latents.

    Raises:
        ValueError: a key contradicts them, or has a value out of range.
    """
    keys = cfg.MASK
    for key in ("TEACHER_CHECKPOINT", "TEACHER_CFG", "LABEL_MAPS"):
        if keys[key]:
            raise ValueError(
                f"MASK.{key} must be '' with MASK.TARGET 'latents', whose teacher is the moving "
                f"average of the encoder, got {keys[key]!r}; TRAIN.CHECKPOINT_FILE_PATH gives its "
                "first weights"
            )
    momentum = keys.TEACHER_MOMENTUM
    if len(momentum) != 2 or not all(0 <= value <= 1 for value in momentum):
        raise ValueError(
            "MASK.TEACHER_MOMENTUM must be two numbers in [0, 1], the first and the last, got "
            f"{list(momentum)}"
        )
    last = cfg.MVIT.DEPTH - 1
    if cfg.MODEL.ARCH == "maskmvit" and list(keys.PRETRAIN_DEPTH) != [last]:
        raise ValueError(
            f"MASK.PRETRAIN_DEPTH must be [{last}], the last block of MVIT.DEPTH {cfg.MVIT.DEPTH}, "
            f"with MASK.TARGET 'latents', got {list(keys.PRETRAIN_DEPTH)}"
        )
    _layers(cfg)
    check_koleo(cfg)


def _layers(cfg: CfgNode) -> list[int]:
    """Return the blocks of the encoder whose tokens are averaged."""
    return networks.teacher_layers(cfg, _encoder(cfg))


def _encoder(cfg: CfgNode) -> networks.Teacher:
    return networks.Teacher(
        cfg, "the encoder", num_classes=1, class_names=(), is_of_images=cfg.DATA.NUM_FRAMES == 1
    )


def latent_masks(cfg: CfgNode) -> Sequence[MaskSampler | None]:
    """Return the mask sampler; with MASK.MAE_ON it may draw several masks of each clip."""
    return (build_mask_sampler(cfg),)


def build_latent_model(cfg: CfgNode, data: DataSource) -> MaskedModel:
    """Build the masked model, which predicts features of the width of its encoder.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    check_latents(cfg)
    width = networks.teacher_width(_encoder(cfg), _layers(cfg)[-1])
    (sampler,) = latent_masks(cfg)
    num_masks = len(sampler.kinds) if isinstance(sampler, MultiblockSampler) else 1
    assert len(prediction_strides(cfg)) == 1
    return find_backbone(cfg).masked(cfg, [width] * num_masks)


def build_latents(cfg: CfgNode, model: nn.Module, data: DataSource) -> LatentPrediction:
    """Build the task with its teacher, which has the student's weights."""
    warn_of_parts(cfg, "KOLEO_WEIGHT")
    layers = _layers(cfg)
    first, last = cfg.MASK.TEACHER_MOMENTUM
    teacher = Teacher(_teacher_network(cfg, model), Schedule(first, last, "linear"))
    tokens = TeacherTokens(
        teacher,
        describe_by_layers(layers),
        is_of_images=cfg.DATA.NUM_FRAMES == 1,
        crop_size=cfg.DATA.TRAIN_CROP_SIZE,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        clip_mean=cfg.DATA.MEAN,
        clip_std=cfg.DATA.STD,
    )
    task = LatentPrediction(
        tokens,
        teacher,
        num_features=networks.teacher_width(_encoder(cfg), layers[-1]),
        norm=cfg.MASK.FEATURE_NORM,
        # V-JEPA's; without a predictor that of frozen features, which it then equals.
        epsilon=1e-5 if cfg.MASK.MAE_ON else 1e-6,
        loss=cfg.MASK.FEATURE_LOSS,
        mean=cfg.DATA.MEAN,
        std=cfg.DATA.STD,
        koleo_weight=cfg.CONTRASTIVE.KOLEO_WEIGHT,
    )
    task.start(model)
    return task


def _teacher_network(cfg: CfgNode, model: nn.Module) -> FeatureModel:
    """Build the network that a probe of the encoder would use, without its classifier.

    Weights that the student lacks, those of the last norm after mask tokens, are buffers of the
    teacher, which no average moves: they keep their first values, those of the checkpoint that the
    training starts from (`Task.networks_to_load`), as a frozen network of that checkpoint would
    have them.
    """
    device = next(model.parameters()).device
    with (
        device if device.type == "meta" else nullcontext()
    ):  # a model of shapes alone has no weights
        network = find_backbone(cfg).classifier(cfg, 1, mean_pooling=cfg.MVIT.USE_MEAN_POOLING)
    network.head = nn.Identity()
    known = {name for name, _ in model.named_parameters()}
    for name, value in list(network.named_parameters()):
        if name not in known:
            owner, _, last = name.rpartition(".")
            holder = network.get_submodule(owner)
            delattr(holder, last)
            holder.register_buffer(last, value.detach())
    return network
