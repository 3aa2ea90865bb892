"""Draw what networks see in videos or images: predictions where masked, attention, features.

    maskfeat visualize --checkpoint hog.pyth pixels.pyth --name HOG pixels \\
        --input x.mp4 y.jpg --output predictions.png

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

An input that is not a video, an image or a folder is an annotation file, read as in training with
the keys of the first checkpoint (change them by --opts DATA.PATH_PREFIX folder
DATA.PATH_LABEL_SEPARATOR ,).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.figures import (
    MAX_ROWS,
    PanelRow,
    file_names,
    panel_columns,
    panel_image,
    prediction_panel,
)
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.runs.feature_pictures import (
    ATTENTION,
    COMPONENTS,
    draw_features,
    load_feature_network,
)
from slowfast_maskfeat.runs.figures import select_steps
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.predictions import compare, load_networks
from slowfast_maskfeat.videos.write_video import write_video

_MAX_STEPS = 4  # time steps of a video in the panel
_ANIMATION_FPS = 4.0


def main(arguments: Sequence[str]) -> int:
    """Draw the figures and print their paths.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # training has already shown these warnings
    options = _parse(arguments)
    return exit_code(lambda: visualize(options), output=options.output)


def visualize(options: argparse.Namespace) -> None:
    """Draw the panel and, for videos, the animation.

    Raises:
        ValueError: A checkpoint is not a pre-trained model, or an input doesn't match it.
        DecodeError: An input can't be decoded.
    """
    output = Path(options.output)
    if output.suffix != ".png":
        raise ValueError(
            f"--output must end in .png, got {output}; the animation of videos is written next to "
            "it, in the format of --film"
        )
    cfg, draw = _drawing(options)
    inputs = [path for given in options.input for path in input_paths(cfg, given, "--input")]
    clips = _draw_all(inputs, draw)
    prediction_panel(output, _panel_rows(clips), title=options.title)
    _print_steps(clips)
    written = [output]
    if max(map(len, clips)) > 1:
        written.append(output.with_suffix(options.film))
        _write_animation(written[-1], clips, options.title)
    print_written(written)


Draw = Callable[[str, int, str], list[PanelRow]]
"""(path of an input, its number, its name) -> its panel rows, one per time step."""


def _drawing(options: argparse.Namespace) -> tuple[CfgNode, Draw]:
    """Load the networks; return the configuration of the first and what draws an input."""
    loading = {"device": options.device, "config_file": options.cfg, "pairs": options.opts}
    if options.what == "predictions":
        networks = load_networks(options.checkpoint, options.name, **loading)

        def draw_predictions(path: str, number: int, name: str) -> list[PanelRow]:
            return compare(networks, path, (options.seed, number), name=name)

        return networks[0].cfg, draw_predictions
    if len(options.checkpoint) != 1 or options.name:
        raise ValueError(
            f"--checkpoint must be one with --what {options.what}, without --name, got "
            f"{len(options.checkpoint)}"
        )
    network = load_feature_network(options.checkpoint[0], **loading)

    def draw_network(path: str, number: int, name: str) -> list[PanelRow]:
        return draw_features(network, path, what=options.what, name=name)

    return network.cfg, draw_network


def _draw_all(inputs: Sequence[str], draw: Draw) -> list[list[PanelRow]]:
    """Panel rows of each input, one per time step."""
    progress = Progress(len(inputs), "inputs", enabled=len(inputs) > 1)
    clips: list[list[PanelRow]] = []
    for number, (path, name) in enumerate(zip(inputs, file_names(inputs), strict=True)):
        clips.append(draw(path, number, name))
        num_rows = round(len(_panel_rows(clips)) / len(clips) * len(inputs))
        if num_rows > MAX_ROWS:  # fail at the first input, not after all of a long list
            raise ValueError(
                f"--input: a panel must have at most {MAX_ROWS} rows, got about {num_rows} for "
                f"{len(inputs)} inputs"
            )
        progress.update()
    progress.close()
    return clips


def _panel_rows(clips: Sequence[list[PanelRow]]) -> list[PanelRow]:
    """Rows of the panel: a few time steps of each input."""
    return [steps[number] for steps in clips for number in _select_steps(steps)]


def _select_steps(steps: Sequence[PanelRow]) -> list[int]:
    """Select at most `_MAX_STEPS` time steps, evenly spaced among those with masked tokens."""
    shown = select_steps([_masked_share(row) for row in steps])
    if len(shown) <= _MAX_STEPS:
        return shown
    return [shown[round(index)] for index in np.linspace(0, len(shown) - 1, _MAX_STEPS)]


def _masked_share(row: PanelRow) -> float:
    if not row.drawings:  # no step differs from another
        return 1.0
    return float(np.mean([np.mean(np.asarray(drawing.mask)) for drawing in row.drawings]))


def _print_steps(clips: Sequence[Sequence[PanelRow]]) -> None:
    """Print which time steps of each video the panel shows."""
    for steps in clips:
        if len(steps) > 1:
            shown = [steps[number].name.split("\n") for number in _select_steps(steps)]
            times = ", ".join(time for *_, time in shown)
            masked = sum(_masked_share(row) > 0 for row in steps)
            where = f"tokens are masked in {masked} of" if steps[0].drawings else "of"
            print(
                f"{shown[0][0]}: drawn at {times}; {where} {len(steps)} time steps", file=sys.stderr
            )


def _write_animation(path: Path, clips: Sequence[list[PanelRow]], title: str) -> None:
    """Write a panel of all inputs per time step; shorter inputs repeat their last one."""
    columns = panel_columns([row for steps in clips for row in steps])
    frames: list[Any] = [
        panel_image(
            [steps[min(step, len(steps) - 1)] for steps in clips], title=title, columns=columns
        )
        for step in range(max(map(len, clips)))
    ]
    if path.suffix == ".mp4":
        write_video(path, frames, fps=_ANIMATION_FPS)
        return
    images = [Image.fromarray(frame) for frame in frames]
    with atomic_write(path) as part:
        images[0].save(
            part,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / _ANIMATION_FPS),
            loop=0,
        )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        nargs="+",
        help="checkpoints; for predictions of pre-trainings",
    )
    add(
        "--what",
        default="predictions",
        choices=["predictions", ATTENTION, COMPONENTS],
        help="predictions of masked tokens, or attention or features of the last block",
    )
    add("--name", nargs="+", default=[], help="name of each checkpoint, shown above its columns")
    add("--cfg", help="YAML file of the model, for weights without a configuration")
    add("--input", required=True, nargs="+", help="videos, images, folders or annotation files")
    add("--output", required=True, help="PNG file of the panel")
    add("--film", default=".gif", choices=[".gif", ".mp4"], help="format of the animation")
    add("--title", default="", help="title of the panel")
    add("--seed", type=int, default=0, help="seed of the masks")
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    add("--opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)
