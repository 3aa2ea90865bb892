"""Heads: class scores of pooled tokens, and predictions at masked tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.block import MultiscaleBlock, run_block
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.masking import masked_places, take_places
from slowfast_maskfeat.backbones.options import DecoderOptions, EncoderOptions
from slowfast_maskfeat.shapes import Grid


class ClassificationHead(nn.Module):
    """Dropout and a linear layer.

    Args:
        dim: width of the pooled token.
        num_classes: number of classes K.
        dropout: rate before the linear layer.
        init_scale: factor of the initial weight and bias; 0.001 in published fine-tuning.
        initialization: how they start before it, a name in `INITIALIZATIONS`.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        initialization: str = "published",
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)
        self.apply(INITIALIZATIONS[initialization].classifier)
        self.projection.weight.data.mul_(init_scale)
        self.projection.bias.data.mul_(init_scale)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, K) raw scores."""
        return self.projection(self.dropout(pooled))


class PredictionHead(nn.Module):
    """One small decoder per predicting depth: blocks if any, a layer norm, a linear layer.

    Source: MaskFeat (Wei et al., 2022), section 3; the blocks are those of MAE (He et al., 2022).

    Args:
        dims: width of the tokens at each predicting depth.
        output_dims: width of the prediction at each.
        grids: configured token grid at each.
        encoder: options of the encoder; the blocks here share its initialization, activation
            checkpointing and, see `DecoderOptions.block`, block options.
        decoder: the other options of the blocks here.

    Raises:
        ValueError: as `DecoderOptions.geometries`.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        output_dims: Sequence[int],
        grids: Sequence[Grid],
        encoder: EncoderOptions,
        decoder: DecoderOptions,
    ) -> None:
        super().__init__()
        self.has_cls = encoder.block.has_cls
        self.recompute = encoder.recomputes(None)
        self.transforms = nn.ModuleList()
        self.projections = nn.ModuleList()
        for dim, output_dim, grid in zip(dims, output_dims, grids, strict=True):
            blocks = [
                MultiscaleBlock(geometry, grid, decoder.block(encoder.block))
                for geometry in decoder.geometries(dim)
            ]
            width = decoder.width if blocks else dim
            norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
            self.transforms.append(nn.ModuleList([*blocks, norm]))
            self.projections.append(nn.Linear(width, output_dim))
        self.apply(INITIALIZATIONS[encoder.initialization].predictor)

    def forward(self, tokens: Tensor, grid: Grid, mask: Tensor, *, index: int) -> Tensor:
        """Predict at the masked tokens of one depth.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: grid of the other tokens.
            mask: (B, N without cls) bool, True where to predict, see `take_masked`.
            index: which predicting depth.

        Returns:
            (M, output dim) in the order of (b, t, h, w).
        """
        blocks = list(self.transforms[index].children())[:-1]  # a norm is last
        for block in blocks[:-1]:
            tokens, grid = run_block(block, tokens, grid, recompute=self.recompute)
        places = masked_places(mask, tokens.device)
        if blocks and blocks[-1].takes_places:
            recompute = self.recompute
            tokens, _ = run_block(blocks[-1], tokens, grid, None, places, recompute=recompute)
            return self.predict(tokens, index=index)
        if blocks:
            tokens, grid = run_block(blocks[-1], tokens, grid, recompute=self.recompute)
        return self.predict(take_places(tokens[:, int(self.has_cls) :], places), index=index)

    def has_blocks(self, index: int) -> bool:
        """Whether there are blocks at one depth, which need all tokens."""
        return len(list(self.transforms[index].children())) > 1

    def predict(self, tokens: Tensor, *, index: int) -> Tensor:
        """Norm and projection of one depth, which work token by token.

        Args:
            tokens: (M, D): what is predicted, after the blocks if there are any.
            index: which predicting depth.

        Returns:
            (M, output dim).
        """
        *_, norm = self.transforms[index].children()
        return self.projections[index](norm(tokens))
