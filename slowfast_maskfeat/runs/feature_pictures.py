"""Pictures of a network's last block: its attention, and components of its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import Encoder, FeatureModel, last_attention
from slowfast_maskfeat.builders.data import build_validation_view
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.figures import PanelRow, Picture, file_names, heat_picture
from slowfast_maskfeat.runs.features import build_frozen_model
from slowfast_maskfeat.runs.figures import frame_of_step
from slowfast_maskfeat.runs.load_trained import named_device, read_trained
from slowfast_maskfeat.runs.predictions import Clip, load_clip
from slowfast_maskfeat.tasks.drawings import enlarged, principal_colors
from slowfast_maskfeat.videos.decode import open_video

ATTENTION, COMPONENTS = "attention", "pca"


class FeatureNetwork(NamedTuple):
    """A network whose features are drawn.

    Attributes:
        cfg: frozen configuration.
        model: the network that a probe of the checkpoint would use, on `device`.
        device: of the model.
    """

    cfg: CfgNode
    model: FeatureModel
    device: torch.device


def load_feature_network(
    checkpoint: str, *, device: str, config_file: str | None, pairs: Sequence[str]
) -> FeatureNetwork:
    """Load the network of a checkpoint of any kind; of a method with a teacher the teacher.

    Args:
        checkpoint: of a pre-training or a classifier, or a file with only weights.
        device: "cpu" or "cuda".
        config_file: see `trained_config`.
        pairs: see `trained_config`.

    Raises:
        ValueError: see `trained_config` and `build_frozen_model`.
    """
    path, content = read_trained(checkpoint)
    cfg = trained_config(path, content, config_file, pairs)
    torch_device = named_device(device)
    frozen = build_frozen_model(cfg, path, torch_device, content=content)
    return FeatureNetwork(cfg, frozen.model, torch_device)


def draw_features(network: FeatureNetwork, path: str, *, what: str, name: str) -> list[PanelRow]:
    """Draw the center clip of a video or image.

    Args:
        network: from `load_feature_network`.
        path: of the video or image.
        what: "attention": what each head of the last block attends to; "pca": three principal
            components of the features of the clip's tokens, as colors.
        name: of the video or image in the rows; empty: the name of the file.

    Returns:
        A row for each time step of the tokens.

    Raises:
        ValueError: the network does not show its attention.
        DecodeError: the file can't be decoded.
    """
    data = network.cfg.DATA
    with open_video(path, data.DECODING_BACKEND, max_image_pixels=data.MAX_IMAGE_PIXELS) as video:
        clip = load_clip(video, build_validation_view(network.cfg))
    is_reversed = reverses_channels(network.cfg, "val")
    pixels = clip.pixels.flip(1) if is_reversed else clip.pixels
    inputs = normalize(pixels.to(network.device), data.MEAN, data.STD)
    draw = _attention_pictures if what == ATTENTION else _component_pictures
    steps = draw(network, inputs, clip)
    rows = []
    for step, pictures in enumerate(steps):
        text = (name or file_names([path])[0]) + clip.step_text(step, len(steps))
        frame = frame_of_step(clip.pixels[0], step, len(steps))
        rows.append(PanelRow(frame, [], text, pictures))
    return rows


def _attention_pictures(network: FeatureNetwork, inputs: Tensor, clip: Clip) -> list[list[Picture]]:
    """Draw the attention of each head over the frames, relative to the largest of the clip.

    The class token attends where the training reached it; else it is the mean over the patches.
    """
    model = network.model
    if not isinstance(model, Encoder):
        raise ValueError(
            "--what attention requires MODEL.ARCH 'mvit' or 'maskmvit', got "
            f"{network.cfg.MODEL.ARCH!r}; use --what pca"
        )
    of_class_token = model.pooling == "class token"
    (heads,) = last_attention(model, inputs, of_class_token=of_class_token).float().cpu()
    title = "class token" if of_class_token else "mean token"
    num_steps = heads.shape[1]
    largest = heads.flatten(1).amax(dim=1).clamp(min=1e-12)
    shares = heads / largest[:, None, None, None]  # (heads, t, h, w)
    return [
        [
            Picture(
                heat_picture(frame_of_step(clip.pixels[0], step, num_steps), share[step]),
                f"{title}, head {head}",
            )
            for head, share in enumerate(shares, 1)
        ]
        for step in range(num_steps)
    ]


@torch.no_grad()
def _component_pictures(network: FeatureNetwork, inputs: Tensor, clip: Clip) -> list[list[Picture]]:
    """Draw three principal components of the tokens' features, fitted on the clip."""
    features = network.model.token_features(inputs).float()  # (1, N, D)
    grid = network.model.grids(inputs.shape[2:])[-1]
    size = (inputs.shape[3], inputs.shape[4])
    (maps,) = enlarged(principal_colors(features[0])(features), grid, size)
    return [[Picture(picture, "components of the features")] for picture in maps]
