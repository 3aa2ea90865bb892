"""Draw what pre-trained networks predict of masked videos or images.

    python tools/visualize.py --checkpoint hog.pyth pixels.pyth --name HOG pixels \\
        --input x.mp4 y.jpg --output predictions.png

The panel has frame, masked frame, target and prediction: HOG as strokes along the edges, pixels as
pictures, predicted where masked and the original elsewhere. Normalized pixels are brought back with
the mean and variance of the patch itself. A video has rows of several moments, and a film of all of
them beside the panel (--film .gif or .mp4), four a second.

Several checkpoints complete the same masked input where they take the same frames: the mask, and
how much it hides, is that of the first one whose cells are no finer than what any of them predicts.
Where there is none, or the frames differ, each has a mask of its own, and a column with what it
sees. Rows are then of the frames that all of them predict. All take the crop as the first one's
validation does.

A file that is no video or image is a list of them, read as one of training with the keys of the
first checkpoint (--opts DATA.PATH_PREFIX folder DATA.PATH_LABEL_SEPARATOR , for others).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from slowfast_maskfeat.builders.datasets import read_list_file
from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.figures import (
    MAX_ROWS,
    PanelRow,
    panel_columns,
    panel_image,
    prediction_panel,
)
from slowfast_maskfeat.files import atomic_write, is_file, read_bytes
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.runs.compare import Network, compare, load_networks
from slowfast_maskfeat.videos.media import is_media
from slowfast_maskfeat.videos.write_video import write_video

_MOST_STEPS = 4  # moments of a video in the panel
_FILM_FPS = 4.0


def main(arguments: list[str]) -> int:
    """Draw, and say where.

    Returns:
        the exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # the configuration was warned about when it trained
    options = _parse(arguments)
    return exit_code(lambda: visualize(options), output=options.output)


def visualize(options: argparse.Namespace) -> None:
    """Draw the panel, and for videos the film.

    Raises:
        ValueError: a checkpoint is of no pre-training, or an input doesn't fit.
        DecodeError: an input can't be decoded.
    """
    output = Path(options.output)
    if output.suffix != ".png":
        raise ValueError(
            f"--output: {output} is to end in .png; the film of videos is written beside it, as "
            "--film says"
        )
    networks = load_networks(
        options.checkpoint,
        options.name,
        device=options.device,
        config_file=options.cfg,
        pairs=options.opts,
    )
    inputs = [path for given in options.input for path in _paths(networks[0], given)]
    clips = _compare_all(networks, inputs, options.seed)
    with atomic_write(output) as part:
        prediction_panel(part, _shown(clips), title=options.title)
    print(output)
    if max(map(len, clips)) > 1:
        film = output.with_suffix(options.film)
        _write_film(film, clips, options.title)
        print(film)


def _paths(network: Network, given: str) -> list[str]:
    """An input, or those that a list file names."""
    if is_media(given):
        return [given]
    if Path(given).is_dir():
        raise ValueError(f"--input: {given} is a folder; videos, images or a list are wanted")
    if is_file(given) and b"\0" in read_bytes(given):
        raise ValueError(
            f"--input: {given} has no ending of a video or image, and is no text, as a list is"
        )
    rows = read_list_file(network.cfg, given)
    return [rows.path(row) for row in range(len(rows))]


def _compare_all(
    networks: Sequence[Network], inputs: Sequence[str], seed: int
) -> list[list[PanelRow]]:
    """The rows of each input."""
    progress = Progress(len(inputs), "inputs", enabled=len(inputs) > 1)
    clips: list[list[PanelRow]] = []
    for number, path in enumerate(inputs):
        clips.append(compare(networks, path, (seed, number)))
        num_rows = len(inputs) * len(_chosen(clips[0]))
        if num_rows > MAX_ROWS:  # fail at the first input, not after all of a long list
            raise ValueError(
                f"--input: a panel must have at most {MAX_ROWS} rows, got about {num_rows} for "
                f"{len(inputs)} inputs"
            )
        progress.update()
    progress.close()
    return clips


def _shown(clips: Sequence[list[PanelRow]]) -> list[PanelRow]:
    """The rows of the panel."""
    return [row for steps in clips for row in _chosen(steps)]


def _chosen(steps: list[PanelRow]) -> list[PanelRow]:
    """A few time steps, evenly spread."""
    if len(steps) <= _MOST_STEPS:
        return steps
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, _MOST_STEPS)]


def _write_film(path: Path, clips: Sequence[list[PanelRow]], title: str) -> None:
    """A panel of all inputs for each time step; those that end earlier stand still."""
    columns = panel_columns([row for steps in clips for row in steps])
    frames: list[Any] = [
        panel_image(
            [steps[min(step, len(steps) - 1)] for steps in clips], title=title, columns=columns
        )
        for step in range(max(map(len, clips)))
    ]
    if path.suffix == ".mp4":
        write_video(path, frames, fps=_FILM_FPS)
        return
    images = [Image.fromarray(frame) for frame in frames]
    with atomic_write(path) as part:
        images[0].save(
            part,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / _FILM_FPS),
            loop=0,
        )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, nargs="+", help="of pre-trainings")
    add("--name", nargs="+", default=[], help="of each, above its columns")
    add("--cfg", help="YAML of the model, for weights that come without")
    add("--input", required=True, nargs="+", help="videos, images or list files")
    add("--output", required=True, help="panel to write, .png")
    add("--film", default=".gif", choices=[".gif", ".mp4"], help="kind of the film of videos")
    add("--title", default="", help="above the panel")
    add("--seed", type=int, default=0, help="of the masks")
    add(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    add("--opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
