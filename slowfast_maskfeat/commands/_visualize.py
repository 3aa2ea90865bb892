"""Panels and animations of what networks see."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image

from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output, pairs_of
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
    draw_features,
    load_feature_network,
)
from slowfast_maskfeat.runs.figures import select_steps
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.predictions import compare, load_networks
from slowfast_maskfeat.videos.write_video import write_video

_MAX_STEPS = 4  # time steps of a video in the panel
_ANIMATION_FPS = 4.0


def visualize(options: argparse.Namespace) -> None:
    """Draw the panel and, for videos, the animation.

    Raises:
        ValueError: a checkpoint is not a pre-trained model, an input doesn't match it, or the
            panel or the animation exists or can't be written.
        DecodeError: an input can't be decoded.
    """
    output: Path = options.output
    if output.suffix != ".png":
        raise ValueError(
            f"--output must end in .png, got {output}; the animation of videos is written next to "
            "it, in the format of --film"
        )
    film = output.with_suffix(options.film)
    check_output(output, options)
    check_output(film, options)
    cfg, draw = _drawing(options)
    inputs = input_paths(cfg, options.video, "--video", pairs=pairs_of(options))
    clips = _draw_all(inputs, draw)
    prediction_panel(output, _panel_rows(clips), title=options.title)
    _print_steps(clips)
    written = [output]
    if max(map(len, clips)) > 1:
        written.append(film)
        _write_animation(film, clips, options.title)
    print_written(written)


Draw = Callable[[str, int, str], list[PanelRow]]
"""(path of an input, its number, its name) -> its panel rows, one per time step."""


def _drawing(options: argparse.Namespace) -> tuple[CfgNode, Draw]:
    """Load the networks; return the configuration of the first and what draws an input."""
    loading = {"device": options.device, "config_file": options.cfg, "pairs": pairs_of(options)}
    if options.what == "predictions":
        networks = load_networks(options.checkpoint, options.name, **loading)

        def draw_predictions(path: str, number: int, name: str) -> list[PanelRow]:
            return compare(networks, path, (options.seed, number), name=name)

        return networks[0].cfg, draw_predictions
    if options.name:
        raise ValueError(f"--name does not apply to --what {options.what}: it draws one network")
    if len(options.checkpoint) != 1:
        raise ValueError(
            f"--checkpoint must be one with --what {options.what}, got {len(options.checkpoint)}"
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
                f"--video: a panel must have at most {MAX_ROWS} rows, got about {num_rows} for "
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
            shown = _select_steps(steps)
            name = steps[0].name.partition("\n")[0]
            times = ", ".join(steps[number].name.partition("\n")[2] for number in shown)
            masked = sum(_masked_share(row) > 0 for row in steps)
            where = f"tokens are masked in {masked} of" if steps[0].drawings else "of"
            print(f"{name}: drawn at {times}; {where} {len(steps)} time steps", file=sys.stderr)


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
