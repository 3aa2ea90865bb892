"""Drawings of the predictions of a masked model, for the figures of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask, split_masks
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.figures import Drawing, HOGDrawing, MapDrawing, PixelDrawing
from slowfast_maskfeat.frozen import evaluating
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import (
    ClassTarget,
    FeatureTarget,
    HOGTarget,
    PixelTarget,
    PseudoLabelTarget,
    StoredLabelTarget,
    Target,
    TokenTarget,
)
from slowfast_maskfeat.tasks.base import Task
from slowfast_maskfeat.tasks.masked_prediction import MaskedPrediction
from slowfast_maskfeat.tasks.tokenizer import TokenizerTraining
from slowfast_maskfeat.tokenizers import Tokenizer

ClipDrawings = list[list[Drawing]]
"""A drawing for each clip and time step of the predictions."""


def draw_masked_predictions(
    model: nn.Module, task: Task, batch: ClipBatch, is_reversed: bool
) -> ClipDrawings | None:
    """Draw the predictions at the last depth, see `predicted_drawings`.

    Returns:
        The drawings; None if there is no `Drawer` for the target.
    """
    assert isinstance(task, MaskedPrediction)
    assert isinstance(model, MaskedModel)
    name = drawn_target(task)
    if name is None:
        return None
    return predicted_drawings(model, task, batch, name, is_reversed=is_reversed)


@torch.no_grad()
def draw_reconstructions(
    model: nn.Module, task: Task, batch: ClipBatch, is_reversed: bool
) -> ClipDrawings | None:
    """Draw the frames of clips and their reconstructions by a tokenizer.

    Returns:
        A drawing for each clip and frame; None if the tokenizer reconstructs no pixels.
    """
    assert isinstance(task, TokenizerTraining)
    assert isinstance(model, Tokenizer)
    if task.teacher is not None:
        return None
    images = task.images(batch)
    with evaluating(model):
        pictures = model.decode(model.encode(images))
    frames, made = (
        (x.movedim(1, -1) * 255).round().byte().unflatten(0, (len(batch), -1)).cpu()
        for x in (images, pictures)
    )
    everywhere = torch.ones(1, 1, dtype=torch.bool)
    return [
        [
            PixelDrawing(frame, picture, everywhere, "reconstruction")
            for frame, picture in zip(*of_clip, strict=True)
        ]
        for of_clip in zip(frames, made, strict=True)
    ]


def drawn_target(task: MaskedPrediction) -> str | None:
    """Return the title of the target at the last depth; None if it can't be drawn."""
    target = task.targets[-1]
    if isinstance(target, TokenTarget) and not target.has_pictures:
        return None
    return next((row.name for kind, row in DRAWERS.items() if isinstance(target, kind)), None)


@torch.no_grad()
def predicted_drawings(
    model: MaskedModel,
    task: MaskedPrediction,
    batch: ClipBatch,
    name: str,
    *,
    is_reversed: bool = False,
) -> ClipDrawings:
    """Predict masked clips at the last predicting depth of a network, for drawing.

    Args:
        model: on the device of the batch; its training mode is restored afterwards.
        task: with a target that `drawn_target` supports.
        batch: clips (uint8) with masks; of several masks of a clip the last is drawn.
        name: of the method, as the title of its columns.
        is_reversed: the clips are BGR; drawings are always RGB.

    Returns:
        A drawing for each clip and time step of the predictions.

    Raises:
        ValueError: the mask grid is finer than the predicted grid, so that predicted tokens could
            be partly masked.
    """
    target = cast(Target, task.targets[-1])
    draw = next(row.draw for kind, row in DRAWERS.items() if isinstance(target, kind))
    assert batch.mask is not None
    last_mask = split_masks(batch.mask)[-1]
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    mask_grid = Grid(*last_mask.shape[1:])
    if not mask_grid.divides(grid):
        raise ValueError(
            f"the mask grid must divide the {grid} grid of predicted tokens, got {mask_grid}"
        )
    with evaluating(model):
        predicted = model(normalize(batch.clips, task.mean, task.std), batch.mask)[-1].float()
    encoded = target.encode_batch(batch, grid)  # (B, N, ...)
    filled = encoded.clone()
    mask = resize_mask(last_mask, grid)  # (B, t, h, w)
    filled[mask.flatten(1)] = target.predicted(predicted)
    mask = mask.cpu()
    return [
        [of_step(mask[clip, step], name) for step, of_step in enumerate(of_clip)]
        for clip, of_clip in enumerate(
            draw(target, Scene(encoded, filled, batch, grid, is_reversed))
        )
    ]


