"""Classify the actions in videos.

    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video x.mp4
    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video folder list.csv \\
        --output scores.csv
    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video long.mp4 --window 2 \\
        --stride 1 --output scores.csv

The score of a video is the mean over all views of the model's test (the maximum with
DATA.ENSEMBLE_METHOD max); that of a window likewise, as if the window were a video. Windows begin
every --stride seconds, and the last one ends with the video. An image is one window. With --output
each video or window has a row: path, begin and end in seconds, the best classes with their scores,
and the reason if it could not be decoded; the same command resumes an interrupted prediction.

The exit code is 0; 1 if one of several videos or windows could not be decoded; 2 if a single video
could not, or if the input is wrong.

A list has a path per line, or path and label. Its paths are relative to the working directory, or
to the folder of DATA.PATH_PREFIX if that is among the pairs of the command line; that of the
training is not used.

The checkpoint contains its configuration and class names; weights without a configuration need
--cfg, and weights without class names can be given them by --names. To compare outputs with another
program, give both the same array of clips instead of a video:

    maskfeat predict --checkpoint weights.pyth --cfg model.yaml --clips clips.npy \\
        --logits logits.npy
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
    whole_number,
)


def main(arguments: Sequence[str]) -> int:
    """Print the best classes, or write them to a file.

    Returns:
        The exit code: 0, 1 if a video of several could not be decoded, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._predict import predict  # after the help, which is fast

    warnings.simplefilter("ignore")  # training has already shown these warnings
    return exit_code(
        lambda: predict(options),
        output=options.output or options.logits,
        resumable=options.output is not None and not options.force,
    )


def _npy_file(text: str) -> str:
    if not text.endswith(".npy"):
        raise argparse.ArgumentTypeError(f"must end with .npy, got {text!r}")
    return text


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("predict", __doc__)
    add_model(parser, "checkpoint of a clip classifier")
    source = parser.add_mutually_exclusive_group(required=True)
    add_videos(source)
    source.add_argument(
        "--clips",
        metavar="FILE",
        help=".npy file of (clips, channels, frames, height, width), uint8 or normalized floats, "
        "channels in the model's order",
    )
    add_output_file(parser, "CSV file to write instead of printing")
    add_force(parser, "the output, and start an interrupted prediction over")
    add = parser.add_argument
    window = {"type": seconds, "default": 0.0, "metavar": "SECONDS"}
    add("--window", help="length of the windows of a video (default: whole videos)", **window)
    add("--stride", help="time from one window to the next (default: --window)", **window)
    names = "file of the class names, one per line, or JSON"
    add("--names", metavar="FILE", help=names)
    logits = ".npy file for the logits of each clip of one video or --clips"
    add("--logits", type=_npy_file, metavar="FILE", help=logits)
    add("--json", action="store_true", help="print JSON instead of text")
    add("--top", type=whole_number(1), default=5, metavar="N", help="number of classes")
    add_device(parser)
    options = parser.parse_args(arguments)
    if options.clips and (options.output or options.window or options.stride):
        parser.error("--output, --window and --stride are for --video")
    if options.output and (options.logits or options.json):
        parser.error("--logits and --json are for predictions without --output")
    if options.stride and not options.window:
        parser.error("--stride requires --window")
    return options
