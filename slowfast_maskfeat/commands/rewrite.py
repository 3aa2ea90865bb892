"""Rewrite an old checkpoint, which needs code to be read, as one that can be read safely.

    maskfeat rewrite --checkpoint old.pyth --output new.pyth

The code that the input needs is not run: every class and function, but for those that rebuild
tensors, arrays and containers, is replaced by a placeholder. Of a whole module the parameters and
buffers are read. Do it in a sandbox nevertheless, as shown in INSTALL.md under "Old checkpoints":
the file chooses what the reader does. The weights are kept, with the epoch, the text of the
configuration, class names and token grid; NumPy arrays become tensors. The names of everything else
are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import CommandParser, add_force, add_output_file


def main(arguments: Sequence[str]) -> int:
    """Rewrite one file.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._rewrite import rewrite  # after the help, which is fast

    return exit_code(lambda: rewrite(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("rewrite", __doc__)
    text = "checkpoint to read, or folder of a run"
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help=text)
    add_output_file(parser, "file to write: .pyth, .pth or .pt", required=True)
    add_force(parser)
    return parser.parse_args(arguments)
