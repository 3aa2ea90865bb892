"""Models of Hugging Face's transformers that exist here too: VideoMAE, ViTMAE, ViT and BEiT.

The configuration is a shipped one of the same method, with the network of config.json. Its fields
and their defaults: transformers, src/transformers/models/<model>/configuration_<model>.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.backbones.meta_shapes import on_meta
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import read_weights
from slowfast_maskfeat.checkpoints.hugging_face import (
    CONFIG,
    PROCESSOR,
    Fields,
    read_class_names,
    read_normalization,
    weights_file,
)
from slowfast_maskfeat.checkpoints.naming import NAMINGS
from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.config.shipped import shipped_folder
from slowfast_maskfeat.shapes import position_grid

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_HALF = ([0.5] * 3, [0.5] * 3)
_CLASSIFIER = "classifier.weight"
# Weights that some files have and no output depends on: of a mask token in a classifier, and of a
# pooler behind an encoder.
_UNUSED = ("mask_token", "vit.pooler.")
# The layer norms here add 1e-6 to the variance, those of transformers 1e-12 by default.
_MOST_EPSILON = 1e-5
_FIXED_MULTIPLE = 16  # widths with fixed sin-cos positions of videos
# Where a masked image model of BEiT would find its codes, which are not in the folder.
_NO_LABEL_MAPS = "label_maps"

_ENCODER = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
_DECODER_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


class _Kind(NamedTuple):
    """A `model_type` of config.json.

    Attributes:
        naming: of its weights, in `NAMINGS`.
        configs: class in `architectures` -> configuration in configs/masked_ssl/.
        defaults: of its fields.
        values: (fields, whether it is of a pre-training) -> configuration key -> value.
        normalization: mean and standard deviation of the published models.
    """

    naming: str
    configs: Mapping[str, str]
    defaults: Mapping[str, Any]
    values: Callable[[Fields, bool], dict[str, Any]]
    normalization: tuple[list[float], list[float]]


def read_hugging_face(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read a folder of transformers as if it was a checkpoint of this package.

    Args:
        folder: with config.json and the weights in one file.

    Returns:
        The file of the weights; and the content: `model_state` under published names, `cfg`,
        `class_names` and `token_grid`.

    Raises:
        ValueError: there is no such model here, and the message names the field of config.json; or
            a file is missing or malformed, or the weights are not those of config.json.
    """
    fields, kind, architecture = _open(folder)
    file = weights_file(folder)
    weights = read_weights(file, rename=dict).weights
    config = kind.configs[architecture]
    values = kind.values(fields, config.endswith("_PT"))
    names: tuple[str, ...] = ()
    if not config.endswith("_PT"):
        num_classes = _num_classes(weights, file, architecture)
        names = read_class_names(fields, num_classes)
        values["MODEL.NUM_CLASSES"] = num_classes
    values["DATA.MEAN"], values["DATA.STD"] = _normalization(folder, kind)
    cfg = _load(config, values)
    with on_meta():
        model = build_model(cfg)
    published = NAMINGS[kind.naming].to_published(weights, model_facts(cfg, model))
    used = _check_weights(published, model, file)
    return file, {
        "model_state": used,
        "cfg": cfg.dump(),
        "class_names": list(names),
        "token_grid": list(position_grid(model) or ()),
    }


def _open(folder: Path) -> tuple[Fields, _Kind, str]:
    """Read config.json; return its fields, with defaults, its kind and the class of the model."""
    fields = Fields(folder / CONFIG)
    fields.require("model_type", list(_KINDS), "other models do not exist here")
    kind = _KINDS[fields.get("model_type")]
    given = fields.get("architectures")
    known = [name for name in kind.configs if given == [name]]
    if not known:
        raise fields.error(
            "architectures",
            f"[{' or '.join(map(repr, kind.configs))}], a model with a head that exists here",
        )
    return Fields(folder / CONFIG, kind.defaults), kind, known[0]


def _load(config: str, values: Mapping[str, Any]) -> CfgNode:
    words = [str(word) for pair in values.items() for word in pair]
    return load_config([str(shipped_folder() / "masked_ssl" / f"{config}.yaml")], words)


def _num_classes(weights: Mapping[str, Tensor], file: Path, architecture: str) -> int:
    if _CLASSIFIER not in weights:
        raise ValueError(f"{file} must have the weights of {architecture}, got no {_CLASSIFIER!r}")
    return len(weights[_CLASSIFIER])


def _normalization(folder: Path, kind: _Kind) -> tuple[list[float], list[float]]:
    found = read_normalization(folder)
    if found is None:
        mean, std = kind.normalization
        warnings.warn(
            f"{folder} has no {PROCESSOR}: DATA.MEAN {mean} and DATA.STD {std} are those of the "
            "published models",
            UserWarning,
            stacklevel=2,
        )
    return found or kind.normalization


