"""Builders of tokenizers and of the task that trains them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import describe_by_layers
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.perceptual import build_perceptual
from slowfast_maskfeat.builders.teacher import (
    build_teacher,
    find_teacher,
    teacher_layers,
    teacher_width,
)
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights, read_header
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.schedules import Schedule
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens
from slowfast_maskfeat.tasks.tokenizer import DVAETraining, VQTraining
from slowfast_maskfeat.tokenizers import (
    DVAE,
    ConvDecoder,
    ConvEncoder,
    DirectionEMAQuantizer,
    EMAQuantizer,
    FeatureDecoder,
    FeatureReconstruction,
    LearnedQuantizer,
    Quantizer,
    Tokenizer,
    VQTokenizer,
    pixel_reconstruction,
)

_NAME = "Tokenizer"


def check_tokenizer(cfg: CfgNode) -> None:
    """Check the keys of a tokenizer.

    Raises:
        ValueError: a key has an invalid value or contradicts another.
    """
    keys = cfg.TOKENIZER
    side = 2 ** len(keys.WIDTHS)
    if not keys.WIDTHS or cfg.DATA.TRAIN_CROP_SIZE % side:
        raise ValueError(
            f"DATA.TRAIN_CROP_SIZE must be a multiple of {side}, 2 to the number of "
            f"TOKENIZER.WIDTHS {list(keys.WIDTHS)}, got {cfg.DATA.TRAIN_CROP_SIZE}"
        )
    for key in ("TEMPERATURE", "KL_WEIGHT"):
        if (
            len(keys[key]) != 2
            or min(keys[key]) < 0
            or (key == "TEMPERATURE" and not min(keys[key]))
        ):
            least = "> 0" if key == "TEMPERATURE" else ">= 0"
            raise ValueError(
                f"TOKENIZER.{key} must be two numbers {least}, at the start and the end, got "
                f"{list(keys[key])}"
            )
    if keys.CODEBOOK == "direction" and keys.DISTANCE != "cosine":
        raise ValueError(
            "TOKENIZER.DISTANCE must be 'cosine' with TOKENIZER.CODEBOOK 'direction', got "
            f"{keys.DISTANCE!r}"
        )
    if keys.RECONSTRUCTION == "features":
        _feature_width(cfg)


def _feature_width(cfg: CfgNode) -> int:
    teacher = find_teacher(cfg, "TOKENIZER.RECONSTRUCTION 'features'")
    if not teacher.is_of_images:
        raise ValueError(
            "MASK.TEACHER_CHECKPOINT must be of a network of images with TOKENIZER.RECONSTRUCTION "
            f"'features', got {teacher.path} with DATA.NUM_FRAMES {teacher.cfg.DATA.NUM_FRAMES}"
        )
    return teacher_width(teacher, teacher_layers(cfg, teacher)[-1])


def build_tokenizer(cfg: CfgNode, data: DataSource) -> Tokenizer:
    """Build a tokenizer: images (B, 3, H, W) in [0, 1] -> codes (B, h, w), and back.

    Args:
        cfg: configuration; not modified.
        data: the run's data source.
    """
    keys = cfg.TOKENIZER
    is_dvae = keys.TYPE == "dvae"
    encoder = ConvEncoder(
        keys.WIDTHS,
        num_blocks=keys.NUM_BLOCKS,
        out_channels=keys.NUM_CODES if is_dvae else keys.CODE_DIM,
    )
    widths = list(reversed(keys.WIDTHS))
    if keys.RECONSTRUCTION == "features":
        kind = FeatureReconstruction()
        decoder: nn.Module = FeatureDecoder(
            keys.CODE_DIM,
            widths[0],
            num_blocks=keys.NUM_BLOCKS,
            out_channels=_feature_width(cfg),
        )
    else:
        kind = pixel_reconstruction(keys.RECONSTRUCTION)  # type: ignore[assignment]
        decoder = ConvDecoder(
            keys.CODE_DIM,
            widths,
            num_blocks=keys.NUM_BLOCKS,
            out_channels=kind.num_channels,  # type: ignore[attr-defined]
        )
    if is_dvae:
        return DVAE(encoder, decoder, code_dim=keys.CODE_DIM, reconstruction=kind)
    return VQTokenizer(encoder, _quantizer(cfg), decoder, reconstruction=kind)


def _quantizer(cfg: CfgNode) -> Quantizer:
    keys = cfg.TOKENIZER
    options = {
        "beta": keys.BETA,
        "kmeans_rounds": keys.KMEANS_ROUNDS,
        "restart_after": keys.RESTART_AFTER,
        "seed": cfg.RNG_SEED,
    }
    size = keys.NUM_CODES, keys.CODE_DIM
    if keys.CODEBOOK == "direction":
        return DirectionEMAQuantizer(*size, decay=keys.DECAY, **options)
    options["unit_sphere"] = keys.DISTANCE == "cosine"
    if keys.CODEBOOK == "gradient":
        return LearnedQuantizer(*size, beta_on_codebook=keys.BETA_ON_CODEBOOK, **options)
    return EMAQuantizer(*size, decay=keys.DECAY, **options)


def build_vq_training(cfg: CfgNode, model: nn.Module, data: DataSource) -> VQTraining:
    """Build the task that trains a tokenizer with a vector quantizer."""
    return VQTraining(**_task_options(cfg, model))


def build_dvae_training(cfg: CfgNode, model: nn.Module, data: DataSource) -> DVAETraining:
    """Build the task that trains a dVAE."""
    keys = cfg.TOKENIZER
    return DVAETraining(
        temperature=Schedule(*keys.TEMPERATURE),
        annealing=keys.ANNEALING,
        kl_weight=Schedule(*keys.KL_WEIGHT),
        kl_warmup=keys.KL_WARMUP,
        hard=keys.HARD,
        seed=cfg.RNG_SEED,
        **_task_options(cfg, model),
    )


def _task_options(cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
    return {
        "num_codes": cast(Tokenizer, model).num_codes,
        "num_epochs": cfg.SOLVER.MAX_EPOCH,
        "min_usage": cfg.TOKENIZER.MIN_USAGE,
        "mean": cfg.DATA.MEAN,
        "std": cfg.DATA.STD,
        "is_reversed": reverses_channels(cfg, "train"),
        "teacher": _build_teacher(cfg),
        "perceptual": build_perceptual(cfg),
        "perceptual_weight": cfg.TOKENIZER.PERCEPTUAL_WEIGHT,
    }


def _build_teacher(cfg: CfgNode) -> TeacherTokens | None:
    """Build the network whose features are reconstructed; None if pixels are."""
    if cfg.TOKENIZER.RECONSTRUCTION != "features":
        return None
    teacher = find_teacher(cfg, "TOKENIZER.RECONSTRUCTION 'features'")
    describe = describe_by_layers(teacher_layers(cfg, teacher))
    return build_teacher(cfg, teacher, describe, needs_classifier=False)


class TrainedTokenizer(NamedTuple):
    """A tokenizer to predict the codes of, before it is built.

    Attributes:
        cfg: its configuration, frozen.
        path: its checkpoint.
    """

    cfg: CfgNode
    path: str

    @property
    def num_codes(self) -> int:
        """Number of codes K."""
        return int(self.cfg.TOKENIZER.NUM_CODES)

    @property
    def pixels_per_code(self) -> int:
        """Rows, and columns, of pixels that one code stands for."""
        return int(2 ** len(self.cfg.TOKENIZER.WIDTHS))


def find_tokenizer(cfg: CfgNode) -> TrainedTokenizer:
    """Find the tokenizer that TOKENIZER.CHECKPOINT names; its weights are not read.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such file, or it is not of a tokenizer.
    """
    path = cfg.TOKENIZER.CHECKPOINT
    if not path:
        raise ValueError(
            "TOKENIZER.CHECKPOINT must be the checkpoint of a tokenizer with MASK.TARGET 'tokens', "
            "got ''"
        )
    own = trained_config(path, read_header(path), None, key="a tokenizer trained here has one")
    if own.MODEL.MODEL_NAME != _NAME:
        raise ValueError(
            f"TOKENIZER.CHECKPOINT must be of a model with MODEL.MODEL_NAME {_NAME!r}, got {path} "
            f"with {own.MODEL.MODEL_NAME!r}"
        )
    return TrainedTokenizer(own, path)


def load_tokenizer(found: TrainedTokenizer) -> FrozenNetwork:
    """Build a tokenizer with its weights, frozen.

    Raises:
        ValueError: the weights do not fit it, see `load_weights`.
    """
    content = load_checkpoint(found.path)
    data = DataSource(found.cfg)
    check_model_size(lambda: build_tokenizer(found.cfg, data), found.path, content)
    network = build_tokenizer(found.cfg, data)
    load_weights(network, found.path, complete=True, content=content)
    return FrozenNetwork(network, source=str(Path(found.path)))