Named = Callable[[Tensor, str], Drawing]
"""(mask (h, w), name of the method) -> the drawing of a frame."""


class Scene(NamedTuple):
    """Tokens to draw.

    Attributes:
        encoded: (B, N, ...) of the target.
        filled: the same with predictions where masked.
        batch: the clips.
        grid: of the tokens.
        is_reversed: the clips are BGR.
    """

    encoded: Tensor
    filled: Tensor
    batch: ClipBatch
    grid: Grid
    is_reversed: bool


class Drawer(NamedTuple):
    """How the predictions of a kind of target are drawn.

    Attributes:
        name: of the target, as a title.
        draw: (target, scene) -> the drawing of each clip and time step.
    """

    name: str
    draw: Callable[[Any, Scene], list[list[Named]]]


def _draw_hog(target: HOGTarget, scene: Scene) -> list[list[Named]]:
    cells = (target.to_cells(tokens, scene.grid).cpu() for tokens in (scene.encoded, scene.filled))
    return _each(HOGDrawing, *cells)


def _draw_pixels(target: PixelTarget, scene: Scene) -> list[list[Named]]:
    frames = (
        _first_frames(
            target.to_frames(tokens, scene.batch.clips, scene.grid), scene.grid.t, scene.is_reversed
        )
        for tokens in (scene.encoded, scene.filled)
    )
    return _each(PixelDrawing, *frames)


def _draw_features(target: FeatureTarget, scene: Scene) -> list[list[Named]]:
    """Draw three principal components of the first frame's features, fitted on the target."""
    first = slice(target.num_features)
    show = principal_colors(scene.encoded[..., first].flatten(0, 1))
    size = (scene.batch.clips.shape[3], scene.batch.clips.shape[4])
    maps = (
        enlarged(show(tokens[..., first]), scene.grid, size)
        for tokens in (scene.encoded, scene.filled)
    )
    return _each(partial(_map, kind="feature"), *maps)


def _draw_labels(target: ClassTarget, scene: Scene) -> list[list[Named]]:
    """Draw the likeliest class of each token by a color, the darker the less likely it is."""
    first = slice(target.num_classes)
    size = (scene.batch.clips.shape[3], scene.batch.clips.shape[4])
    colors = class_colors(target.num_classes).to(scene.encoded.device)

    def show(tokens: Tensor) -> Tensor:
        likely, classes = tokens[..., first].max(dim=-1)
        return (colors[classes] * (0.3 + 0.7 * likely[..., None])).to(torch.uint8)

    maps = (enlarged(show(tokens), scene.grid, size) for tokens in (scene.encoded, scene.filled))
    found = (
        scene.encoded[..., first].argmax(dim=-1).flatten().bincount(minlength=target.num_classes)
    )
    most = [number for number in found.argsort(descending=True)[:_NAMED].tolist() if found[number]]
    names = target.class_names or [f"class {number}" for number in range(target.num_classes)]
    legend = tuple((names[n], tuple(colors[n].int().tolist())) for n in most)
    return _each(partial(_map, kind="pseudo-label", legend=legend), *maps)


