"""Convert a checkpoint to a model and to the parameter names of another library.

    maskfeat convert --cfg model.yaml --checkpoint theirs.bin --output ours.pyth
    maskfeat convert --cfg model.yaml --checkpoint ours.pyth --output theirs.pth --to torchvision

--cfg is the configuration of the model here; the number of classes is that of the input. The input
is converted to the model's parameter names and sizes and written in the form of --to: published
(.pyth), safetensors (.safetensors), or with the names of another library (.pth, .bin,
.safetensors). docs/checkpoints.md lists the models that both have.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_force,
    add_output_file,
    add_pairs,
)

# Keys of `checkpoints.naming.NAMINGS`, whose import takes seconds.
LIBRARIES = (
    *("beit", "hf_beit", "mmaction", "timm"),
    *("torchvision", "videomae", "videomae_code", "vitmae"),
)


def main(arguments: Sequence[str]) -> int:
    """Convert one file.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._convert import convert  # after the help, which is fast

    warnings.simplefilter("ignore")  # warnings about keys for training
    return exit_code(lambda: convert(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("convert", __doc__)
    add = parser.add_argument
    text = "checkpoint to convert, or folder of a run"
    add("--checkpoint", required=True, metavar="FILE", help=text)
    cfg = "YAML file of the model here, or name of a shipped one"
    add("--cfg", required=True, metavar="FILE", help=cfg)
    add_output_file(parser, "file to write", required=True)
    add_force(parser)
    add(
        "--from",
        dest="source",
        default="auto",
        choices=("auto", "published", *LIBRARIES),
        help="parameter names in the checkpoint; auto: detect them",
    )
    add(
        "--to",
        choices=("published", "safetensors", *LIBRARIES),
        help="parameter names and form of the output (default: by its suffix)",
    )
    onto = "checkpoint with weights that the other lacks, such as a classifier"
    add("--onto", metavar="FILE", help=onto)
    add_pairs(parser)
    return parser.parse_args(arguments)
