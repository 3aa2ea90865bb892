"""Write a trained model to a file for torch.export or ONNX, and compare the file with the model.

    maskfeat export --checkpoint checkpoint_epoch_00100.pyth --output model.onnx
    maskfeat export --checkpoint checkpoint_epoch_00100.pyth --output model.pt2 --preprocessing

The file takes any number of clips (batch, channels, frames, height, width) of the size of the
model's test, normalized, and returns logits; with --preprocessing uint8 clips in RGB, and it
returns probabilities. A detector also takes boxes: index of the clip, x1, y1, x2, y2 in pixels. The
outputs for 1, 2 and 5 random clips must be those of the model within 2e-5, else nothing is written.
The file also has the class names, mean, standard deviation and sampling of the clips as JSON
("facts"). ONNX requires the extra: pip install 'slowfast_maskfeat[export]'.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.runs.export import FORMATS, TOLERANCE, export_model
from slowfast_maskfeat.runs.pretrained import from_pretrained


def main(arguments: Sequence[str]) -> int:
    """Export a model, and print what the file takes and returns.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # training has already shown these warnings
    options = _parse(arguments)
    return exit_code(lambda: _export(options), output=options.output)


def _export(options: argparse.Namespace) -> None:
    path = Path(options.output)
    formats = {suffix: name for name, suffix in FORMATS.items()}
    file_format = options.format or formats.get(path.suffix)
    if file_format is None:
        raise ValueError(
            f"--output must end in {' or '.join(formats)}, or --format must be given, got {path}"
        )
    if path.exists() and not options.force:
        raise ValueError(f"--output: {path} exists; --force overwrites it")
    model = from_pretrained(options.checkpoint, config=options.cfg, overrides=options.opts)
    made = export_model(
        model,
        path,
        file_format=file_format,
        has_preprocessing=options.preprocessing,
        report=lambda step: print(f"{step} ...", file=sys.stderr, flush=True),
    )
    for name, text in made.inputs.items():
        print(f"input {name} {text}")
    print(f"output {made.output}")
    if made.opset:
        print(f"ONNX opset {made.opset}")
    found = made.comparison
    print(
        f"largest difference from the model {found.largest_difference:.1e} (at most "
        f"{TOLERANCE:g}); one clip takes {found.milliseconds:.1f} ms, in the model "
        f"{found.torch_milliseconds:.1f} ms"
    )
    print_written([path])


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of a classifier or detector")
    add("--output", required=True, help="file to write, ending in .onnx or .pt2")
    add("--format", choices=list(FORMATS), help="default: by the suffix of --output")
    add("--preprocessing", action="store_true", help="take uint8 clips, return probabilities")
    add("--force", action="store_true", help="overwrite the file")
    add("--cfg", help="YAML file of the model, for weights without a configuration")
    add("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)
