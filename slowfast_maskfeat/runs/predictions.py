"""Predictions of several pre-trained networks for the same masked frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.backbones import MaskedModel
from slowfast_maskfeat.builders.data import build_validation_view
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.label_maps import unchecked_label_maps
from slowfast_maskfeat.builders.masks import mask_grid
from slowfast_maskfeat.builders.methods import build_task, find_method
from slowfast_maskfeat.checkpoints import load_weights
from slowfast_maskfeat.clips import ClipBatch, UniformViews
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.figures import PanelRow, file_names
from slowfast_maskfeat.runs.figures import frame_of_step
from slowfast_maskfeat.runs.load_trained import load_trained, read_trained
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.tasks import MaskedPrediction
from slowfast_maskfeat.tasks.drawings import drawn_target, predicted_drawings
from slowfast_maskfeat.videos.decode import open_video
from slowfast_maskfeat.videos.video import Video


class Network(NamedTuple):
    """A pre-trained network with its task.

    Attributes:
        checkpoint: path of the file, for messages.
        cfg: frozen configuration.
        model: on `device`.
        task: with its target, on `device`.
        name: of the method, as the title of its columns.
        device: of model and task.
    """

    checkpoint: str
    cfg: CfgNode
    model: MaskedModel
    task: MaskedPrediction
    name: str
    device: torch.device

    @property
    def grid(self) -> Grid:
        """Token grid of the last predicting depth."""
        view = build_validation_view(self.cfg)
        return self.model.prediction_grids(view.kinds[0].clip_shape)[-1]


class Clip(NamedTuple):
    """The center clip of a video, as the input of one network.

    Attributes:
        pixels: (1, C, T, H, W) uint8, RGB.
        frames: for each of the T frames, its index in the video and how often it occurred before in
            the clip: clips that are longer than their video repeat frames.
        seconds: of each of the T frames; None for an image.
        crop: (1, 4) of the clip, see `ClipBatch`.
    """

    pixels: Tensor
    frames: list[tuple[int, int]]
    seconds: list[float] | None
    crop: Tensor | None

    def step_text(self, step: int, num_steps: int) -> str:
        """Second line of a row's name, which distinguishes the time steps: "" if there is one."""
        if self.seconds is not None:
            return f"\n{self.seconds[step * (len(self.seconds) // num_steps)]:.2f} s"
        return f"\nstep {step + 1} of {num_steps}" if num_steps > 1 else ""


def load_networks(
    checkpoints: Sequence[str],
    names: Sequence[str],
    *,
    device: str,
    config_file: str | None,
    pairs: Sequence[str],
) -> list[Network]:
    """Load the networks of checkpoints.

    Args:
        checkpoints: of masked pre-trainings.
        names: one per checkpoint; empty: the names of the targets, numbered if equal.
        device: "cpu" or "cuda".
        config_file: see `load_trained`.
        pairs: see `load_trained`.

    Raises:
        ValueError: a checkpoint is not from pre-training or its target can't be drawn; crop sizes
            differ; there are more or fewer names than checkpoints; or see `load_trained`.
    """
    if names and len(names) != len(checkpoints):
        raise ValueError(f"--name must have {len(checkpoints)} names, got {len(names)}")
    found = [
        _load_network(checkpoint, device=device, config_file=config_file, pairs=pairs)
        for checkpoint in checkpoints
    ]
    first = found[0]
    for other in found[1:]:
        crops = [network.cfg.DATA.TRAIN_CROP_SIZE for network in (first, other)]
        if crops[0] != crops[1]:
            raise ValueError(
                "DATA.TRAIN_CROP_SIZE must be the same for all networks, got "
                f"{crops[0]} ({first.checkpoint}) and {crops[1]} ({other.checkpoint}); set it for "
                "all with --opts"
            )
    own = names or _distinct([network.name for network in found])
    return [network._replace(name=name) for network, name in zip(found, own, strict=True)]


def _load_network(
    checkpoint: str, *, device: str, config_file: str | None, pairs: Sequence[str]
) -> Network:
    cfg, model, _ = load_trained(checkpoint, device=device, config_file=config_file, pairs=pairs)
    task = build_task(cfg, model)
    if not isinstance(task, MaskedPrediction) or not isinstance(model, MaskedModel):
        raise ValueError(f"{checkpoint} must be a checkpoint of masked pre-training")
    name = drawn_target(task)
    if name is None:
        raise ValueError(
            f"{checkpoint} must predict something that can be drawn, which its target "
            f"{type(task.targets[-1]).__name__} has no pictures for"
        )
    if task.teacher_prefix:  # the student predicts what its own teacher has
        content = read_trained(checkpoint).content
        load_weights(model, checkpoint, complete=True, teacher=False, content=content)
        if content.get("task_state"):  # a file with only weights has none
            task.load_state_dict(content["task_state"])
    own_device = next(model.parameters()).device
    task.to(own_device)
    return Network(checkpoint, cfg, model, task, name, own_device)


