"""Configuration of a trained model: its checkpoint's own, or a file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config import load_config, parse_config

# Where the annotation files of a training are.
_ANNOTATION_KEYS = (
    "DATA.PATH_TO_DATA_DIR",
    "DATA.TRAIN_SHARDS",
    "DATA.VAL_SHARDS",
    "DATA.TEST_SHARDS",
    "AVA.ANNOTATION_DIR",
)
_SHIPPED = Path(__file__).resolve().parents[2] / "configs"


def trained_config(
    checkpoint: str,
    content: Mapping[str, Any],
    config_file: str | None,
    pairs: Sequence[str] = (),
    *,
    key: str = "--cfg, in Python config",
) -> CfgNode:
    """Load the configuration of `config_file`, else the checkpoint's own.

    The annotation files of its training need not exist: class names are in the checkpoint.

    Args:
        checkpoint: path, for messages.
        content: of the checkpoint, or its header.
        config_file: YAML file; None for the checkpoint's own configuration.
        pairs: keys and values that override both: ["KEY", "VALUE", ...].
        key: the option that gives the file, for messages.

    Raises:
        ValueError: the checkpoint has no configuration and no file is given.
    """
    names = content.get("class_names") or ()
    words = [word for name in _ANNOTATION_KEYS for word in (name, "")]
    words += ["MODEL.NUM_CLASSES", str(len(names))] if names else []
    words += pairs
    if config_file:
        return load_config([config_file], words)
    if not isinstance(content.get("cfg"), str):
        raise ValueError(
            f"{checkpoint} has no configuration; give the YAML file of its model ({key})"
        )
    return parse_config(content["cfg"], checkpoint, words)


def shipped_file(name: str, key: str) -> str:
    """Find a configuration file by its path, or by the name of one in `configs/`.

    Args:
        name: path, or the name of a file without folder and ending.
        key: that has the name, for messages.

    Raises:
        ValueError: there is no such file; the message lists the networks in `configs/teachers/`
            and similar names in `configs/`.
    """
    if Path(name).is_file():
        return name
    found = sorted(_SHIPPED.glob(f"*/{name}.yaml"))
    if not found:
        known = ", ".join(sorted(path.stem for path in _SHIPPED.glob("teachers/*.yaml")))
        raise ValueError(
            f"{key} must be a YAML file or the name of one in configs/ ({known}), got {name!r}"
            f"{_nearest(name)}"
        )
    if len(found) > 1:
        paths = " or ".join(str(path) for path in found)
        raise ValueError(f"{key} must name one file, got {name!r}: {paths}")
    return str(found[0])


def _nearest(name: str) -> str:
    """A hint at the names in `configs/` most similar to `name`; empty if there is none."""
    names = {path.stem for path in _SHIPPED.glob("*/*.yaml") if not path.stem.startswith("_")}
    near = difflib.get_close_matches(Path(name).name.removesuffix(".yaml"), sorted(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
