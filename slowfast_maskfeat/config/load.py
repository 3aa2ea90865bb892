"""Merge YAML files and KEY VALUE pairs over the defaults, check every value, and freeze."""

from __future__ import annotations

import ast
import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config.defaults import default_config
from slowfast_maskfeat.config.inert import INERT_KEYS, INERT_SECTIONS, overruled
from slowfast_maskfeat.config.yaml_file import parse_yaml, read_yaml

# What a key whose default is None takes when it is given.
_OPTIONAL_KINDS: dict[str, type] = {
    "AUG.COLOR_JITTER": float,
    "AUG.MAX_MASK_PATCHES_PER_BLOCK": int,
    "MVIT.POOL_KVQ_KERNEL": list,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": list,
    "SOLVER.CLIP_GRAD_L2NORM": float,
    "SOLVER.CLIP_GRAD_VAL": float,
}


def load_config(files: Sequence[str], overrides: Sequence[str] = ()) -> CfgNode:
    """Read the configuration of a run.

    Args:
        files: YAML files, later ones win. A file may name others to start from under `_BASE_`
            (one, or a list of which later ones win).
        overrides: `["KEY", "VALUE", ...]`, which win over the files.

    Returns:
        The frozen configuration: every key of `default_config`, nothing else.

    Raises:
        ValueError: a file is missing or is no YAML (with the line), a key is unknown (with the
            nearest known one), a value has another type than its key, or a pair is incomplete.
    """
    return _load([(file, *read_yaml(file)) for file in files], overrides)


def parse_config(text: str, source: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Read the configuration that a checkpoint holds.

    Args:
        text: YAML.
        source: where it comes from, for messages.
        overrides: as in `load_config`.

    Raises:
        ValueError: as in `load_config`.
    """
    return _load([(source, *parse_yaml(text, source))], overrides)


def _load(
    contents: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]], overrides: Sequence[str]
) -> CfgNode:
    cfg = default_config()
    inert: dict[str, str] = {}
    for source, content, _ in contents:
        for key, value in _flatten(content):
            _merge(cfg, key, value, source=source, inert=inert)
    if len(overrides) % 2:
        raise ValueError(
            f"command line: pairs of KEY VALUE, with a blank between, are wanted, but "
            f"{overrides[-1]!r} has no value"
        )
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _merge(cfg, key, value, source="command line", inert=inert)
    given_twice = [sentence for _, _, sentences in contents for sentence in sentences]
    for message in [*dict.fromkeys(given_twice), *inert.values(), *overruled(cfg)]:
        warnings.warn(message, UserWarning, stacklevel=3)
    _check(cfg)
    _resolve_aliases(cfg)
    cfg.freeze()
    return cfg


def _resolve_aliases(cfg: CfgNode) -> None:
    """Replace published values by the ones they mean here."""
    if cfg.DATA.DECODING_BACKEND == "torchvision":  # its decoder was removed from torchvision
        cfg.DATA.DECODING_BACKEND = "auto"


def _flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested sections as (dotted key, value)."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _merge(cfg: CfgNode, key: str, value: Any, *, source: str, inert: dict[str, str]) -> None:
    """Set one key of `cfg`, or note in `inert` why it does nothing."""
    value = _parse(value)
    *sections, name = key.split(".")
    node: Any = cfg
    for section in sections:
        node = node.get(section) if isinstance(node, CfgNode) else None
    if isinstance(node, CfgNode) and name in node:
        if isinstance(node[name], CfgNode):
            if value is None:  # an empty section
                return
            raise ValueError(f"{source}: {key} is a section of keys, not a key: {value!r}")
        node[name] = _coerce(key, value, node[name], source)
        return
    if key in INERT_KEYS:
        neutral, reason = INERT_KEYS[key]
        inert.pop(key, None)  # a later value that asks for nothing takes an earlier one back
        if _as_lists(value) not in neutral:
            inert[key] = f"{key}: {value!r} has no effect: {reason}"
        return
    for section, (switch, reason) in INERT_SECTIONS.items():
        if key.startswith(section + "."):
            if key == f"{section}.{switch}":
                inert.pop(section, None)
            if switch is None or (key == f"{section}.{switch}" and value):
                inert[section] = f"{section}.* has no effect: {reason}"
            return
    raise ValueError(f"{source}: unknown key {key!r}{_nearest(key)}")


def _nearest(key: str) -> str:
    """A hint at the known key most like `key`, empty where none is."""
    known = [name for name, _ in _flatten(default_config())] + list(INERT_KEYS)
    near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.6)
    if not near:
        last = key.rsplit(".", 1)[-1].upper()
        near = [name for name in known if name.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {near[0]}?" if near else ""


def _parse(value: Any) -> Any:
    """A text that is a Python literal (`1e-6`, `(3, 7, 7)`, `None`) as its value."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _as_lists(value: Any) -> Any:
    """Tuples, at any depth, as lists."""
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in value]
    return value


