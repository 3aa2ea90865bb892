"""Configuration of a trained model: its checkpoint's own, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config import Overrides, load_config, override_pairs, parse_config

# Where the annotation files of a training are.
_ANNOTATION_KEYS = (
    "DATA.PATH_TO_DATA_DIR",
    "DATA.TRAIN_SHARDS",
    "DATA.VAL_SHARDS",
    "DATA.TEST_SHARDS",
    "AVA.ANNOTATION_DIR",
)


def trained_config(
    checkpoint: str,
    content: Mapping[str, Any],
    config_file: str | None,
    pairs: Overrides = (),
    *,
    key: str = "--cfg, in Python config",
) -> CfgNode:
    """Load the configuration of `config_file`, else the checkpoint's own.

    The annotation files of its training need not exist: class names are in the checkpoint.

    Args:
        checkpoint: path, for messages.
        content: of the checkpoint, or its header.
        config_file: YAML file; None for the checkpoint's own configuration.
        pairs: keys and values that override both: see `load_config`.
        key: the option that gives the file, for messages.

    Raises:
        ValueError: the checkpoint has no configuration and no file is given.
    """
    names = content.get("class_names") or ()
    words = [word for name in _ANNOTATION_KEYS for word in (name, "")]
    words += ["MODEL.NUM_CLASSES", str(len(names))] if names else []
    words += override_pairs(pairs)
    if config_file:
        return load_config([config_file], words)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{checkpoint} has no configuration; give the YAML file of its model ({key})"
        )
    return parse_config(content["cfg"], checkpoint, words)
