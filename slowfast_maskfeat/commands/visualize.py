"""Draw what networks see in videos or images: predictions where masked, attention, features.

    maskfeat visualize --checkpoint hog.pyth pixels.pyth --name HOG pixels \\
        --video x.mp4 y.jpg --output predictions.png

The panel shows frame, masked input, target and prediction: HOG as strokes along the edges, pixels
as images, predicted where masked and the original elsewhere. Normalized pixels are denormalized by
the mean and variance of the original patch. A video has rows for up to four time steps in which
tokens are masked (their times are printed), and an animation of all its time steps is written next
to the panel (--film .gif or .mp4), at 4 frames/s.

If several checkpoints take the same frames, they predict the same masked input: its mask and ratio
are those of the first one whose mask cells are no finer than the predictions of any of them. If
there is none, or the frames differ, each has its own mask and a column with its masked input. Rows
are then the frames that all of them predict. All use the validation crop of the first one.

--what attention draws what each head of the last block attends to, for one checkpoint of any kind:
the class token where the training reached it, else the mean over the tokens; --what pca three
principal components of the features of each clip's tokens, as colors. Of a training with a teacher
it is the teacher (--opts TRAIN.CHECKPOINT_WEIGHTS student).

An input that is not a video, an image or a folder is a list: a path per line, or path and label.
Its paths are relative to the working directory, or to the DATA.PATH_PREFIX of the command line
(--opts DATA.PATH_PREFIX folder).
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
    whole_number,
)


def main(arguments: Sequence[str]) -> int:
    """Draw the figures and print their paths.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    options = _parse(arguments)
    from slowfast_maskfeat.commands._visualize import visualize  # after the help, which is fast

    warnings.simplefilter("ignore")  # training has already shown these warnings
    return exit_code(lambda: visualize(options), output=options.output)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser("visualize", __doc__)
    add_model(parser, "checkpoints; for predictions of pre-trainings", nargs="+")
    add = parser.add_argument
    add_videos(parser, required=True)
    add_output_file(parser, "PNG file of the panel", required=True)
    add_force(parser, "the panel and the animation")
    add(
        "--what",
        default="predictions",
        choices=("predictions", "attention", "pca"),
        help="predictions of masked tokens, or attention or features of the last block",
    )
    add(
        "--name",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="name of each checkpoint, shown above its columns",
    )
    add("--film", default=".gif", choices=(".gif", ".mp4"), help="format of the animation")
    add("--title", default="", metavar="TEXT", help="title of the panel")
    add("--seed", type=whole_number(0), default=0, metavar="N", help="seed of the masks")
    add_device(parser)
    return parser.parse_args(arguments)
