"""Extract the features of a split of videos or images with a frozen network.

    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --split test \\
        --output features.npz DATA.PATH_TO_DATA_DIR lists OUTPUT_DIR output/probe
    torchrun --nproc_per_node 8 -m slowfast_maskfeat embed --checkpoint ... --split train

Features are saved in OUTPUT_DIR/features during extraction: an interrupted extraction is resumed
from there, and a probe (PROBE.KIND) with the same OUTPUT_DIR, configuration and weights uses them.
Without OUTPUT_DIR that is the folder of --output, else output/extract_features; it is never that of
the checkpoint's training. With --output the features are then written to one file: `features`
(clips, D), or (clips, n, D) with --tokens, `rows`, `views`, `times` (timestamps of each clip in
seconds), `labels`, and as text `paths`, `class_names` and `facts`: annotation file and its hash,
checkpoint and its hash, pooling, decoders, lost videos. The pooled feature of a classifier is its
mean token or class token, according to MVIT.USE_MEAN_POOLING and MVIT.CLS_EMBED_ON; that of a
pre-trained model is the mean of its tokens without the class token. The checkpoint contains its
configuration; weights without a configuration need --cfg.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import CommandParser, add_device, add_model


def main(arguments: Sequence[str]) -> int:
    """Extract and write features, in one process or as one of the processes of torchrun.

    Returns:
        The exit code: 0, 2 for invalid input, or 130 after Ctrl-C.
    """
    options = _parse(arguments)
    from slowfast_maskfeat import distributed  # after the help, which is fast
    from slowfast_maskfeat.commands._embed import embed

    warnings.simplefilter("ignore")  # training has already shown these warnings
    code = exit_code(
        lambda: embed(options), output=options.output or "the features", resumable=True
    )
    if code == 0 and distributed.world_size() > 1:
        distributed.end_process()
    return code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("embed", __doc__)
    add_model(parser, "checkpoint of a pre-trained or trained model")
    add = parser.add_argument
    add(
        "--output",
        metavar="FILE",
        help="file ending in .npz or .safetensors (default: only OUTPUT_DIR/features)",
    )
    add(
        "--split",
        default="test",
        choices=("train", "val", "test"),
        help="split to extract",
    )
    add(
        "--tokens",
        action="store_true",
        help="features of each token except the class token, instead of one per clip",
    )
    add_device(parser)
    return parser.parse_args(arguments)