def _coerce(key: str, value: Any, default: Any, source: str) -> Any:
    """`value` in the type of its key, or ValueError."""
    optional = key in _OPTIONAL_KINDS
    kind = _OPTIONAL_KINDS[key] if optional else type(default)
    if optional and value is None:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is list and isinstance(value, (list, tuple)):
        return _as_lists(value)
    if kind is list and isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    if kind is str and value is None:
        return ""
    if kind is str and not isinstance(value, (list, tuple, bool)):
        return str(value)
    if type(value) is kind:
        return value
    raise ValueError(
        f"{source}: {key}: {value!r} is {_kind_name(type(value))}, "
        f"{_kind_name(kind)} is wanted (the default is {default!r})"
    )


def _kind_name(kind: type) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    return names.get(kind, "a list" if kind in (list, tuple) else kind.__name__)


_CHOICES: dict[str, tuple[object, ...]] = {
    "AUG.INTERPOLATION": ("bicubic", "bilinear", "random"),
    "AUG.RE_MODE": ("pixel", "rand", "const"),
    "DATA.DECODING_BACKEND": ("auto", "torchvision", "torchcodec", "pyav", "decord"),
    "DATA.ENSEMBLE_METHOD": ("sum", "max"),
    "MASK.HEAD_TYPE": ("separate", "separate_xformer"),
    "MASK.PIXEL_LOSS": ("l2", "l1"),
    "MODEL.HEAD_ACT": ("softmax", "sigmoid", "none"),
    "MVIT.INIT": ("published", "xavier", "rescaled"),
    "MVIT.MODE": ("conv", "avg", "max"),
    "MVIT.NORM": ("layernorm",),
    "PROBE.KIND": ("", "linear", "attentive", "knn"),
    "SOLVER.LR_POLICY": ("cosine", "steps_with_relative_lrs"),
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TRAIN.CHECKPOINT_INFLATION": ("", "mean", "repeat"),
    "TRAIN.PRECISION": ("", "float32", "bf16", "fp16"),
}

_POSITIVE = (
    "AUG.NUM_SAMPLE",
    "AUG.RE_COUNT",
    "AVA.FRAME_RATE",
    "DATA.NUM_FRAMES",
    "DATA.SAMPLING_RATE",
    "DATA.TEST_CROP_SIZE",
    "DATA.TRAIN_CROP_NUM_SPATIAL",
    "DATA.TRAIN_CROP_NUM_TEMPORAL",
    "DATA.TRAIN_CROP_SIZE",
    "DATA_LOADER.PREFETCH_FACTOR",
    "DETECTION.ROI_XFORM_RESOLUTION",
    "LOG_PERIOD",
    "MASK.HOG_BINS",
    "MASK.HOG_CELL",
    "MODEL.NUM_CLASSES",
    "MVIT.DEPTH",
    "MVIT.EMBED_DIM",
    "MVIT.MLP_RATIO",
    "MVIT.NUM_HEADS",
    "NUM_SHARDS",
    "PROBE.BATCH_SIZE",
    "PROBE.NUM_NEIGHBORS",
    "PROBE.TEMPERATURE",
    "SOLVER.MAX_EPOCH",
    "TEST.BATCH_SIZE",
    "TEST.NUM_ENSEMBLE_VIEWS",
    "TRAIN.ACCUMULATION_STEPS",
    "TRAIN.BATCH_SIZE",
    "TRAIN.CHECKPOINT_PERIOD",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.MAX_NONFINITE",
)

