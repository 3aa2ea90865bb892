"""What every prediction target offers to the pre-training task.

The task calls, per step and per predicting depth:

    target.encode(unmasked clips, grid)     -> (B, N, ...) what each token should be predicted as
    target.loss(prediction, masked rows)    -> (M,)
    target.baseline_loss(masked rows)       -> (), what predicting a constant would cost
    target.update(student)                  after the optimizer step

A target is a module, so that buffers and frozen networks move with it; networks are built by
`build` and handed in. `dim` is the width of the prediction. A target of real numbers (pixels, HOG,
features) encodes to (B, N, dim); one of discrete tokens may encode to (B, N) class indexes and
takes `dim` logits in its loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.losses import mean_squared_error
from slowfast_maskfeat.shapes import Grid


class Target(nn.Module, ABC):
    """What masked tokens are to be predicted as, and the loss of a prediction."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Numbers that the model predicts per token."""

    @abstractmethod
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Encodes every token of a batch, without gradients.

        Args:
            clips: (B, C, T, H, W), the unmasked clips: uint8, or float and already normalized.
            grid: token grid of the prediction.

        Returns:
            (B, N, dim), tokens in the order of (t, h, w).

        Raises:
            ValueError: the clip does not fit `grid`.
        """

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of every masked token; by default the mean squared error, in float32.

        Args:
            prediction: (M, dim).
            target: (M, dim), rows of `encode`.

        Returns:
            (M,), not yet averaged.
        """
        return mean_squared_error(prediction, target)

    def constant_prediction(self, target: Tensor) -> Tensor:
        """The best single prediction for all of `target`; by default its mean.

        Args:
            target: (M, dim), rows of `encode`; M at least 1.

        Returns:
            (dim,).
        """
        return target.mean(dim=0)

    @torch.no_grad()
    def baseline_loss(self, target: Tensor) -> Tensor:
        """The mean loss of the best constant prediction: what is learned shows below it.

        Args:
            target: (M, dim), rows of `encode`; M at least 1.

        Returns:
            (), on the device of `target`, which is not waited for.
        """
        constant = self.constant_prediction(target)
        return self.loss(constant.expand(len(target), -1), target).mean()

    def update(self, student: nn.Module) -> None:
        """Follows the trained model after an optimizer step; does nothing by default.

        Args:
            student: the trained model, which a teacher that learns online averages.
        """


def check_clip_size(clips: Tensor, grid: Grid, token_size: Sequence[int]) -> None:
    """Refuses clips that are not `grid` tokens of `token_size` pixels.

    Args:
        clips: (B, C, T, H, W).
        grid: token grid.
        token_size: frames, rows and columns per token.

    Raises:
        ValueError: not five axes, or sizes that contradict each other.
    """
    if clips.ndim != 5:
        raise ValueError(f"clips have shape {tuple(clips.shape)}; (B, C, T, H, W) is needed")
    expected = tuple(tokens * size for tokens, size in zip(grid, token_size, strict=True))
    if tuple(clips.shape[2:]) != expected:
        size = "x".join(str(axis) for axis in token_size)
        raise ValueError(
            f"a grid of {grid} tokens of {size} pixels covers clips of (T, H, W) = {expected}, "
            f"but these are {tuple(clips.shape[2:])}"
        )
