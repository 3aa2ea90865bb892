"""The trunk that classifier and masked model share: patches, positions and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.block import MultiscaleBlock, run_block
from slowfast_maskfeat.backbones.geometry import (
    BlockGeometry,
    Triple,
    block_geometries,
    output_grids,
)
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.patch_embed import PatchEmbed
from slowfast_maskfeat.backbones.pooling import PoolMode
from slowfast_maskfeat.backbones.position import fixed_table, learned_tables, table_positions
from slowfast_maskfeat.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """What an encoder is made of. A plain ViT is one without pooling and with one width.

    Source: MViT (Fan et al., 2021), MViTv2 (Li et al., 2022), ViT (Dosovitskiy et al., 2021).

    Attributes:
        clip_size: (T, H, W) the model is configured for, in frames and pixels; others work.
        in_channels: Channels C of a clip.
        patch_kernel: Patch size (t, h, w), or (h, w) for images.
        patch_stride: Step between patches, as many numbers.
        patch_padding: Zeros around the clip, as many numbers.
        width: Width D of the first block.
        num_heads: Heads of the first block.
        depth: Number of blocks.
        mlp_ratio: Hidden over input width of the perceptrons.
        qkv_bias: Whether the projections to queries, keys and values have a bias.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
        dropout: Rate after the positions, in attention and perceptrons.
        cls_token: Whether a cls token goes in front.
        norm_stem: Whether a layer norm follows the positions.
        mode: Pooling, "conv", "avg" or "max".
        pool_first: Pool before the projections.
        separate_projections: Three linear layers q, k, v instead of one.
        pool_kernel: (t, h, w) of all pooling; None: stride + 1.
        pool_q_stride: Rows (block, t, h, w).
        pool_kv_stride: Rows (block, t, h, w).
        pool_kv_stride_adaptive: (t, h, w) of the first block.
        dim_mul: Pairs (block, factor) of the width.
        head_mul: Pairs (block, factor) of the heads.
        dim_mul_in_attention: Widen in a block's attention, not in the perceptron before it.
        absolute_positions: Whether positions are added to the patch tokens.
        separable_positions: They are the sum of a spatial and a temporal table.
        sincos_positions: They are fixed sine waves.
        sincos_time: A part of these codes time.
        sincos_twice: Add these twice, as a published classifier did by mistake.
        rel_pos_spatial: Relative positions along rows and columns.
        rel_pos_temporal: Relative positions along time.
        rel_pos_zero_init: Start them at 0.
        residual_pooling: Add the pooled query to the result of attention.
        layer_scale: Initial factor on what each block adds, see `MultiscaleBlock`; 0: none.
        activation_checkpoint: Recompute the blocks in the backward pass to save memory.
        initialization: How weights start, a name in `INITIALIZATIONS`.
    """

    clip_size: tuple[int, int, int]
    in_channels: int = 3
    patch_kernel: Sequence[int] = (3, 7, 7)
    patch_stride: Sequence[int] = (2, 4, 4)
    patch_padding: Sequence[int] = (1, 3, 3)
    width: int = 96
    num_heads: int = 1
    depth: int = 16
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path_rate: float = 0.0
    dropout: float = 0.0
    cls_token: bool = True
    norm_stem: bool = False
    mode: PoolMode = "conv"
    pool_first: bool = False
    separate_projections: bool = False
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
    rel_pos_spatial: bool = False
    rel_pos_temporal: bool = False
    rel_pos_zero_init: bool = False
    residual_pooling: bool = False
    layer_scale: float = 0.0
    activation_checkpoint: bool = False
    initialization: str = "published"

    def geometries(self) -> list[BlockGeometry]:
        """Numbers of every block; errors as `block_geometries`."""
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
        """What one token stands for after a block: the step of the patches times those of queries.

        Args:
            block: Number of the block; -1: the last.

        Returns:
            (frames, rows, columns), in frames and pixels. It does not depend on the clip's size:
            one that is no multiple of it gets tokens for what is left over, rounded up.
        """
        leading = (1,) * (3 - len(self.patch_stride))
        t, h, w = (*leading, *self.patch_stride)
        for geometry in self.geometries()[: block + 1 or None]:
            step = geometry.steps_q
            t, h, w = t * step[0], h * step[1], w * step[2]
        return t, h, w


class Encoder(nn.Module):
    """Patch embedding, positions and blocks; subclasses say what comes out.

    Args:
        options: What it is made of.
        num_blocks: How many of the `options.depth` blocks exist; None: all.
    """

    cls_token: Tensor

    def __init__(self, options: EncoderOptions, *, num_blocks: int | None = None) -> None:
        super().__init__()
        self.options = options
        self.patch_embed = PatchEmbed(
            in_channels=options.in_channels,
            width=options.width,
            kernel=options.patch_kernel,
            stride=options.patch_stride,
            padding=options.patch_padding,
        )
        self.configured_grid = self.patch_embed.grid(options.clip_size)
        self.has_cls = options.cls_token
        if self.has_cls:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, options.width))
        self._make_positions()
        self.pos_drop = nn.Dropout(options.dropout)
        if options.norm_stem:
            self.norm_stem = nn.LayerNorm(options.width, eps=LAYER_NORM_EPSILON)
        self.geometries = options.geometries()[:num_blocks]
        self.blocks = self._make_blocks()
        start = INITIALIZATIONS[options.initialization]
        self.apply(start.encoder)
        start.rescale(self.blocks)
        if self.has_cls:
            start.token(self.cls_token)

    def _make_positions(self) -> None:
        options, grid = self.options, self.configured_grid
        if options.sincos_positions:
            self.pos_embed = fixed_table(
                grid, options.width, has_cls=self.has_cls, time=options.sincos_time
            )
            return
        if not options.absolute_positions:
            return
        tables = learned_tables(
            grid,
            options.width,
            name="pos_embed",
            has_cls=self.has_cls,
            separable=options.separable_positions,
        )
        for name, table in tables.items():
            self.register_parameter(name, table)

    def _make_blocks(self) -> nn.ModuleList:
        options = self.options
        grid = table_grid = self.configured_grid
        blocks = nn.ModuleList()
        for geometry in self.geometries:
            block = MultiscaleBlock(
                geometry,
                grid,
                table_grid=table_grid,
                mlp_ratio=options.mlp_ratio,
                mode=options.mode,
                pool_first=options.pool_first,
                separate_projections=options.separate_projections,
                qkv_bias=options.qkv_bias,
                has_cls=self.has_cls,
                rel_pos_spatial=options.rel_pos_spatial,
                rel_pos_temporal=options.rel_pos_temporal,
                rel_pos_zero_init=options.rel_pos_zero_init,
                residual_pooling=options.residual_pooling,
                dropout=options.dropout,
                layer_scale=options.layer_scale,
            )
            blocks.append(block)
            grid = geometry.output_grid(grid)
            # Tables are sized by floor division although pooling rounds up: published so.
            table_grid = Grid(
                *(size // step for size, step in zip(table_grid, geometry.steps_q, strict=True))
            )
        return blocks

    @property
    def num_layers(self) -> int:
        """Largest layer id, blocks + 1: layer decay scales layer i by decay ** (num_layers - i)."""
        return len(self.blocks) + 1

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            name: Name in `named_parameters`.

        Returns:
            0 for what makes the first tokens, i + 1 for block i, `num_layers` for the rest.
        """
        if name in ("cls_token", "mask_token") or name.startswith(("pos_embed", "patch_embed")):
            return 0
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers

    def no_weight_decay(self) -> set[str]:
        """Names in `named_parameters` that MVIT.ZERO_DECAY_POS_CLS exempts from weight decay.

        They are the cls and mask tokens and every table of positions, absolute or relative, of the
        encoder or of a decoder. The published lists miss some of them, depending on model and
        layer decay, and all published files turn the exemption off (deviation).
        """
        exempt = set()
        for name, _ in self.named_parameters():
            last = name.rpartition(".")[2]
            if last.endswith("_token") or "pos_embed" in last or last.startswith("rel_pos"):
                exempt.add(name)
        return exempt

    def patch_grid(self, clip_size: Sequence[int]) -> Grid:
        """Grid of the patch tokens.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            Grid(t, h, w).

        Raises:
            ValueError: The clip does not fit the patches, see `PatchEmbed.grid`.
        """
        return self.patch_embed.grid(clip_size)

    def block_grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the tokens that leave each block.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            One grid per block.
        """
        return output_grids(self.patch_grid(clip_size), self.geometries)

    def add_positions(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Puts the cls token in front and adds the absolute positions.

        Args:
            tokens: (B, N, D) patch tokens.
            grid: Their grid.

        Returns:
            (B, N or N + 1, D).
        """
        positions, cls_position = self._positions(grid)
        if positions is not None:
            tokens = tokens + positions.to(tokens.dtype)
        if self.has_cls:
            cls = self.cls_token if cls_position is None else self.cls_token + cls_position
            tokens = torch.cat((cls.expand(len(tokens), -1, -1).to(tokens.dtype), tokens), dim=1)
        tokens = self.pos_drop(tokens)
        return self.norm_stem(tokens) if self.options.norm_stem else tokens

    def _positions(self, grid: Grid) -> tuple[Tensor | None, Tensor | None]:
        """Positions of the patch tokens (1, N, D) and of the cls token (1, 1, D)."""
        options = self.options
        if not (options.absolute_positions or options.sincos_positions):
            return None, None
        positions, cls_position = table_positions(
            self, "pos_embed", has_cls=self.has_cls, source=self.configured_grid, target=grid
        )
        if options.sincos_positions and options.sincos_twice:
            positions = positions + positions
        return positions, cls_position

    def run_block(self, index: int, tokens: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Runs one block, recomputed in the backward pass if the options say so.

        Args:
            index: Which block.
            tokens: (B, N, D), a cls token first if there is one.
            grid: Grid of the other tokens.

        Returns:
            Tokens and grid after the block.
        """
        recompute = self.options.activation_checkpoint
        return run_block(self.blocks[index], tokens, grid, recompute=recompute)
