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
import warnings
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_force,
    add_model,
    add_output_file,
)


def main(arguments: Sequence[str]) -> int:
    """Export a model, and print what the file takes and returns.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._export import export  # after the help, which is fast

    warnings.simplefilter("ignore")  # training has already shown these warnings
    return exit_code(lambda: export(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("export", __doc__)
    add_model(parser, "checkpoint of a classifier or detector")
    add_output_file(parser, "file to write, ending in .onnx or .pt2", required=True)
    add_force(parser)
    add = parser.add_argument
    add(
        "--format",
        choices=("torch-export", "onnx"),
        help="format of the file, where its suffix does not say it",
    )
    add("--preprocessing", action="store_true", help="take uint8 clips, return probabilities")
    return parser.parse_args(arguments)