_LARGEST_RATE = 1e30  # of a probe; times a batch it is still a number of 32 bits

_RATES = ("MODEL.DROPOUT_RATE", "MVIT.DROPOUT_RATE", "MVIT.DROPPATH_RATE")
_SHARES = (
    "AUG.GRAY_PROB",
    "AUG.RE_PROB",
    "AVA.DETECTION_SCORE_THRESH",
    "MIXUP.LABEL_SMOOTH_VALUE",
    "MIXUP.PROB",
    "MIXUP.SWITCH_PROB",
)


def _check(cfg: CfgNode) -> None:
    """What can be said of single values without building anything."""
    values = dict(_flatten(cfg))
    for key, choices in _CHOICES.items():
        if values[key] not in choices:
            wanted = ", ".join(repr(choice) for choice in choices)
            raise ValueError(f"{key}: {values[key]!r} is not one of {wanted}")
    for key in _POSITIVE:
        if values[key] <= 0:
            raise ValueError(f"{key}: {values[key]!r} is wanted above 0")
    for key in _RATES:
        if not 0 <= values[key] < 1:
            raise ValueError(f"{key}: {values[key]!r} is wanted from 0 up to, but not, 1")
    for key in _SHARES:
        if not 0 <= values[key] <= 1:
            raise ValueError(f"{key}: {values[key]!r} is wanted in 0..1")
    for rate in cfg.PROBE.LEARNING_RATES:
        if not isinstance(rate, int | float) or not 0 < rate <= _LARGEST_RATE:
            raise ValueError(
                f"PROBE.LEARNING_RATES: {rate!r} is wanted above 0, up to {_LARGEST_RATE}"
            )
    for key in ("PROBE.EPOCHS", "PROBE.NUM_HEADS", "PROBE.WEIGHT_DECAY"):
        if not values[key] >= 0:
            raise ValueError(f"{key}: {values[key]!r} is wanted from 0")
    if not cfg.DATA.DECODE_TIMEOUT >= 0:
        raise ValueError(f"DATA.DECODE_TIMEOUT: {cfg.DATA.DECODE_TIMEOUT} is wanted from 0 (never)")
    if not 0 <= cfg.SHARD_ID < cfg.NUM_SHARDS:
        raise ValueError(f"SHARD_ID: {cfg.SHARD_ID} is wanted in 0..{cfg.NUM_SHARDS - 1}")
    for key in ("DATA.MEAN", "DATA.STD"):
        if len(values[key]) != 3:
            raise ValueError(f"{key}: {values[key]!r}: three values are wanted")
    losses = {
        "cross_entropy": "classification",
        "soft_cross_entropy": "classification",
        "multi_mse": "pre-training",
        "bce": "detection",
        "bce_logit": "detection",
    }
    loss = cfg.MODEL.LOSS_FUNC
    if loss not in losses:
        wanted = ", ".join(f"{name!r} ({task})" for name, task in losses.items())
        raise ValueError(f"MODEL.LOSS_FUNC: {loss!r} is not one of {wanted}")
    if losses[loss] == "detection" and not cfg.DETECTION.ENABLE:
        raise ValueError(f"MODEL.LOSS_FUNC: {loss!r} is for detection; DETECTION.ENABLE is False")
