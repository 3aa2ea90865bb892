"""Draw what pre-trained networks predict of masked videos or images.

    python tools/visualize.py --checkpoint hog.pyth pixels.pyth --name HOG pixels \\
        --input x.mp4 y.jpg --output predictions.png

The panel has frame, masked frame, target and prediction: HOG as strokes along the edges, pixels as
pictures, predicted where masked and the original elsewhere. Several checkpoints complete the same
masked input, that of the first one. A video has rows of several moments, and a film of all of them
beside the panel (--film .gif or .mp4). A list file names one input a line. Normalised pixels are
brought back with the mean and variance of the patch itself.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from PIL import Image
from torch import Tensor

from slowfast_maskfeat.backbones import MaskedModel, resize_mask
from slowfast_maskfeat.build import build_mask_sampler, build_task
from slowfast_maskfeat.build.data import build_validation_view
from slowfast_maskfeat.build.draw import panel_rows, predicted_drawings
from slowfast_maskfeat.build.exit_code import exit_code
from slowfast_maskfeat.build.from_checkpoint import load_trained
from slowfast_maskfeat.checkpoints.whole_file import written_whole
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.pictures import PanelRow, panel_image, prediction_panel
from slowfast_maskfeat.tasks import PretrainTask
from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.media import is_media
from slowfast_maskfeat.videos.write_video import write_video

_MOST_STEPS = 4  # moments of a video in the panel
_FILM_FPS = 4.0


class Network(NamedTuple):
    """A pre-trained network with what it was trained on."""

    cfg: CfgNode
    model: MaskedModel
    task: PretrainTask
    name: str


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
        raise ValueError(f"--output: {output} is to end in .png")
    if options.name and len(options.name) != len(options.checkpoint):
        raise ValueError(
            f"--name: {len(options.name)} names for {len(options.checkpoint)} checkpoints"
        )
    networks = [
        _load(options, checkpoint, number) for number, checkpoint in enumerate(options.checkpoint)
    ]
    inputs = [path for given in options.input for path in _paths(given)]
    clips = [_steps(networks, path, options, number) for number, path in enumerate(inputs)]
    shown = [row for steps in clips for row in _chosen(steps)]
    prediction_panel(output, shown, title=options.title)
    print(output)
    length = max(map(len, clips))
    if length > 1:
        film = output.with_suffix(options.film)
        frames = [
            panel_image([steps[min(step, len(steps) - 1)] for steps in clips], title=options.title)
            for step in range(length)
        ]
        _write_film(film, frames)
        print(film)


def _load(options: argparse.Namespace, checkpoint: str, number: int) -> Network:
    trained = load_trained(
        checkpoint, device=options.device, config_file=options.cfg, pairs=options.opts
    )
    task = build_task(trained.cfg)
    if not isinstance(task, PretrainTask) or not isinstance(trained.model, MaskedModel):
        raise ValueError(f"{checkpoint}: it is of no pre-training, so it predicts no masked tokens")
    task.to(torch.device(options.device))
    name = options.name[number] if options.name else ""
    return Network(trained.cfg, trained.model, task, name)


def _paths(given: str) -> list[str]:
    """An input, or those that a list file names, the first word of each line."""
    if is_media(given):
        return [given]
    lines = Path(given).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _steps(
    networks: list[Network], path: str, options: argparse.Namespace, number: int
) -> list[PanelRow]:
    """A row for each time step of an input."""
    first = networks[0]
    mask = build_mask_sampler(first.cfg)(np.random.default_rng((options.seed, number)))[None]
    clip = _decode(path, first.cfg)
    grid = first.model.prediction_grids(clip.shape[2:])[-1]
    drawings = []
    for network in networks:
        # Each decodes as it was trained: frames may be of another number or size.
        own = clip if network is first else _decode(path, network.cfg)
        if own.shape != clip.shape:
            raise ValueError(
                f"the networks see clips of (frames, height, width) {tuple(clip.shape[2:])} and "
                f"{tuple(own.shape[2:])}, which can't be compared"
            )
        batch = ClipBatch(own, mask=mask).to(torch.device(options.device))
        found = predicted_drawings(network.model, network.task, batch, network.name)
        if found is None:
            raise ValueError("a target is neither HOG nor pixels, and can't be drawn")
        drawings.append(found)
    (rows,) = panel_rows(clip, resize_mask(mask, grid), drawings)
    name = Path(path).name
    if len(rows) == 1:
        return [rows[0]._replace(name=name)]
    return [row._replace(name=f"{name}, {step + 1}") for step, row in enumerate(rows)]


def _decode(path: str, cfg: CfgNode) -> Tensor:
    """(1, C, T, H, W) uint8: the centre view that validation takes."""
    with open_video(path, cfg.DATA.DECODING_BACKEND.replace("torchvision", "auto")) as video:
        clip: Tensor = build_validation_view(cfg)(video)
    return clip.permute(0, 4, 1, 2, 3)


def _chosen(steps: list[PanelRow]) -> list[PanelRow]:
    """A few time steps, evenly spread."""
    if len(steps) <= _MOST_STEPS:
        return steps
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, _MOST_STEPS)]


def _write_film(path: Path, frames: list[Any]) -> None:
    """The panels one after the other."""
    if path.suffix == ".mp4":
        write_video(path, frames, fps=_FILM_FPS)
        return
    images = [Image.fromarray(frame) for frame in frames]
    with written_whole(path) as temporary:
        images[0].save(
            temporary,
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
    add("--checkpoint", required=True, nargs="+", help="of pre-trainings; the first makes the mask")
    add("--name", nargs="+", default=[], help="of each, above its column")
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
