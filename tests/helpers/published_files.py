"""The published experiment files: their values, as YAML files and as configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fvcore.common.config import CfgNode
from helpers.golden_rule import golden_json

from slowfast_maskfeat.config import parse_config

_CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED_CONFIGS = sorted(
    path
    for path in _CONFIGS.rglob("*.yaml")
    # Recipes of comparisons name configurations, but are none.
    if path.relative_to(_CONFIGS).parts[0] not in ("_base_", "compare")
)
# Dotted key -> value as published, by experiment.
PUBLISHED: dict[str, dict[str, Any]] = {
    name: file["values"] for name, file in golden_json("published_configs.json")["files"].items()
}
# Experiments that papers describe, without a published file in this form; the last has no paper.
OF_PAPERS = (
    "masked_ssl/in1k_VIT_B_MAE_PT",
    "masked_ssl/in1k_VIT_B_MAE_FT",
    "masked_ssl/in1k_VIT_L_MAE_PT",
    "masked_ssl/in1k_VIT_L_MAE_FT",
    "masked_ssl/in1k_VIT_B_SimMIM_PT",
    "masked_ssl/in1k_VIT_B_SimMIM_FT",
    "masked_ssl/in1k_VIT_B_BEiT_FT",
    "masked_ssl/in1k_VIT_L_BEiT_FT",
    "masked_ssl/k400_VIT_B_16x4_SimMIM_PT",
)
# Experiments whose targets a network gives: no results of theirs are known.
OF_TARGETS = (
    "masked_ssl/in1k_VIT_B_DINO_features_PT",
    "masked_ssl/in1k_VIT_B_supervised_features_PT",
    "masked_ssl/in1k_VIT_B_pseudo_labels_PT",
    "masked_ssl/in1k_VQ",
    "masked_ssl/in1k_DVAE",
    "masked_ssl/in1k_PeCo_VQ",
    "masked_ssl/in1k_VQKD",
    "masked_ssl/in1k_VIT_B_tokens_PT",
    "masked_ssl/k400_MVITv2_S_16x4_tokens_PT",
    "masked_ssl/k400_MVITv2_S_16x4_features_PT",
    "masked_ssl/k400_MVITv2_S_16x4_pseudo_labels_PT",
    "masked_ssl/in1k_VIT_B_BEiT_PT",
    "masked_ssl/in1k_VIT_L_BEiT_PT",
    "masked_ssl/k400_VIT_B_16x4_BEiT_PT",
    "masked_ssl/in1k_VIT_B_EMA_latents_PT",
    "masked_ssl/k400_MVITv2_S_16x4_EMA_latents_PT",
    "masked_ssl/k400_VIT_B_16x4_VJEPA_PT",
    "masked_ssl/k400_VIT_L_16x4_VJEPA_PT",
    "masked_ssl/in1k_VIT_B_PeCo_PT",
    "masked_ssl/in1k_VIT_B_PeCo_FT",
    "masked_ssl/in1k_VIT_B_SaGe_features_PT",
    "masked_ssl/in1k_VIT_S_DINO_PT",
    "masked_ssl/in1k_VIT_B_DINO_PT",
    "masked_ssl/in1k_VIT_S_iBOT_PT",
    "masked_ssl/in1k_VIT_B_iBOT_PT",
    "masked_ssl/in1k_VIT_B_BYOL_PT",
    "masked_ssl/k400_MVITv2_S_16x4_BYOL_PT",
    "masked_ssl/k400_MVITv2_S_16x4_DINO_PT",
    "masked_ssl/k400_MVITv2_S_16x4_iBOT_PT",
)


def write_yaml(path: Path, values: Mapping[str, Any]) -> Path:
    """Write dotted keys as a file of sections; returns its path."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    path.write_text(yaml.safe_dump(nested))
    return path


def published_config(model: str, overrides: Sequence[str] = ()) -> CfgNode:
    """The configuration of a model of golden/models, and `overrides` over it."""
    golden = golden_json(f"models/{model}.json")
    values = json.dumps(PUBLISHED[golden["config"]])
    return parse_config(values, model, [*map(str, golden["overrides"]), *overrides])