def _draw_tokens(target: TokenTarget, scene: Scene) -> list[list[Named]]:
    """Draw the reconstructions of the codes by the decoder of the tokenizer."""
    height, width = scene.batch.clips.shape[3:]

    def show(codes: Tensor) -> Tensor:
        pictures = target.to_frames(codes, scene.grid).flatten(0, 1).movedim(-1, 1).float()
        resized = F.interpolate(pictures, (height, width), mode="bilinear", align_corners=False)
        frames = resized.round().to(torch.uint8).movedim(1, -1)
        return frames.unflatten(0, (len(codes), scene.grid.t)).cpu()

    return _each(partial(_map, kind="token"), show(scene.encoded), show(scene.filled))


DRAWERS: Mapping[type[Target], Drawer] = MappingProxyType(
    {
        HOGTarget: Drawer("HOG", _draw_hog),
        PixelTarget: Drawer("pixels", _draw_pixels),
        FeatureTarget: Drawer("features", _draw_features),
        PseudoLabelTarget: Drawer("pseudo-labels", _draw_labels),
        StoredLabelTarget: Drawer("pseudo-labels", _draw_labels),
        TokenTarget: Drawer("tokens", _draw_tokens),
    }
)
"""How each kind of target is drawn; others are not."""

_NAMED = 9  # classes in the legend of pseudo-labels


def _map(target: Any, prediction: Any, mask: Any, name: str, **more: Any) -> MapDrawing:
    return MapDrawing(target, prediction, mask, name, **more)


def _each(
    drawing: Callable[[Any, Any, Any, str], Drawing], targets: Tensor, predictions: Tensor
) -> list[list[Named]]:
    """Leave mask and name of each drawing open: (B, t, ...) twice."""
    return [
        [partial(drawing, *pair) for pair in zip(*of_clip, strict=True)]
        for of_clip in zip(targets, predictions, strict=True)
    ]


def principal_colors(features: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit three principal components.

    Args:
        features: (M, D), D at least 3.

    Returns:
        Features (..., D) -> their components as colors (..., 3) uint8; nine tenths of those of the
        fitted features are within the colors' range.
    """
    mean = features.mean(dim=0)
    _, _, directions = torch.linalg.svd(features - mean, full_matrices=False)
    directions = directions[:3]
    # A direction and its opposite are equally good: its largest entry is positive.
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    directions = (directions * largest.sign()).T  # (D, 3)
    low, high = ((features - mean) @ directions).quantile(
        torch.tensor([0.05, 0.95], dtype=features.dtype, device=features.device), dim=0
    )

    def colors(values: Tensor) -> Tensor:
        share = ((values - mean) @ directions - low) / (high - low).clamp(min=1e-12)
        return (255 * share.clamp(0, 1)).to(torch.uint8)

    return colors


def class_colors(num_classes: int) -> Tensor:
    """Return a bright color for each class, of hues that differ for numbers close to each other.

    Args:
        num_classes: K.

    Returns:
        (K, 3) float32 RGB in 0..255.
    """
    hues = torch.arange(num_classes) * 0.618034 % 1  # the golden ratio spreads them evenly
    # The three channels are a hat function of the hue, shifted by a third each.
    shifted = (hues[:, None] + torch.tensor([0.0, 2 / 3, 1 / 3])) % 1 * 6
    return 255 * (0.25 + 0.75 * ((shifted - 3).abs() - 1).clamp(0, 1))


def enlarged(values: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Enlarge the colors of tokens to the pixels of their frames.

    Args:
        values: (B, N, 3).
        grid: of the tokens.
        size: (H, W) of the frames.

    Returns:
        (B, t, H, W, 3), on the CPU.
    """
    maps = values.cpu().unflatten(1, tuple(grid))
    rows, columns = size[0] // grid.h, size[1] // grid.w
    return maps.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)


def _first_frames(frames: Tensor, num_steps: int, is_reversed: bool) -> Tensor:
    """Return the first frame of each token in RGB: (B, C, T, H, W) -> (B, t, H, W, C)."""
    frames = frames[:, :, :: frames.shape[2] // num_steps].cpu()
    return (frames.flip(1) if is_reversed else frames).permute(0, 2, 3, 4, 1)