def _check_weights(
    published: Mapping[str, Tensor], model: nn.Module, file: Path
) -> dict[str, Tensor]:
    """Check that weights are exactly those of a model; return them.

    Raises:
        ValueError: some are missing, have another shape, or belong to another model.
    """
    own = model.state_dict()
    used = {name: value for name, value in published.items() if name in own}
    missing = [name for name in own if name not in used]
    others = [n for n in published if n not in own and not n.startswith(_UNUSED)]
    begin = f"{file} must have the weights that {CONFIG} describes"
    if missing:
        raise ValueError(f"{begin}, got none for {shorten(missing)}")
    for name, value in used.items():
        if value.shape != own[name].shape:
            raise ValueError(
                f"{begin}, with {name!r} of shape {tuple(own[name].shape)}, got "
                f"{tuple(value.shape)}"
            )
    if others:
        raise ValueError(f"{begin}, got others besides: {shorten(others)}")
    return used


def _encoder(fields: Fields) -> dict[str, Any]:
    """Keys of a plain transformer."""
    fields.require("hidden_act", ["gelu"], "the MLPs here have no other")
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        fields.require(
            name, [0.0], "there is no such dropout here; 0.0 changes no output of a trained model"
        )
    fields.number("layer_norm_eps", 0.0, _MOST_EPSILON)
    fields.require("num_channels", [3], "frames are decoded to RGB")
    fields.require("problem_type", [None, "single_label_classification"], "a clip has one class")
    width, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if width % heads:
        raise fields.error("hidden_size", f"a multiple of 'num_attention_heads' {heads}")
    size, patch = fields.side("image_size"), fields.side("patch_size")
    if size % patch:
        raise fields.error("image_size", f"a multiple of 'patch_size' {patch}")
    return {
        "MVIT.DEPTH": fields.integer("num_hidden_layers"),
        "MVIT.EMBED_DIM": width,
        "MVIT.NUM_HEADS": heads,
        "MVIT.MLP_RATIO": _ratio(fields.integer("intermediate_size"), width),
        "MVIT.QKV_BIAS": fields.flag("qkv_bias"),
        "DATA.TRAIN_CROP_SIZE": size,
        "DATA.TEST_CROP_SIZE": size,
    }


