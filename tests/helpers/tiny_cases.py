"""Models of the golden options, for tests that need a real model of some kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode
from helpers.golden_rule import golden_json
from torch import nn

from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.config import default_config


def tiny_options(name: str, **changes: Any) -> dict[str, Any]:
    """Key/value pairs of a tiny golden case; in ``changes``, two underscores stand for a dot."""
    options = dict(golden_json(f"tiny/{name}.json")["options"])
    return {**options, **{key.replace("__", "."): value for key, value in changes.items()}}


def config_of(options: Mapping[str, Any]) -> CfgNode:
    """The defaults with these options over them, unchecked and not frozen."""
    cfg = default_config()
    for key, value in options.items():
        cfg.merge_from_list([key, value])
    return cfg


def model_of(options: Mapping[str, Any]) -> nn.Module:
    """The model of the defaults with these options over them."""
    return build_model(config_of(options))
