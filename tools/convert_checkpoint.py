"""Bring a checkpoint to a model, and to the names of another library.

    python tools/convert_checkpoint.py --cfg model.yaml --input theirs.bin --output ours.pyth
    python tools/convert_checkpoint.py --cfg model.yaml --input ours.pyth --output theirs.pth \\
        --to torchvision

--cfg names the model here, the input its classes. The input is brought to the model's names and
sizes, and written as --to says: published (.pyth), safetensors (.safetensors), or in the names of
another library (.pth, .bin, .safetensors). docs/checkpoints.md says which models there are in both.
"""

from __future__ import annotations

import argparse
import sys
import warnings
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
from slowfast_maskfeat.checkpoints.naming import NAMINGS, ModelFacts, recognize
from slowfast_maskfeat.checkpoints.report import CLASSIFIER
from slowfast_maskfeat.checkpoints.transfer import Renaming
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.config import load_config

# What each suffix can hold; the first is taken where --to does not say.
FORMS = {
    ".pyth": ("published",),
    ".safetensors": ("safetensors", *NAMINGS),
    ".pth": tuple(NAMINGS),
    ".bin": tuple(NAMINGS),
}
NUM_CLASSES = "MODEL.NUM_CLASSES"


class Source(NamedTuple):
    """A file that is read.

    Attributes:
        path: Of the file.
        rename: Brings its weights to the published names.
        num_classes: Outputs of its classifier; 0 where it has none.
        class_names: Of these; empty where it says none.
    """

    path: str
    rename: Renaming
    num_classes: int
    class_names: tuple[str, ...]


def main(arguments: list[str]) -> int:
    """Convert one file.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # of keys that concern training
    options = _parse(arguments)
    return exit_code(lambda: convert(options), output=options.output)


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
    cfg = _configuration(options)
    if find_method(cfg).has_boxes and form in NAMINGS:
        raise ValueError(f"--to {form} has no detectors of this kind (DETECTION.ENABLE True)")
    with torch.device("meta"):
        facts = model_facts(cfg, build_model(cfg))
    files = [(options.onto, "auto")] if options.onto else []
    files.append((options.input, options.source))
    sources = [_open(path, naming, cfg, facts) for path, naming in files]
    cfg = _configuration(options, sources)
    torch.manual_seed(cfg.RNG_SEED)  # what no file fills is the same each time
    model = build_model(cfg)
    names = _fill(model, sources, cfg, may_start_anew=NUM_CLASSES in options.opts[::2])
    _write(output, form, cfg, model, names)
    print(f"{output}: {len(model.state_dict())} weights of the model, {form} names")


def _configuration(options: argparse.Namespace, sources: Sequence[Source] = ()) -> CfgNode:
    """That of --cfg, with as many classes as the last file that has a classifier."""
    # The lists that --cfg speaks of need not exist here: the classes are in the files.
    pairs = ["DATA.PATH_TO_DATA_DIR", ""]
    for source in sources:
        pairs += [NUM_CLASSES, str(source.num_classes)] if source.num_classes else []
    return load_config([options.cfg], [*pairs, *options.opts])


def _open(path: str, naming: str, cfg: CfgNode, facts: ModelFacts) -> Source:
    rename = _reader(path, naming, facts)
    clear_names = cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
    file = read_weights(path, clear_names=clear_names, average=True, rename=rename)
    if file.num_classes and len(file.class_names) not in (0, file.num_classes):
        raise ValueError(
            f"{path}: it names {len(file.class_names)} classes, and its classifier has "
            f"{file.num_classes}"
        )
    return Source(path, rename, file.num_classes, file.class_names)


def _fill(
    model: nn.Module, sources: Sequence[Source], cfg: CfgNode, *, may_start_anew: bool
) -> tuple[str, ...]:
    """Load the files, the last one over those before it; returns the names of the classes."""
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
            raise LoadError(f"{source.path}: no weight of it has a place in this model", report)
        if is_last and source.num_classes and report.classifier and not may_start_anew:
            raise LoadError(
                f"{source.path}: its classifier does not fit this model: {report.classifier}; "
                f"{NUM_CLASSES} {data.num_classes}, given after these words, asks for a new one",
                report,
            )
        print(report)
        if any(name.startswith(CLASSIFIER) for name in report.loaded):
            names = source.class_names or known
    return names


def _reader(path: str, naming: str, facts: ModelFacts) -> Renaming:
    """What brings a file's weights to the published names."""

    def rename(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = recognize(weights)
        if naming in NAMINGS and not NAMINGS[naming].recognizes(weights):
            hint = f"they look like those of {found}" if found else "auto finds out what they are"
            raise ValueError(
                f"--from: the names in {path} ({next(iter(weights))}, ...) are not those of "
                f"{naming}; {hint}"
            )
        found = found if naming == "auto" else naming
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