def _distinct(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once: HOG 1, pixels, HOG 2."""
    return [
        name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def compare(
    networks: Sequence[Network], path: str, generator_seed: Sequence[int], *, name: str = ""
) -> list[PanelRow]:
    """Predict the center clip of a video or image with several networks.

    Each network takes the frames of its own validation view, with the crop of the first network. If
    the frames are the same for all networks, so is the masked input: its mask is from the first
    network whose mask cells are no finer than any predicted token. Otherwise each network has its
    own mask.

    Args:
        networks: from `load_networks`.
        path: of the video or image.
        generator_seed: of the masks.
        name: of the video or image in the rows; empty: the name of the file.

    Returns:
        A row for each frame that all networks predict, in temporal order, with the name and the
        time in seconds; for an image the number of the time step.

    Raises:
        ValueError: the networks have no predicted frame in common.
        DecodeError: the file can't be decoded, or a network predicts stored label maps and has none
            of it.
    """
    clips = _decode(networks, path)
    drawings = [
        predicted_drawings(
            network.model,
            network.task,
            _batch(network, clip, mask, path),
            network.name,
            is_reversed=_is_reversed(network),
        )[0]
        for network, clip, mask in zip(
            networks, clips, _masks(networks, clips, generator_seed), strict=True
        )
    ]
    num_steps = len(drawings[0])
    rows = []
    for steps in _common_steps(networks, clips, path):
        frame = frame_of_step(clips[0].pixels[0], steps[0], num_steps)
        columns = [own[step] for own, step in zip(drawings, steps, strict=True)]
        text = (name or file_names([path])[0]) + clips[0].step_text(steps[0], num_steps)
        rows.append(PanelRow(frame, columns, text))
    return rows


def _is_reversed(network: Network) -> bool:
    return reverses_channels(network.cfg, "val")


def _batch(network: Network, clip: Clip, mask: Tensor, path: str) -> ClipBatch:
    pixels = clip.pixels.flip(1) if _is_reversed(network) else clip.pixels
    batch = ClipBatch(pixels, mask=mask[None], crops=clip.crop)
    folder = find_method(network.cfg).label_maps(network.cfg)
    if folder:
        label_map = unchecked_label_maps(network.cfg, folder).read(path)
        batch = replace(batch, label_maps=label_map[None])
    return batch.to(network.device)


def _decode(networks: Sequence[Network], path: str) -> list[Clip]:
    """Decode the clip of each network, all with the crop of the first."""
    first = build_validation_view(networks[0].cfg)
    views = [
        replace(build_validation_view(network.cfg), transform=first.transform)
        for network in networks
    ]
    clips: dict[UniformViews, Clip] = {}
    data = networks[0].cfg.DATA
    with open_video(path, data.DECODING_BACKEND, max_image_pixels=data.MAX_IMAGE_PIXELS) as video:
        for view in dict.fromkeys(views):
            clips[view] = load_clip(video, view)
    return [clips[view] for view in views]


def load_clip(video: Video, view: UniformViews) -> Clip:
    """Load the clip of a view.

    Args:
        video: opened video or image.
        view: with one clip.

    Raises:
        DecodeError: the file can't be decoded.
    """
    (loaded,) = view.load(OpenedRow(video), np.random.default_rng)
    numbers = view.frame_numbers(video)[0].tolist()
    return Clip(
        pixels=loaded.clips.permute(0, 4, 1, 2, 3),  # of (1, T, H, W, C)
        frames=[(number, numbers[:place].count(number)) for place, number in enumerate(numbers)],
        seconds=(
            [float(video.timestamps[number]) for number in numbers]
            if video.num_frames > 1
            else None
        ),
        crop=loaded.crops,
    )


def _masks(
    networks: Sequence[Network], clips: Sequence[Clip], generator_seed: Sequence[int]
) -> list[Tensor]:
    """Draw the mask of each network: (t, h, w) bool on a grid that divides the predicted one.

    A network that takes several masks of each clip, (m, t, h, w), has its own.
    """
    own = [_draw_mask(network, generator_seed) for network in networks]
    has_one = all(mask.ndim == 3 for mask in own)
    if has_one and all(clip.frames == clips[0].frames for clip in clips):
        for network, mask in zip(networks, own, strict=True):
            if all(mask_grid(network.cfg).divides(other.grid) for other in networks):
                return [mask] * len(networks)
    return own


def _draw_mask(network: Network, generator_seed: Sequence[int]) -> Tensor:
    sampler = find_method(network.cfg).masks(network.cfg)[0]
    assert sampler is not None
    return sampler(np.random.default_rng(list(generator_seed)))


def _common_steps(
    networks: Sequence[Network], clips: Sequence[Clip], path: str
) -> list[tuple[int, ...]]:
    """Return, for each frame that all networks predict, the time step in each of them."""
    steps_of = []  # per network: frame -> time step
    for network, clip in zip(networks, clips, strict=True):
        stride = len(clip.frames) // network.grid.t
        steps_of.append({frame: step for step, frame in enumerate(clip.frames[::stride])})
    common = [frame for frame in steps_of[0] if all(frame in steps for steps in steps_of)]
    if not common:
        known = "; ".join(
            f"{network.name} predicts {', '.join(str(number) for number, _ in steps)}"
            for network, steps in zip(networks, steps_of, strict=True)
        )
        raise ValueError(
            f"{path} has no frame that all networks predict: {known}. They differ in "
            f"{_differences(networks)}; set a key for all with --opts"
        )
    return [tuple(steps[frame] for steps in steps_of) for frame in common]


def _differences(networks: Sequence[Network]) -> str:
    """Describe the keys that select frames and differ among networks, with their values."""
    configurations = [network.cfg for network in networks]
    values = {
        "DATA.NUM_FRAMES": [cfg.DATA.NUM_FRAMES for cfg in configurations],
        "DATA.SAMPLING_RATE": [cfg.DATA.SAMPLING_RATE for cfg in configurations],
        "DATA.TARGET_FPS": [cfg.DATA.TARGET_FPS for cfg in configurations],
        "TRAIN.DATASET": [cfg.TRAIN.DATASET for cfg in configurations],
    }
    return ", ".join(
        f"{key} ({', '.join(map(str, found))})"
        for key, found in values.items()
        if len(set(found)) > 1
    )
