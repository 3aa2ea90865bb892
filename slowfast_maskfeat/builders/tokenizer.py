"""Builders of tokenizers and of the task that trains them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from fvcore.common.config import CfgNode
from torch import Tensor, nn

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
from slowfast_maskfeat.builders.tokenizer_networks import (
    Parts,
    dalle_decoder,
    find_architecture,
)
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.checkpoints import (
    load_checkpoint,
    load_weights,
    read_header,
    read_weights,
)
from slowfast_maskfeat.config.shipped import shipped_file
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.schedules import Schedule
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens
from slowfast_maskfeat.tasks.tokenizer import DVAETraining, VQTraining
from slowfast_maskfeat.tokenizers import Tokenizer
from slowfast_maskfeat.tokenizers.published import own_names

_NAME = "Tokenizer"
# Of decoders of features: of `VQKD`, and of `FeatureDecoder`.
_LAST_BIAS = re.compile(r"decode_task_layer\.2\.bias|decoder\.\d+\.bias")


def check_tokenizer(cfg: CfgNode) -> None:
    """Check the keys of a tokenizer.

    Raises:
        ValueError: a key has an invalid value or contradicts another.
    """
    keys = cfg.TOKENIZER
    side = find_architecture(cfg).pixels_per_code(cfg)
    if cfg.DATA.TRAIN_CROP_SIZE % side:
        raise ValueError(
            f"DATA.TRAIN_CROP_SIZE must be a multiple of {side}, the pixels of a code (by "
            "TOKENIZER.WIDTHS, or MVIT.PATCH_STRIDE with TOKENIZER.ARCH 'vit'), got "
            f"{cfg.DATA.TRAIN_CROP_SIZE}"
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

    Raises:
        ValueError: keys do not fit TOKENIZER.ARCH.
    """
    architecture = find_architecture(cfg)
    of_features = cfg.TOKENIZER.RECONSTRUCTION == "features"
    return architecture.build(cfg, Parts(_feature_width(cfg) if of_features else None))


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
        decoder_path: checkpoint of its decoder, if that is in a file of its own; else empty.
    """

    cfg: CfgNode
    path: str
    decoder_path: str = ""

    @property
    def num_codes(self) -> int:
        """Number of codes K."""
        return int(self.cfg.TOKENIZER.NUM_CODES)

    @property
    def pixels_per_code(self) -> int:
        """Rows, and columns, of pixels that one code stands for."""
        return find_architecture(self.cfg).pixels_per_code(self.cfg)


def find_tokenizer(cfg: CfgNode) -> TrainedTokenizer:
    """Find the tokenizer that TOKENIZER.CHECKPOINT names; its weights are not read.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such file, it is not of a tokenizer, or it has no configuration and
            TOKENIZER.CFG none.
    """
    keys = cfg.TOKENIZER
    path = keys.CHECKPOINT
    if not path:
        raise ValueError(
            "TOKENIZER.CHECKPOINT must be the checkpoint of a tokenizer with MASK.TARGET 'tokens', "
            "got ''"
        )
    file = shipped_file(keys.CFG, "TOKENIZER.CFG") if keys.CFG else None
    own = trained_config(path, read_header(path), file, key="TOKENIZER.CFG")
    if own.MODEL.MODEL_NAME != _NAME:
        raise ValueError(
            f"TOKENIZER.CHECKPOINT must be of a model with MODEL.MODEL_NAME {_NAME!r}, got {path} "
            f"with {own.MODEL.MODEL_NAME!r}"
        )
    if keys.DECODER_CHECKPOINT and not find_architecture(own).has_own_encoder:
        raise ValueError(
            "TOKENIZER.DECODER_CHECKPOINT must be '' for a tokenizer with TOKENIZER.ARCH "
            f"{own.TOKENIZER.ARCH!r}, got {keys.DECODER_CHECKPOINT!r}"
        )
    return TrainedTokenizer(own, path, keys.DECODER_CHECKPOINT)


def load_tokenizer(found: TrainedTokenizer) -> FrozenNetwork:
    """Build a tokenizer with its weights, frozen.

    Published files are read under their own names, see `tokenizers.published`. Where the encoder
    is in a file of its own, the decoder may be absent.

    Raises:
        ValueError: the weights do not fit it, see `load_weights`.
    """
    content = load_checkpoint(found.path)
    architecture = find_architecture(found.cfg)
    weights = read_weights(found.path, rename=own_names, content=content).weights
    has_decoder = any(name.startswith("decoder.") for name in weights)
    if has_decoder and found.decoder_path:
        raise ValueError(
            f"TOKENIZER.DECODER_CHECKPOINT must be '' with {found.path}, which has a decoder, got "
            f"{found.decoder_path!r}"
        )
    parts = Parts(
        _trained_feature_width(found.cfg, weights),
        has_decoder=has_decoder or not architecture.has_own_encoder,
    )

    def build() -> Tokenizer:
        return architecture.build(found.cfg, parts)

    check_model_size(build, found.path, content)
    network = build()
    load_weights(network, found.path, complete=True, content=content)
    frozen = FrozenNetwork(network, source=str(Path(found.path)))
    if found.decoder_path:  # not in the hash of the weights: no code depends on it
        decoder = dalle_decoder(found.cfg)
        load_weights(decoder, found.decoder_path, complete=True)
        network.decoder = decoder.eval().requires_grad_(False)
    return frozen


def _trained_feature_width(cfg: CfgNode, weights: Mapping[str, Tensor]) -> int | None:
    """Return the width of the features that trained weights reconstruct: that of the last layer.

    The teacher of the training need not exist any more.
    """
    if cfg.TOKENIZER.RECONSTRUCTION != "features":
        return None
    last = [name for name in weights if _LAST_BIAS.fullmatch(name)]
    return len(weights[last[0]]) if last else 1  # without one, loading is an error
