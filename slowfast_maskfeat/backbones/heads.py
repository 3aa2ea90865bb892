"""What turns tokens into answers: class scores, or predictions at single tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.geometry import BlockGeometry, Triple
from slowfast_maskfeat.backbones.initialise import initialise_encoder, initialise_predictor
from slowfast_maskfeat.backbones.pooling import PoolMode
from slowfast_maskfeat.shapes import Grid

DECODER_HEAD_WIDTH = 64  # channels of one attention head in a decoder, published


class ClassificationHead(nn.Module):
    """Dropout and a linear layer.

    Args:
        dim: Width of the pooled token.
        num_classes: Number of classes K.
        dropout: Rate before the linear layer.
        init_scale: Factor of the initial weight and bias; 0.001 in published fine-tuning.
    """

    def __init__(
        self, dim: int, num_classes: int, *, dropout: float = 0.0, init_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)
        self.apply(initialise_encoder)
        self.projection.weight.data.mul_(init_scale)
        self.projection.bias.data.mul_(init_scale)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, K) raw scores."""
        return self.projection(self.dropout(pooled))


class PredictionHead(nn.Module):
    """One small decoder per predicting depth: blocks if any, a layer norm, a linear layer.

    Source: MaskFeat (Wei et al., 2022), section 3; the blocks are those of MAE (He et al., 2022).

    Args:
        dims: Width of the tokens at each predicting depth.
        output_dims: Width of the prediction at each.
        grids: Configured token grid at each.
        decoder_depth: Number of blocks; 0: none.
        has_cls: Whether the first token is a cls token.
        mode: Pooling of keys and values in these blocks.
        kernel_kv: (t, h, w) of that pooling; None: none.
        stride_kv: (t, h, w) of that pooling.

    Raises:
        ValueError: A width with blocks is no multiple of 64.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int],
        output_dims: Sequence[int],
        grids: Sequence[Grid],
        decoder_depth: int = 0,
        has_cls: bool = True,
        mode: PoolMode = "conv",
        kernel_kv: Triple | None = None,
        stride_kv: Triple | None = None,
    ) -> None:
        super().__init__()
        self.has_cls = has_cls
        self.transforms = nn.ModuleList()
        self.projections = nn.ModuleList()
        for dim, output_dim, grid in zip(dims, output_dims, grids, strict=True):
            if decoder_depth and dim % DECODER_HEAD_WIDTH:
                raise ValueError(
                    f"MASK.HEAD_TYPE separate_xformer needs a token width that is a multiple of "
                    f"{DECODER_HEAD_WIDTH}, not {dim} (MASK.DECODER_EMBED_DIM, MVIT.EMBED_DIM)"
                )
            geometry = BlockGeometry(
                dim=dim,
                dim_out=dim,
                attention_dim=dim,
                num_heads=max(dim // DECODER_HEAD_WIDTH, 1),
                stride_q=None,
                stride_kv=stride_kv,
                kernel_q=None,
                kernel_kv=kernel_kv,
                drop_path=0.0,
            )
            blocks = [
                MultiscaleBlock(geometry, grid, has_cls=has_cls, mode=mode)
                for _ in range(decoder_depth)
            ]
            norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPSILON)
            self.transforms.append(nn.ModuleList([*blocks, norm]))
            self.projections.append(nn.Linear(dim, output_dim))
        self.apply(initialise_predictor)

    def forward(self, tokens: Tensor, grid: Grid, mask: Tensor, *, index: int) -> Tensor:
        """Predicts at the masked tokens of one depth.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: Grid of the other tokens.
            mask: (B, N without cls) bool, True where a prediction is wanted.
            index: Which predicting depth.

        Returns:
            (M, output dim) in the order of (b, t, h, w).
        """
        layers = list(self.transforms[index].children())
        norm = layers.pop()
        for block in layers:
            tokens, grid = block(tokens, grid)
        if self.has_cls:
            tokens = tokens[:, 1:]
        # Only what is predicted goes through norm and projection: both work token by token.
        return self.projections[index](norm(tokens[mask]))