def _ratio(hidden: int, width: int) -> float:
    """Return the MLP ratio whose product with the width, rounded down, is the hidden width."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _decoder(fields: Fields, multiple: int) -> dict[str, Any]:
    """Keys of the decoder of a masked autoencoder."""
    width, depth, heads, hidden = (fields.integer(f"decoder_{name}") for name in _DECODER_NAMES)
    ratio = fields.integer("intermediate_size") / fields.integer("hidden_size")
    if hidden != round(width * ratio):
        raise fields.error(
            "decoder_intermediate_size",
            f"{width * ratio:g}: the MLPs of encoder and decoder are {ratio:g} times as wide as "
            "their tokens here",
        )
    if width % heads:
        raise fields.error("decoder_hidden_size", f"a multiple of {heads} attention heads")
    for name in ("hidden_size", "decoder_hidden_size"):
        if fields.integer(name) % multiple:
            raise fields.error(name, f"a multiple of {multiple} with fixed positions")
    return {
        "MASK.PRETRAIN_DEPTH": [fields.integer("num_hidden_layers") - 1],
        "MASK.DECODER_DEPTH": depth,
        "MASK.DECODER_EMBED_DIM": width,
        "MASK.DECODER_NUM_HEADS": heads,
        "MASK.DECODER_FIXED_SINCOS_POS": True,
        "MASK.NORM_PRED_PIXEL": fields.flag("norm_pix_loss"),
    }


def _patches(*sides: int) -> dict[str, Any]:
    return {
        "MVIT.PATCH_KERNEL": list(sides),
        "MVIT.PATCH_STRIDE": list(sides),
        "MVIT.PATCH_PADDING": [0] * len(sides),
    }


def _videomae(fields: Fields, is_pretraining: bool) -> dict[str, Any]:
    values = _encoder(fields)
    frames, tubelet = fields.integer("num_frames"), fields.integer("tubelet_size")
    if frames % tubelet:
        raise fields.error("num_frames", f"a multiple of 'tubelet_size' {tubelet}")
    if fields.integer("hidden_size") % _FIXED_MULTIPLE:
        raise fields.error("hidden_size", f"a multiple of {_FIXED_MULTIPLE} with fixed positions")
    why = "the decoder follows the last layer norm" if is_pretraining else "it has no class token"
    fields.require("use_mean_pooling", [not is_pretraining], why)
    patch = fields.side("patch_size")
    values |= {
        **_patches(tubelet, patch, patch),
        "DATA.NUM_FRAMES": frames,
        "MVIT.CLS_EMBED_ON": False,
        "MVIT.SEP_POS_EMBED": False,
        "MVIT.USE_FIXED_SINCOS_POS": True,
    }
    if is_pretraining:
        tubes = {"AUG.MASK_TUBE": True, "MASK.TIME_STRIDE_LOSS": False}
        return values | _decoder(fields, _FIXED_MULTIPLE) | tubes
    return {**values, "MVIT.USE_MEAN_POOLING": True}


def _vit_mae(fields: Fields, is_pretraining: bool) -> dict[str, Any]:
    patch = fields.side("patch_size")
    ratio = fields.number("mask_ratio", 0.0, 1.0)
    return {
        **_encoder(fields),
        **_patches(patch, patch),
        **_decoder(fields, 4),
        "AUG.MASK_RATIO": ratio,
    }


def _vit(fields: Fields, is_pretraining: bool) -> dict[str, Any]:
    patch = fields.side("patch_size")
    # The configuration leaves out the last norm of an MAE, which this model has trained.
    own = {"MVIT.USE_MEAN_POOLING": False, "TRAIN.CHECKPOINT_LEAVE_OUT": []}
    return {**_encoder(fields), **_patches(patch, patch), **own}


def _beit(fields: Fields, is_pretraining: bool) -> dict[str, Any]:
    patch = fields.side("patch_size")
    biases = {"block": "use_relative_position_bias", "shared": "use_shared_relative_position_bias"}
    on = [kind for kind, name in biases.items() if fields.flag(name)]
    if len(on) > 1:
        raise fields.error(biases["shared"], f"false if {biases['block']!r} is true")
    values = {
        **_encoder(fields),
        **_patches(patch, patch),
        "MVIT.USE_ABS_POS": fields.flag("use_absolute_position_embeddings"),
        "MVIT.REL_POS_BIAS": "".join(on),
        "MVIT.LAYER_SCALE": fields.number("layer_scale_init_value", 0.0, math.inf),
        "MVIT.DROPPATH_RATE": fields.number("drop_path_rate", 0.0, 1.0),
    }
    if not is_pretraining:
        return {**values, "MVIT.USE_MEAN_POOLING": fields.flag("use_mean_pooling")}
    fields.require("use_mean_pooling", [True], "a masked image model has one last norm here")
    fields.require("use_mask_token", [True], "a masked image model has a mask token")
    return {
        **values,
        "MASK.TARGET": "pseudo_labels",
        "MASK.LABEL_MAPS": _NO_LABEL_MAPS,
        "MASK.PRETRAIN_DEPTH": [fields.integer("num_hidden_layers") - 1],
        "MODEL.NUM_CLASSES": fields.integer("vocab_size"),
    }


_KINDS = {
    "videomae": _Kind(
        "videomae",
        {
            "VideoMAEForPreTraining": "k400_VIT_B_16x4_MAE_PT",
            "VideoMAEForVideoClassification": "k400_VIT_B_16x4_FT",
        },
        {
            **_ENCODER,
            "num_frames": 16,
            "tubelet_size": 2,
            "use_mean_pooling": True,
            "decoder_num_attention_heads": 6,
            "decoder_hidden_size": 384,
            "decoder_num_hidden_layers": 4,
            "decoder_intermediate_size": 1536,
            "norm_pix_loss": True,
        },
        _videomae,
        _IMAGENET,
    ),
    "vit_mae": _Kind(
        "vitmae",
        {"ViTMAEForPreTraining": "in1k_VIT_B_MAE_PT"},
        {
            **_ENCODER,
            "decoder_num_attention_heads": 16,
            "decoder_hidden_size": 512,
            "decoder_num_hidden_layers": 8,
            "decoder_intermediate_size": 2048,
            "mask_ratio": 0.75,
            "norm_pix_loss": False,
        },
        _vit_mae,
        _IMAGENET,
    ),
    "vit": _Kind(
        "vitmae", {"ViTForImageClassification": "in1k_VIT_B_MAE_FT"}, _ENCODER, _vit, _HALF
    ),
    "beit": _Kind(
        "hf_beit",
        {
            "BeitForMaskedImageModeling": "in1k_VIT_B_BEiT_PT",
            "BeitForImageClassification": "in1k_VIT_B_BEiT_FT",
        },
        {
            **_ENCODER,
            "vocab_size": 8192,
            "use_mask_token": False,
            "use_absolute_position_embeddings": False,
            "use_relative_position_bias": False,
            "use_shared_relative_position_bias": False,
            "layer_scale_init_value": 0.1,
            "drop_path_rate": 0.1,
            "use_mean_pooling": True,
        },
        _beit,
        _HALF,
    ),
}
