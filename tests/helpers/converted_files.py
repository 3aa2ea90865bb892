"""Files that the documented commands `maskfeat convert` read and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.checkpoints import load_checkpoint, save_checkpoint, save_safetensors
from slowfast_maskfeat.checkpoints.naming import NAMINGS, recognize
from slowfast_maskfeat.checkpoints.naming.videomae import sinusoid_positions
from slowfast_maskfeat.config import load_config

# Pairs that make every model narrow; heads and shapes stay possible.
NARROW = ["MVIT.EMBED_DIM", "48"]
# Whose names a documented input has, by how its path begins.
INPUTS = {
    "beit-": "hf_beit",
    "mvit-small": "mmaction",
    "mvit_v2_s": "torchvision",
    "mvitv2_tiny": "timm",
    "vit-mae": "vitmae",
    "videomae": "videomae",
}


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options by name, and the pairs of the configuration."""
    options = {a: b for a, b in pairwise(words) if a.startswith("--") and not b.startswith("--")}
    known = {word for option in options.items() for word in option}
    return options, [word for word in words[1:] if word not in known]


def check_at_full_size(options: Mapping[str, str], pairs: Sequence[str]) -> None:
    """The documented model exists, and the library that is read or written has it."""
    cfg = load_config([options["--cfg"]], pairs)
    with torch.device("meta"):
        model = build_model(cfg)
    for naming in {_naming_of_input(options["--checkpoint"]), options.get("--to", "")} & set(
        NAMINGS
    ):
        if naming in ("mmaction", "timm", "torchvision"):  # the others have positions to look at
            NAMINGS[naming].from_published(model.state_dict(), model_facts(cfg, model))


def provide(options: Mapping[str, str], pairs: Sequence[str]) -> None:
    """Write the files that are read, with the weights of small models."""
    cfg = load_config([options["--cfg"]], pairs)
    for option in ("--checkpoint", "--onto"):
        if option in options:
            _write(Path(options[option]), cfg)


def check_output(options: Mapping[str, str], pairs: Sequence[str]) -> None:
    """The output has the wanted names, and all of them."""
    content = load_checkpoint(options["--output"])
    weights = content.get("model_state", content)
    cfg = load_config([options["--cfg"]], pairs)
    model = build_model(cfg)
    naming = recognize(weights)
    assert naming == options.get("--to", "")
    if naming:
        weights = NAMINGS[naming].to_published(weights, model_facts(cfg, model))
    assert weights.keys() == model.state_dict().keys()


def _naming_of_input(path: str) -> str:
    return next((name for start, name in INPUTS.items() if path.startswith(start)), "")


def _write(path: Path, cfg: CfgNode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    naming = _naming_of_input(str(path))
    model = build_model(cfg)
    if not naming:
        save_checkpoint(path, {"model_state": model.state_dict()})
        return
    # Whatever is to be read with it, a file of theirs is of their way to classify.
    facts = model_facts(cfg, model)._replace(mean_pooling=naming in ("hf_beit", "videomae"))
    theirs = NAMINGS[naming].from_published(_as_theirs(model, naming), facts)
    if path.suffix == ".safetensors":
        save_safetensors(path, {name: value.clone() for name, value in theirs.items()})
    else:
        save_checkpoint(path, theirs)


def _as_theirs(model: nn.Module, naming: str) -> dict[str, torch.Tensor]:
    state = dict(model.state_dict())
    if naming == "videomae":
        _, num_tokens, width = state["pos_embed"].shape
        state["pos_embed"] = sinusoid_positions(num_tokens, width)
    return state
