"""Bring a checkpoint to a model, and to the names of another library.

    python tools/convert_checkpoint.py --cfg model.yaml --input theirs.bin --output ours.pyth
    python tools/convert_checkpoint.py --cfg model.yaml --input ours.pyth --output theirs.pth \\
        --to torchvision

--cfg names the model here. The input is brought to its names and sizes, and written as --to says:
published (.pyth), safetensors (.safetensors), or in the names of another library (.pth, .bin,
.safetensors). docs/checkpoints.md says which models there are in both.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.build import build_model
from slowfast_maskfeat.build.classes import class_names
from slowfast_maskfeat.build.weights import inflation, model_facts
from slowfast_maskfeat.checkpoints import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_safetensors,
)
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts, recognise
from slowfast_maskfeat.checkpoints.report import CLASSIFIER
from slowfast_maskfeat.config import load_config

INVALID_INPUT = 2
# What each suffix can hold; the first is taken where --to does not say.
FORMS = {
    ".pyth": ("published",),
    ".safetensors": ("safetensors", *NAMINGS),
    ".pth": tuple(NAMINGS),
    ".bin": tuple(NAMINGS),
}


def main(arguments: list[str]) -> int:
    """Convert one file.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # of keys that concern training
    options = _parse(arguments)
    try:
        convert(options)
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return INVALID_INPUT
    except OSError as error:
        print(f"error: {options.output}: {error.strerror or error}", file=sys.stderr)
        return INVALID_INPUT
    return 0


def convert(options: argparse.Namespace) -> None:
    """Read, bring to the model, write; prints what was loaded.

    Raises:
        ValueError: the input does not go with the model, or the model not with the output.
        OSError: the output can't be written.
    """
    output = Path(options.output)
    form = _output_form(output, options.to)
    if output.exists() and not options.force:
        raise ValueError(f"{output} is there already; --force overwrites it")
    cfg = load_config([options.cfg], options.opts)
    if cfg.DETECTION.ENABLE and form in NAMINGS:
        raise ValueError(f"DETECTION.ENABLE is True, but {form} has no detectors of this kind")
    torch.manual_seed(cfg.RNG_SEED)  # what no file fills is the same each time
    model = build_model(cfg)
    names = class_names(cfg)
    if options.onto:
        names = _load(options.onto, "auto", cfg, model, names, min_coverage=0.0)
    coverage = cfg.TRAIN.CHECKPOINT_MIN_COVERAGE
    names = _load(options.input, options.source, cfg, model, names, min_coverage=coverage)
    _write(output, form, cfg, model, names)
    print(f"{output}: {len(model.state_dict())} weights of the model, {form} names")


def _load(
    path: str,
    naming: str,
    cfg: CfgNode,
    model: nn.Module,
    names: tuple[str, ...],
    *,
    min_coverage: float,
) -> tuple[str, ...]:
    """Fill the model; returns the class names of its classifier: `names` where it stays."""
    known = class_names(cfg)
    report = load_weights(
        model,
        path,
        min_coverage=min_coverage,
        clear_names=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        inflate=inflation(cfg),
        class_names=known,
        average=True,
        rename=_reader(naming, model_facts(cfg, model)),
    )
    if not report.loaded:
        raise ValueError(f"{path}: no weight of it has a place in this model\n{report}")
    print(report)
    if not any(name.startswith(CLASSIFIER) for name in report.loaded):
        return names
    return tuple(load_checkpoint(path).get("class_names") or known)


def _reader(
    naming: str, facts: ModelFacts
) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """What brings a file's weights to the published names."""

    def rename(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = recognise(weights) if naming == "auto" else naming
        return NAMINGS[found].to_published(weights, facts) if found in NAMINGS else weights

    return rename


def _output_form(output: Path, wanted: str | None) -> str:
    forms = FORMS.get(output.suffix)
    if forms is None:
        raise ValueError(f"--output: {output} ends in none of {', '.join(FORMS)}")
    if wanted is None and len(forms) == len(NAMINGS):
        raise ValueError(f"--to: {output} can hold the names of {', '.join(forms)}; say which")
    if wanted is not None and wanted not in forms:
        suffixes = ", ".join(suffix for suffix, held in FORMS.items() if wanted in held)
        raise ValueError(f"--output: {output} is not for {wanted}, which goes into {suffixes}")
    return wanted or forms[0]


def _write(output: Path, form: str, cfg: CfgNode, model: nn.Module, names: tuple[str, ...]) -> None:
    weights: dict[str, Tensor] = dict(model.state_dict())
    if form in NAMINGS:
        theirs = NAMINGS[form].from_published(weights, model_facts(cfg, model))
        theirs = {name: value.clone() for name, value in theirs.items()}  # not views of whole ones
        if output.suffix == ".safetensors":
            save_safetensors(output, theirs)
        else:
            save_checkpoint(output, theirs)
        return
    grid = list(model.configured_grid)  # type: ignore[arg-type]
    if form == "safetensors":
        save_safetensors(output, weights, class_names=names, token_grid=grid, config=cfg.dump())
        return
    payload: dict[str, Any] = {"model_state": weights, "token_grid": grid, "cfg": cfg.dump()}
    save_checkpoint(output, {**payload, "class_names": list(names)})


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, help="YAML of the model here")
    parser.add_argument("--input", required=True, help="checkpoint to convert")
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument(
        "--from",
        dest="source",
        default="auto",
        choices=["auto", "published", *NAMINGS],
        help="names in the input (auto: found out)",
    )
    parser.add_argument(
        "--to",
        choices=["published", "safetensors", *NAMINGS],
        help="names and form of the output (default: what the suffix says)",
    )
    parser.add_argument("--onto", help="checkpoint for what the input lacks, such as a classifier")
    parser.add_argument("--force", action="store_true", help="overwrite the output")
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
