"""Interface of prediction targets.

Masked prediction calls, per step and per predicting depth:

    target.encode_batch(batch, grid)        -> (B, N, ...) the target of each token
    target.loss(prediction, masked rows)    -> (M,)
    target.baseline_loss(masked rows)       -> (), the loss of a constant prediction

By default the first encodes the unmasked clips of the batch by `target.encode(clips, grid)`; a
target that needs further fields of the batch overrides it.

A target is a module, so that its buffers move to the device with it; networks that it uses are
built in `builders` and passed in. `dim` is the width of the prediction. Continuous targets (pixels,
HOG, features) encode to (B, N, dim); discrete ones may encode to class indices, with logits as the
prediction in their loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from slowfast_maskfeat.losses import mean_squared_error
from slowfast_maskfeat.shapes import Grid


class Encodable(Protocol):
    """The fields of `clips.ClipBatch` that targets use."""

    @property
    def clips(self) -> Tensor:
        """(B, C, T, H, W)."""

    @property
    def crops(self) -> Tensor | None:
        """(B, 4), fractions of the frames."""

    @property
    def flips(self) -> Tensor | None:
        """(B,) bool."""

    @property
    def label_maps(self) -> Tensor | None:
        """(B, 2, S, h, w)."""

    @property
    def views(self) -> Sequence[Encodable]:
        """A batch of each kind of view, itself first."""


class Target(nn.Module, ABC):
    """A prediction target: the encoding of each token and the loss of a prediction.

    Attributes:
        view: the view of a sample that `encode` gets, see `ClipBatch.views`.
    """

    view: int = 0
    scalar_names: ClassVar[tuple[str, ...]] = ()
    """Names of the result of `scalars`, for the log."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width of the prediction: values per token."""

    @abstractmethod
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Encode every token of a batch, without gradients.

        Args:
            clips: (B, C, T, H, W), the unmasked clips: uint8, or float and already normalized.
            grid: token grid of the prediction.

        Returns:
            (B, N, dim), tokens in the order of (t, h, w).

        Raises:
            ValueError: the clip size does not match `grid`.
        """

    def encode_batch(self, batch: Encodable, grid: Grid) -> Tensor:
        """Encode every token of a batch; by default its view `view`, or the only one, by `encode`.

        Args:
            batch: with unmasked clips.
            grid: token grid of the prediction.

        Returns:
            (B, N, dim), see `encode`.
        """
        return self.encode(batch.views[min(self.view, len(batch.views) - 1)].clips, grid)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of every masked token; by default the mean squared error, in float32.

        Args:
            prediction: (M, dim).
            target: (M, dim), rows of `encode`.

        Returns:
            (M,), not yet averaged.
        """
        return mean_squared_error(prediction, target)

    def scalars(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Compute further means over masked tokens, without gradient; by default none.

        Args:
            prediction: (M, dim); without rows the means are 0, see `losses.mean_or_zero`.
            target: (M, ...), rows of `encode`.
        """
        return {}

    def predicted(self, prediction: Tensor) -> Tensor:
        """Convert predictions to the form of `encode`, for figures; by default they have it.

        Args:
            prediction: (M, dim).

        Returns:
            (M, ...), as rows of `encode`.
        """
        return prediction

    def constant_prediction(self, target: Tensor) -> Tensor:
        """Compute the best constant prediction for all rows of `target`; by default their mean.

        Args:
            target: (M, dim), rows of `encode`; M at least 1.

        Returns:
            (dim,).
        """
        return target.mean(dim=0)

    @torch.no_grad()
    def baseline_loss(self, target: Tensor) -> Tensor:
        """Compute the mean loss of the best constant prediction, which a model that learns beats.

        Args:
            target: (M, dim), rows of `encode`.

        Returns:
            (), on the device of `target`, which is not waited for; 0 without rows.
        """
        if not len(target):
            return torch.zeros((), device=target.device)
        constant = self.constant_prediction(target)
        return self.loss(constant.expand(len(target), -1), target).mean()


def check_clip_size(clips: Tensor, grid: Grid, token_size: Sequence[int]) -> None:
    """Check that clips consist of `grid` tokens of `token_size` pixels.

    Args:
        clips: (B, C, T, H, W).
        grid: token grid.
        token_size: frames, rows and columns per token.

    Raises:
        ValueError: the clips do not have five axes, or have another size.
    """
    if clips.ndim != 5:
        raise ValueError(
            f"clips must have the axes (B, C, T, H, W), got shape {tuple(clips.shape)}"
        )
    expected = tuple(tokens * size for tokens, size in zip(grid, token_size, strict=True))
    if tuple(clips.shape[2:]) != expected:
        size = "x".join(str(axis) for axis in token_size)
        raise ValueError(
            f"clips of {grid} tokens of {size} pixels must have (T, H, W) = {expected}, got "
            f"{tuple(clips.shape[2:])}"
        )
