"""Options of networks: of a block, of an encoder, of the decoder in a prediction head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from slowfast_maskfeat.backbones.geometry import BlockGeometry, Triple, block_geometries
from slowfast_maskfeat.backbones.pooling import PoolMode

HEAD_WIDTH = 64  # channels of one attention head in a decoder, published


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options that all blocks of a network share; `BlockGeometry` has what differs among them.

    Attributes:
        mlp_ratio: hidden over input width of the MLP.
        mode: how queries, keys and values are pooled. "conv" has one depthwise kernel and norm for
            all heads, "conv_unshared" one for each: over all channels, before they are split into
            heads.
        pool_first: pool before the linear projections instead of after them; needed for
            "conv_unshared".
        separate_projections: three linear layers q, k, v instead of one, qkv.
        qkv_bias: whether these have a bias.
        key_bias: whether the keys have one, too. Without it the biases of one layer, qkv, are the
            parameters `q_bias` and `v_bias` (BEiT).
        has_cls: whether the first token is a class token.
        rel_pos_spatial: relative positions along rows and columns.
        rel_pos_temporal: relative positions along time.
        rel_pos_zero_init: start them at 0.
        position_bias: a learned bias of the scores for each head and relative position, see
            `RelativePositionBias`: "shared" by all blocks, one for each "block", or "" for none.
        residual_pooling: add the pooled query to the result of attention.
        dropout: rate after the output projection of attention and after each layer of the MLP.
        layer_scale: initial value of a learned factor per channel on what attention and MLP add
            (Touvron et al., "Going deeper with image transformers", 2021); 0: no such factor.

    Raises:
        ValueError: `mode` is "conv_unshared" without `pool_first`.
    """

    mlp_ratio: float = 4.0
    mode: PoolMode = "conv"
    pool_first: bool = False
    separate_projections: bool = False
    qkv_bias: bool = True
    key_bias: bool = True
    has_cls: bool = True
    rel_pos_spatial: bool = False
    rel_pos_temporal: bool = False
    rel_pos_zero_init: bool = False
    position_bias: Literal["", "shared", "block"] = ""
    residual_pooling: bool = False
    dropout: float = 0.0
    layer_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.mode == "conv_unshared" and not self.pool_first:
            raise ValueError(
                "MVIT.POOL_FIRST must be True with MVIT.MODE 'conv_unshared', got False; without "
                "it MVIT.MODE 'conv' pools each head"
            )


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Options of an encoder. A plain ViT is one without pooling and with one width.

    Source: MViT (Fan et al., 2021), MViTv2 (Li et al., 2022), ViT (Dosovitskiy et al., 2021).

    Attributes:
        clip_size: (T, H, W) the model is configured for, in frames and pixels; others work.
        in_channels: channels C of a clip.
        patch_kernel: patch size (t, h, w), or (h, w) for images.
        patch_stride: step between patches, as many numbers.
        patch_padding: zeros around the clip, as many numbers.
        width: width D of the first block.
        num_heads: heads of the first block.
        depth: number of blocks.
        block: options of every block. A class token precedes the patch tokens if `block.has_cls`,
            and `block.dropout` is also applied after the positions.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        norm_stem: whether a layer norm follows the positions.
        pool_kernel: (t, h, w) of all pooling; None: stride + 1.
        pool_q_stride: rows (block, t, h, w).
        pool_kv_stride: rows (block, t, h, w).
        pool_kv_stride_adaptive: (t, h, w) of the first block.
        dim_mul: pairs (block, factor) of the width.
        head_mul: pairs (block, factor) of the heads.
        dim_mul_in_attention: widen in a block's attention, not in the MLP before it.
        absolute_positions: whether positions are added to the patch tokens.
        separable_positions: they are the sum of a spatial and a temporal table.
        sincos_positions: they are fixed sin-cos positions.
        sincos_time: a part of these codes time.
        sincos_twice: add these twice, as a published classifier did by mistake.
        decays_mask_token: whether the mask token has weight decay where the class token has none.
        position_offset: of their resizing to other grids, see `position_tables.resize_spatial`.
        activation_checkpoint: recompute the blocks in the backward pass to save memory.
        checkpointed_blocks: numbers of the blocks for which this holds; empty: all blocks, those
            that predict included.
        initialization: how weights start, a name in `INITIALIZATIONS`.
    """

    clip_size: tuple[int, int, int]
    in_channels: int = 3
    patch_kernel: Sequence[int] = (3, 7, 7)
    patch_stride: Sequence[int] = (2, 4, 4)
    patch_padding: Sequence[int] = (1, 3, 3)
    width: int = 96
    num_heads: int = 1
    depth: int = 16
    block: BlockOptions = field(default_factory=BlockOptions)
    drop_path_rate: float = 0.0
    norm_stem: bool = False
    pool_kernel: Sequence[int] | None = None
    pool_q_stride: Sequence[Sequence[int]] = ()
    pool_kv_stride: Sequence[Sequence[int]] = ()
    pool_kv_stride_adaptive: Sequence[int] | None = None
    dim_mul: Sequence[Sequence[float]] = ()
    head_mul: Sequence[Sequence[float]] = ()
    dim_mul_in_attention: bool = False
    absolute_positions: bool = True
    separable_positions: bool = False
    sincos_positions: bool = False
    sincos_time: bool = True
    sincos_twice: bool = False
    decays_mask_token: bool = False
    position_offset: float = 0.0
    activation_checkpoint: bool = False
    checkpointed_blocks: Sequence[int] = ()
    initialization: str = "published"

    def recomputes(self, block: int | None) -> bool:
        """Return whether the backward pass recomputes a block of the encoder; None: of a head."""
        chosen = self.checkpointed_blocks
        return self.activation_checkpoint and (not chosen or block in chosen)

    def geometries(self) -> list[BlockGeometry]:
        """Geometry of every block; errors as `block_geometries`."""
        rates = torch.linspace(0, self.drop_path_rate, self.depth, device="cpu").tolist()
        return block_geometries(
            depth=self.depth,
            width=self.width,
            num_heads=self.num_heads,
            dim_mul=self.dim_mul,
            head_mul=self.head_mul,
            pool_q_stride=self.pool_q_stride,
            pool_kv_stride=self.pool_kv_stride,
            pool_kv_stride_adaptive=self.pool_kv_stride_adaptive,
            pool_kernel=self.pool_kernel,
            dim_mul_in_attention=self.dim_mul_in_attention,
            drop_path_rates=rates,
        )

    def token_stride(self, block: int = -1) -> Triple:
        """Frames and pixels that one token covers after a block.

        It is the stride of the patches times those of the queries, whatever the size of the clip:
        a clip that is no multiple of it gets tokens for the remainder, rounded up.

        Args:
            block: number of the block; -1: the last.

        Returns:
            (frames, rows, columns), in frames and pixels.
        """
        leading = (1,) * (3 - len(self.patch_stride))
        t, h, w = (*leading, *self.patch_stride)
        for geometry in self.geometries()[: block + 1 or None]:
            step = geometry.steps_q
            t, h, w = t * step[0], h * step[1], w * step[2]
        return t, h, w


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Options of the blocks in a prediction head, beside those shared with the encoder.

    Attributes:
        depth: number of blocks; 0: none.
        width: width of the tokens after the first block.
        num_heads: attention heads of a block; 0: one for every 64 channels of `width`, published.
            MAE (He et al., 2022; Feichtenhofer et al., 2022) has 16 at a width of 512.
        kernel_kv: (t, h, w) of key and value pooling; None: none.
        stride_kv: (t, h, w) of that pooling.
    """

    depth: int = 0
    width: int = 512
    num_heads: int = 0
    kernel_kv: Triple | None = None
    stride_kv: Triple | None = None

    def block(self, encoder: BlockOptions) -> BlockOptions:
        """Options of every block: those of the encoder's, without what only the latter have."""
        return replace(
            encoder,
            separate_projections=False,
            rel_pos_spatial=False,
            rel_pos_temporal=False,
            position_bias="",
            residual_pooling=False,
            layer_scale=0.0,
        )

    def geometries(self, dim: int) -> list[BlockGeometry]:
        """Geometry of every block.

        Args:
            dim: width of the input tokens. Where it differs from `width` the first block widens,
                in its MLP.

        Raises:
            ValueError: a width is not divisible by the number of heads, or by 64 without one.
        """
        if not self.depth:
            return []
        if not self.num_heads and self.width % HEAD_WIDTH:
            raise ValueError(
                f"MASK.DECODER_EMBED_DIM must be a multiple of {HEAD_WIDTH} with "
                f"MASK.DECODER_NUM_HEADS 0, got {self.width}"
            )
        num_heads = self.num_heads or self.width // HEAD_WIDTH
        dims = [dim] + [self.width] * self.depth
        for width in dims[:-1]:
            if width % num_heads:
                raise ValueError(
                    f"MASK.DECODER_NUM_HEADS must divide the width {width} of the decoder's tokens "
                    f"(MVIT.EMBED_DIM, MASK.DECODER_EMBED_DIM), got {num_heads}"
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
