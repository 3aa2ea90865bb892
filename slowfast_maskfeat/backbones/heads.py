"""What turns tokens into answers: class scores, or predictions at single tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.block import MultiscaleBlock, run_block
from slowfast_maskfeat.backbones.encoder import EncoderOptions
from slowfast_maskfeat.backbones.geometry import BlockGeometry, Triple
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.shapes import Grid

HEAD_WIDTH = 64  # channels of one attention head in a decoder, published


class ClassificationHead(nn.Module):
    """Dropout and a linear layer.

    Args:
        dim: Width of the pooled token.
        num_classes: Number of classes K.
        dropout: Rate before the linear layer.
        init_scale: Factor of the initial weight and bias; 0.001 in published fine-tuning.
        initialization: How they start before it, a name in `INITIALIZATIONS`.
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


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """What the blocks of a prediction head are made of, beside what they share with the encoder.

    Attributes:
        depth: Number of blocks; 0: none.
        width: Width of the tokens after the first block.
        num_heads: Attention heads of a block; 0: one for every 64 channels of `width`, published.
            MAE (He et al., 2022; Feichtenhofer et al., 2022) has 16 at a width of 512.
        kernel_kv: (t, h, w) of key and value pooling; None: none.
        stride_kv: (t, h, w) of that pooling.
    """

    depth: int = 0
    width: int = 512
    num_heads: int = 0
    kernel_kv: Triple | None = None
    stride_kv: Triple | None = None

    def geometries(self, dim: int) -> list[BlockGeometry]:
        """Numbers of every block.

        Args:
            dim: Width of the tokens that come in. Where it differs from `width` the first block
                widens, in its perceptron.

        Raises:
            ValueError: A width is not divisible by the number of heads, or no number follows.
        """
        if not self.depth:
            return []
        if not self.num_heads and self.width % HEAD_WIDTH:
            raise ValueError(
                f"MASK.DECODER_EMBED_DIM is {self.width}, no multiple of {HEAD_WIDTH}, from which "
                "the number of heads would follow; MASK.DECODER_NUM_HEADS says it"
            )
        num_heads = self.num_heads or self.width // HEAD_WIDTH
        dims = [dim] + [self.width] * self.depth
        for width in dims[:-1]:
            if width % num_heads:
                raise ValueError(
                    f"MASK.DECODER_NUM_HEADS: {num_heads} heads do not divide the width {width} of "
                    "the tokens that the decoder gets (MVIT.EMBED_DIM, MASK.DECODER_EMBED_DIM)"
                )
        return [
            BlockGeometry(
                dim=width,
                dim_out=self.width,
                attention_dim=width,
                num_heads=num_heads,
                stride_q=None,
                stride_kv=self.stride_kv,
                kernel_q=None,
                kernel_kv=self.kernel_kv,
                drop_path=0.0,
            )
            for width in dims[:-1]
        ]


def take_masked(tokens: Tensor, mask: Tensor) -> Tensor:
    """The tokens at the masked places.

    How many there are decides the shape of what follows. A mask on the CPU says it there; one on a
    GPU would be waited for.

    Args:
        tokens: (B, N, D), on any device.
        mask: (B, N) bool, on the CPU or that device.

    Returns:
        (M, D), in the order of (b, n).
    """
    clips, places = mask.nonzero(as_tuple=True)
    device = tokens.device
    return tokens[clips.to(device, non_blocking=True), places.to(device, non_blocking=True)]


class PredictionHead(nn.Module):
    """One small decoder per predicting depth: blocks if any, a layer norm, a linear layer.

    Source: MaskFeat (Wei et al., 2022), section 3; the blocks are those of MAE (He et al., 2022).

    Args:
        dims: Width of the tokens at each predicting depth.
        output_dims: Width of the prediction at each.
        grids: Configured token grid at each.
        encoder: What the encoder is made of; perceptrons, biases, dropout, the way of pooling,
            activation checkpointing and initialization are the same in the blocks here.
        decoder: What else they are made of.

    Raises:
        ValueError: As `DecoderOptions.geometries`.
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
        self.has_cls = encoder.cls_token
        self.recompute = encoder.activation_checkpoint
        self.transforms = nn.ModuleList()
        self.projections = nn.ModuleList()
        for dim, output_dim, grid in zip(dims, output_dims, grids, strict=True):
            blocks = [
                MultiscaleBlock(
                    geometry,
                    grid,
                    mlp_ratio=encoder.mlp_ratio,
                    mode=encoder.mode,
                    pool_first=encoder.pool_first,
                    qkv_bias=encoder.qkv_bias,
                    has_cls=self.has_cls,
                    dropout=encoder.dropout,
                )
                for geometry in decoder.geometries(dim)
            ]
            width = decoder.width if blocks else dim
            norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
            self.transforms.append(nn.ModuleList([*blocks, norm]))
            self.projections.append(nn.Linear(width, output_dim))
        self.apply(INITIALIZATIONS[encoder.initialization].predictor)

    def forward(self, tokens: Tensor, grid: Grid, mask: Tensor, *, index: int) -> Tensor:
        """Predicts at the masked tokens of one depth.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: Grid of the other tokens.
            mask: (B, N without cls) bool, True where a prediction is wanted, see `take_masked`.
            index: Which predicting depth.

        Returns:
            (M, output dim) in the order of (b, t, h, w).
        """
        layers = list(self.transforms[index].children())
        norm = layers.pop()
        for block in layers:
            tokens, grid = run_block(block, tokens, grid, recompute=self.recompute)
        if self.has_cls:
            tokens = tokens[:, 1:]
        # Only what is predicted goes through norm and projection: both work token by token.
        return self.projections[index](norm(take_masked(tokens, mask)))
