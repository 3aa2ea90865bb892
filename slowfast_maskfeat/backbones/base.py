"""Interfaces of the networks: what training, features and masked prediction need of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.shapes import Grid


@runtime_checkable
class LayeredModel(Protocol):
    """A network that knows the depth of its parameters, for layer decay and weight decay."""

    @property
    def num_layers(self) -> int:
        """Largest layer id: layer decay scales layer i by decay ** (num_layers - i)."""

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            name: name in `named_parameters`.

        Returns:
            0 for what makes the first tokens, then the number of the block from 1, `num_layers`
            for the rest.
        """

    def no_weight_decay(self) -> set[str]:
        """Names in `named_parameters` that MVIT.ZERO_DECAY_POS_CLS exempts from weight decay."""


@runtime_checkable
class Backbone(LayeredModel, Protocol):
    """A module (`nn.Module`) that turns clips into tokens on a grid.

    Training, features, probes and masked prediction use a backbone through this interface alone;
    `Classifier` and `MaskedPredictor` give it a head.
    """

    @property
    def width(self) -> int:
        """Width D of the tokens that `tokens` returns."""

    @property
    def has_cls(self) -> bool:
        """Whether a class token precedes them."""

    @property
    def token_stride(self) -> Triple:
        """(frames, rows, columns) of the clip that one of them covers."""

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the patch tokens after each block.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            One grid per block; the last is that of the tokens that `tokens` returns.
        """

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens of all patches after the last layer norm.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: (B, t, h, w) bool on a grid that fits that of the patches, see `resize_mask`; True
                where the mask token replaces the patch.

        Returns:
            (B, N, D) in the order of (t, h, w) of the last grid, preceded by a class token if
            there is one: then (B, 1 + N, D).

        Raises:
            ValueError: the clips do not fit the patches, the mask does not fit their grid, or there
                is a mask but the model has no mask token.
        """

    def pooled(self, tokens: Tensor) -> Tensor:
        """One vector for each clip: the class token, else the mean of the tokens.

        Args:
            tokens: the result of `tokens`.

        Returns:
            (B, D).
        """


@runtime_checkable
class LayerTokens(Protocol):
    """A network that shows the tokens of its inner blocks, as targets and perceptual losses need.

    `Backbone.grids` gives their grids.
    """

    def layer_tokens(
        self, clips: Tensor, layers: Sequence[int], *, with_cls: bool = False
    ) -> list[Tensor]:
        """Tokens after some blocks.

        They go through the last layer norm where they have its width, as in DINO (Caron et al.,
        2021), whose evaluation norms the tokens of each of the last blocks.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            layers: blocks, from 0.
            with_cls: keep the class token, if there is one, in front.

        Returns:
            (B, N, D) for each layer, in the order of (t, h, w) of its grid.
        """

    def layer_widths(self) -> list[int]:
        """Width D of the tokens after each block."""


class FeatureModel(nn.Module):
    """A network whose frozen features are probed, extracted or classified.

    Attributes:
        head: (..., D) -> (..., K), from features to raw scores.
        has_cls: whether there is a class token.
    """

    head: nn.Module
    has_cls: bool

    @property
    def width(self) -> int:
        """Width D of a feature."""
        raise NotImplementedError

    @property
    def pooling(self) -> str:
        """How `features` pools the tokens, in words."""
        raise NotImplementedError

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the tokens after each block, see `Backbone.grids`."""
        raise NotImplementedError

    def features(self, clips: Tensor) -> Tensor:
        """Feature of each clip, which the head classifies.

        Args:
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            (B, D).
        """
        raise NotImplementedError

    def class_features(self, clips: Tensor) -> Tensor:
        """The class token of each clip after the last layer norm; only with `has_cls`.

        Args:
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            (B, D).
        """
        raise NotImplementedError

    def token_features(self, clips: Tensor) -> Tensor:
        """Features of each token, without the class token.

        Args:
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            (B, N, D), in the order of (t, h, w) of the last grid.
        """
        raise NotImplementedError


class MaskedModel(nn.Module):
    """A network that predicts at masked tokens, after one or several depths."""

    def prediction_grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the predictions at each depth.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            One grid per predicting depth.
        """
        raise NotImplementedError

    def forward(self, clips: Tensor, mask: Tensor, *, with_pooled: bool = False) -> list[Tensor]:
        """Predict at the masked tokens.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: (B, t', h', w') bool, True where masked, see `resize_mask`; on the CPU, so that
                nothing waits for the device, or on that of the clips.
            with_pooled: also return what the encoder makes of the masked clip.

        Returns:
            One (M, dim) per predicting depth, in the order of (b, t, h, w). With `with_pooled`,
            then the mean of the encoder's patch tokens, (B, D), for each time it encodes the clip.

        Raises:
            ValueError: the clips do not fit the patches or the mask does not fit the tokens.
        """
        raise NotImplementedError
