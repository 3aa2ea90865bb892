"""Drawings of the predictions of a masked model, for the figures of a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.figures import Drawing, HOGDrawing, PixelDrawing
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import HOGTarget, PixelTarget
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
        The drawings; None if the target is neither HOG nor pixels.
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
    """Draw the frames of clips and what a tokenizer makes of their codes.

    Returns:
        A drawing for each clip and frame; None if the tokenizer reconstructs no pixels.
    """
    assert isinstance(task, TokenizerTraining)
    assert isinstance(model, Tokenizer)
    if task.teacher is not None:
        return None
    images = task.images(batch)
    was_training = model.training
    model.eval()
    pictures = model.decode(model.encode(images))
    model.train(was_training)
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
    names = {HOGTarget: "HOG", PixelTarget: "pixels"}
    return next((name for kind, name in names.items() if isinstance(target, kind)), None)


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
        batch: clips (uint8) with masks.
        name: of the method, as the title of its columns.
        is_reversed: the clips are BGR; drawings are always RGB.

    Returns:
        A drawing for each clip and time step of the predictions.

    Raises:
        ValueError: the mask grid is finer than the predicted grid, so that predicted tokens could
            be partly masked.
    """
    target = task.targets[-1]
    assert isinstance(target, (HOGTarget, PixelTarget))
    assert batch.mask is not None
    grid = model.prediction_grids(batch.clips.shape[2:])[-1]
    mask_grid = Grid(*batch.mask.shape[1:])
    if not mask_grid.divides(grid):
        raise ValueError(
            f"the mask grid must divide the {grid} grid of predicted tokens, got {mask_grid}"
        )
    was_training = model.training
    model.eval()
    predicted = model(normalize(batch.clips, task.mean, task.std), batch.mask)[-1].float()
    model.train(was_training)
    encoded = target.encode(batch.clips, grid)  # (B, N, dim)
    filled = encoded.clone()
    mask = resize_mask(batch.mask, grid)  # (B, t, h, w)
    filled[mask.flatten(1)] = predicted
    drawing: type[HOGDrawing] | type[PixelDrawing]
    if isinstance(target, HOGTarget):
        drawing = HOGDrawing
        targets, predictions = (target.to_cells(tokens, grid).cpu() for tokens in (encoded, filled))
    else:
        drawing = PixelDrawing
        targets, predictions = (
            _first_frames(target.to_frames(tokens, batch.clips, grid), grid.t, is_reversed)
            for tokens in (encoded, filled)
        )
    mask = mask.cpu()
    return [
        [
            drawing(targets[clip, step], predictions[clip, step], mask[clip, step], name)
            for step in range(grid.t)
        ]
        for clip in range(len(batch))
    ]


def _first_frames(frames: Tensor, num_steps: int, is_reversed: bool) -> Tensor:
    """Return the first frame of each token in RGB: (B, C, T, H, W) -> (B, t, H, W, C)."""
    frames = frames[:, :, :: frames.shape[2] // num_steps].cpu()
    return (frames.flip(1) if is_reversed else frames).permute(0, 2, 3, 4, 1)
