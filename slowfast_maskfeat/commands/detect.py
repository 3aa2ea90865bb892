"""Detect the actions in the boxes of a video, and draw them.

    maskfeat detect --checkpoint ava_checkpoint_epoch_00030.pyth --video x.mp4 \\
        --boxes boxes.csv --output detected

The boxes come from any person detector, one row each: timestamp in seconds, x1, y1, x2, y2; or from
a file in AVA's training format: video, second, x1, y1, x2, y2, action, of which the rows of this
video are read, whatever their action and score. If none of the coordinates is above 1, they are
fractions of width and height, otherwise pixels. The output is `detections.csv` in AVA format
(video, second, x1, y1, x2, y2, action, score) and `detections.mp4`, in which each frame shows the
boxes of the nearest timestamp. Boxes fade with the distance from their timestamp and disappear
after half a second. The video has all frames at their mean frame rate, even if the input's rate
varies, and no audio. The checkpoint contains its configuration and class names; weights without a
configuration need --cfg.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.commands._options import (
    CommandParser,
    add_device,
    add_model,
    add_output_folder,
    fraction,
    whole_number,
)


def main(arguments: Sequence[str]) -> int:
    """Detect actions, write them to a CSV file and draw them.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._detect import detect  # after the help, which is fast

    warnings.simplefilter("ignore")  # training has already shown these warnings
    return exit_code(lambda: detect(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("detect", __doc__)
    add_model(parser, "checkpoint of a detector")
    add = parser.add_argument
    add("--video", required=True, metavar="FILE", help="video file")
    boxes = "CSV file of time, x1, y1, x2, y2, or in AVA's format"
    add("--boxes", required=True, metavar="FILE", help=boxes)
    add_output_folder(parser, "detections.csv and detections.mp4", default=Path("output/detect"))
    add(
        "--threshold",
        type=fraction,
        default=0.3,
        metavar="SCORE",
        help="minimum score of a drawn action",
    )
    top = "maximum number of actions drawn per box"
    add("--top", type=whole_number(0), default=3, metavar="N", help=top)
    add_device(parser)
    return parser.parse_args(arguments)
