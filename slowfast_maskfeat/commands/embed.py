"""Extract the features of videos or images with a frozen network.

    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --split test \\
        --output features.npz DATA.PATH_TO_DATA_DIR lists OUTPUT_DIR output/probe
    maskfeat embed --checkpoint ssl_checkpoint_epoch_00300.pyth --video long.mp4 --stride 1 \\
        --pooling mean --output features.npz
    torchrun --nproc_per_node 8 -m slowfast_maskfeat embed --checkpoint ... --split train

The samples are those of a split's list, or with --video any videos, images, folders and lists of
them. Of "test" and of whole videos all views of the test are taken, of "train" and "val" the center
clip. With --stride or --window each window of a video has its center clip; windows begin every
--stride seconds, and the last one ends with the video. Without --window they span a clip. An image
is one window. Paths in a list given to --video are relative to the working directory, or to the
DATA.PATH_PREFIX of the command line; that of the training is not used.

Features are saved in OUTPUT_DIR/features during extraction: an interrupted extraction is resumed
from there, and a probe (PROBE.KIND) with the same OUTPUT_DIR, configuration and weights uses them.
Without OUTPUT_DIR that is the folder of --output, else output/extract_features; it is never that of
the checkpoint's training. With --output the features are then written to one file: `features`
(clips, D), or with --pooling none (clips, n, D), `rows`, `views`, `times` (timestamps of each clip
in seconds), `labels`, and as text `paths`, `class_names` and `facts`: annotation file and its hash,
checkpoint and its hash, pooling, decoders, lost videos. Without --pooling the feature of a
classifier is its mean token or class token, according to MVIT.USE_MEAN_POOLING and
MVIT.CLS_EMBED_ON; that of a pre-trained model is the mean of its tokens without the class token.
The checkpoint contains its configuration; weights without a configuration need --cfg. The exit code
is 0, or 1 if a video or window of --video could not be decoded; a split may lose videos.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_device,
    add_force,
    add_model,
    add_output_file,
    add_videos,
    seconds,
)

POOLINGS = ("mean", "cls", "none")  # of features.extraction, which imports torch


def main(arguments: Sequence[str]) -> int:
    """Extract and write features, in one process or as one of the processes of torchrun.

    Returns:
        The exit code: 0, 1 if a part of --video has no features, 2 for invalid input, or 130 after
        Ctrl-C.
    """
    options = _parse(arguments)
    from slowfast_maskfeat import distributed  # after the help, which is fast
    from slowfast_maskfeat.commands._embed import embed

    warnings.simplefilter("ignore")  # training has already shown these warnings
    code = exit_code(
        lambda: embed(options), output=options.output or "the features", resumable=True
    )
    if code in (0, 1) and distributed.world_size() > 1:
        distributed.end_process(code)
    return code


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("embed", __doc__)
    add_model(parser, "checkpoint of a pre-trained or trained model")
    add = parser.add_argument
    features = "file ending in .npz or .safetensors (default: only OUTPUT_DIR/features)"
    add_output_file(parser, features)
    add_force(parser, "the file")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test"),
        help="split to extract",
    )
    add_videos(source)
    times = {"type": seconds, "default": 0.0, "metavar": "SECONDS"}
    add(
        "--window",
        **times,
        help="length of a window of a video (default with --stride: that of a clip)",
    )
    add("--stride", **times, help="from one window to the next (default: --window)")
    add(
        "--layer",
        type=int,
        default=-1,
        metavar="N",
        help="block whose tokens are taken, from 0; negative: from the last",
    )
    pooling = parser.add_mutually_exclusive_group()
    pooling.add_argument(
        "--pooling",
        default="",
        choices=POOLINGS,
        help="one feature for each clip, or none: one for each token except the class token "
        "(default: as the classifier of the network takes them)",
    )
    pooling.add_argument(
        "--tokens", action="store_const", dest="pooling", const="none", help="--pooling none"
    )
    add_device(parser)
    options = parser.parse_args(arguments)
    if not options.video and (options.window or options.stride):
        parser.error("--window and --stride are for --video")
    return options
