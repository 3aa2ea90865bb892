"""Checkpoints in the form and with the parameter names of another library."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.weights import inflation, model_facts
from slowfast_maskfeat.checkpoints import (
    LoadError,
    load_weights,
    read_weights,
    save_checkpoint,
    save_safetensors,
)
from slowfast_maskfeat.checkpoints.file_weights import Renaming
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts, recognize, with_own_heads
from slowfast_maskfeat.checkpoints.report import CLASSIFIER
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output, pairs_of
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.load_trained import checkpoint_file
from slowfast_maskfeat.shapes import position_grid
from slowfast_maskfeat.text import printable

# Suffix of the output -> possible forms; the first is the default of --to.
FORMS = {
    ".pyth": ("published",),
    ".safetensors": ("safetensors", *NAMINGS),
    ".pth": tuple(NAMINGS),
    ".bin": tuple(NAMINGS),
}
NUM_CLASSES = "MODEL.NUM_CLASSES"


class Source(NamedTuple):
    """An input file.

    Attributes:
        path: path of the file.
        rename: function that renames its weights to the published names.
        num_classes: number of classifier outputs; 0 without a classifier.
        class_names: class names; empty if the file has none.
    """

    path: str
    rename: Renaming
    num_classes: int
    class_names: tuple[str, ...]


def convert(options: argparse.Namespace) -> None:
    """Read the input, load it into the model and write it; prints a load report.

    Raises:
        ValueError: the input does not match the model, the output form does not support it, or the
            output exists or can't be written.
    """
    output: Path = options.output
    form = _output_form(output, options.to)
    check_output(output, options)
    cfg = _configuration(options)
    if find_method(cfg).has_boxes and form in NAMINGS:
        raise ValueError(f"--to {form} has no detectors of this kind (DETECTION.ENABLE True)")
    with torch.device("meta"):
        facts = model_facts(cfg, build_model(cfg))
    files = [(checkpoint_file(options.onto), "auto")] if options.onto else []
    files.append((checkpoint_file(options.checkpoint), options.source))
    sources = [_open(path, naming, cfg, facts) for path, naming in files]
    cfg = _configuration(options, sources)
    torch.manual_seed(cfg.RNG_SEED)  # weights that no file has are the same in each run
    model = build_model(cfg)
    names = _load_all(model, sources, cfg, new_classifier=NUM_CLASSES in pairs_of(options)[::2])
    _write(output, form, cfg, model, names)
    print(f"{len(model.state_dict())} weights, {form} names")
    print_written([output])


def _configuration(options: argparse.Namespace, sources: Sequence[Source] = ()) -> CfgNode:
    """Configuration of --cfg with the number of classes of the last file with a classifier."""
    # The annotation files named in --cfg may not exist here: the classes come from the checkpoints.
    pairs = ["DATA.PATH_TO_DATA_DIR", ""]
    for source in sources:
        pairs += [NUM_CLASSES, str(source.num_classes)] if source.num_classes else []
    return load_config([options.cfg], [*pairs, *pairs_of(options)])


def _open(path: str, naming: str, cfg: CfgNode, facts: ModelFacts) -> Source:
    rename = _renaming(path, naming, facts)
    clear_names = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
    file = read_weights(path, clear_names=clear_names, average=True, rename=rename)
    if file.num_classes and len(file.class_names) not in (0, file.num_classes):
        raise ValueError(
            f"{path}: class names must match the {file.num_classes} outputs of its classifier, "
            f"got {len(file.class_names)} names"
        )
    return Source(path, rename, file.num_classes, file.class_names)


def _load_all(
    model: nn.Module, sources: Sequence[Source], cfg: CfgNode, *, new_classifier: bool
) -> tuple[str, ...]:
    """Load the files in order, later ones over earlier ones; returns the class names."""
    data = DataSource(cfg)
    names = known = data.class_names
    for source in sources:
        is_last = source is sources[-1]
        report = load_weights(
            model,
            source.path,
            min_coverage=cfg.TRAIN.CHECKPOINT_MIN_COVERAGE if is_last else 0.0,
            clear_names=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
            inflate=inflation(cfg),
            class_names=known,
            average=True,
            rename=source.rename,
            initialized=source is sources[0],
        )
        if not report.loaded:
            raise LoadError(f"{source.path}: no weight matches a parameter of the model", report)
        if is_last and source.num_classes and report.classifier and not new_classifier:
            raise LoadError(
                f"{source.path}: its classifier does not match the model: {report.classifier}; "
                f"for a new classifier, add {NUM_CLASSES} {data.num_classes} to the command",
                report,
            )
        print(printable(str(report)))
        if any(name.startswith(CLASSIFIER) for name in report.loaded):
            names = source.class_names or known
    return names


def _renaming(path: str, naming: str, facts: ModelFacts) -> Renaming:
    """Function that renames a file's weights to the published names."""

    def rename(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = recognize(weights)
        if naming in NAMINGS and not NAMINGS[naming].recognizes(weights):
            hint = f"they look like {found}" if found else "auto detects them"
            raise ValueError(
                f"--from must match the parameter names in {path} ({next(iter(weights))}, ...), "
                f"got {naming}; {hint}"
            )
        found = found if naming == "auto" else naming
        if found in NAMINGS:
            return NAMINGS[found].to_published(weights, facts)
        return with_own_heads(weights)

    return rename


def _output_form(output: Path, requested: str | None) -> str:
    forms = FORMS.get(output.suffix)
    if forms is None:
        raise ValueError(f"--output must end in one of {', '.join(FORMS)}, got {output}")
    if requested is None and len(forms) == len(NAMINGS):
        raise ValueError(f"--to must be one of {', '.join(forms)} for {output}, got none")
    if requested is not None and requested not in forms:
        suffixes = ", ".join(suffix for suffix, held in FORMS.items() if requested in held)
        raise ValueError(
            f"--output must end in one of {suffixes} for --to {requested}, got {output}"
        )
    return requested or forms[0]


def _write(output: Path, form: str, cfg: CfgNode, model: nn.Module, names: tuple[str, ...]) -> None:
    weights: dict[str, Tensor] = dict(model.state_dict())
    if form in NAMINGS:
        theirs = NAMINGS[form].from_published(weights, model_facts(cfg, model))
        # Cloned, because a view of a larger tensor would be saved with all of it.
        theirs = {name: value.clone() for name, value in theirs.items()}
        if output.suffix == ".safetensors":
            save_safetensors(output, theirs)
        else:
            save_checkpoint(output, theirs)
        return
    grid = list(position_grid(model) or ())
    if form == "safetensors":
        save_safetensors(output, weights, class_names=names, token_grid=grid, config=cfg.dump())
        return
    payload: dict[str, Any] = {"model_state": weights, "token_grid": grid, "cfg": cfg.dump()}
    save_checkpoint(output, {**payload, "class_names": list(names)})
