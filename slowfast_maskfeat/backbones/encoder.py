"""Patch embedding, positions and blocks of a (multiscale) vision transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.block import MultiscaleBlock, run_block
from slowfast_maskfeat.backbones.geometry import Triple, output_grids
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.masking import resize_mask
from slowfast_maskfeat.backbones.options import EncoderOptions
from slowfast_maskfeat.backbones.patch_embed import PatchEmbed
from slowfast_maskfeat.backbones.position import fixed_table, learned_tables, table_positions
from slowfast_maskfeat.backbones.relative_bias import RelativePositionBias, check_position_bias
from slowfast_maskfeat.host_copies import copy_to_device
from slowfast_maskfeat.shapes import Grid


class Encoder(nn.Module):
    """A `Backbone` without a last layer norm, which its subclasses place.

    Args:
        options: options of the encoder.
        num_blocks: how many of the `options.depth` blocks exist; None: all.
        takes_masks: whether there is a mask token, which replaces masked patches.
    """

    before_blocks = ("patch_embed", "pos_drop", "norm_stem", "rel_pos_bias")
    """Modules that the first tokens go through, or that all blocks share."""

    cls_token: Tensor
    mask_token: Tensor

    def __init__(
        self,
        options: EncoderOptions,
        *,
        num_blocks: int | None = None,
        takes_masks: bool = False,
    ) -> None:
        super().__init__()
        self.options = options
        self.takes_masks = takes_masks
        self.patch_embed = PatchEmbed(
            in_channels=options.in_channels,
            width=options.width,
            kernel=options.patch_kernel,
            stride=options.patch_stride,
            padding=options.patch_padding,
        )
        self.configured_grid = self.patch_embed.grid(options.clip_size)
        self.has_cls = options.block.has_cls
        if self.has_cls:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, options.width))
        self._make_positions()
        self.pos_drop = nn.Dropout(options.block.dropout)
        if options.norm_stem:
            self.norm_stem = nn.LayerNorm(options.width, eps=LAYER_NORM_EPSILON)
        self.geometries = options.geometries()[:num_blocks]
        self.has_shared_bias = options.block.position_bias == "shared"
        if options.block.position_bias:
            check_position_bias(options, self.configured_grid)
        if self.has_shared_bias:
            self.rel_pos_bias = RelativePositionBias(
                self.configured_grid, options.num_heads, has_cls=self.has_cls
            )
        self.blocks = self._make_blocks()
        start = INITIALIZATIONS[options.initialization]
        self.apply(start.encoder)
        start.rescale(self.blocks)
        if self.has_cls:
            start.token(self.cls_token)
        if takes_masks:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, options.width))
            start.token(self.mask_token)

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
            fill=INITIALIZATIONS[options.initialization].positions,
        )
        for name, table in tables.items():
            self.register_parameter(name, table)

    def _make_blocks(self) -> nn.ModuleList:
        grid = table_grid = self.configured_grid
        blocks = nn.ModuleList()
        for geometry in self.geometries:
            blocks.append(
                MultiscaleBlock(geometry, grid, self.options.block, table_grid=table_grid)
            )
            grid = geometry.output_grid(grid)
            # Tables are sized by floor division although pooling rounds up: published so.
            table_grid = Grid(
                *(size // step for size, step in zip(table_grid, geometry.steps_q, strict=True))
            )
        return blocks

    @property
    def width(self) -> int:
        """Width D of the tokens after the last block."""
        return self.geometries[-1].dim_out

    @property
    def token_stride(self) -> Triple:
        """(frames, rows, columns) that a token covers after the last block."""
        return self.options.token_stride(len(self.geometries) - 1)

    @property
    def num_layers(self) -> int:
        """Largest layer id, blocks + 1: layer decay scales layer i by decay ** (num_layers - i)."""
        return len(self.blocks) + 1

    def layer_id(self, name: str) -> int:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            name: name in `named_parameters`.

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
        layer decay, and all published files turn the exemption off (deviation). BEiT's tables of
        biases decay, as in its code, and with `EncoderOptions.decays_mask_token` so does the mask
        token.
        """
        exempt = set()
        for name, _ in self.named_parameters():
            last = name.rpartition(".")[2]
            if last == "mask_token" and self.options.decays_mask_token:
                continue
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
            ValueError: the clip does not fit the patches, see `PatchEmbed.grid`.
        """
        return self.patch_embed.grid(clip_size)

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the tokens after each block, see `Backbone.grids`."""
        return output_grids(self.patch_grid(clip_size), self.geometries)

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens after the last block, see `Backbone.tokens`; no layer norm follows it here."""
        return self.encode(clips, mask)[0]

    def pooled(self, tokens: Tensor) -> Tensor:
        """The class token, else the mean of the tokens, see `Backbone.pooled`."""
        return tokens[:, 0] if self.has_cls else tokens.mean(dim=1)

    def encode(self, clips: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Tokens after the last block, before any layer norm.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: as in `Backbone.tokens`.

        Returns:
            (B, N, D), a class token first if there is one, and the grid of the other tokens.
        """
        tokens, grid = self.embed(clips, mask)
        bias = self.shared_bias(grid)
        for index in range(len(self.blocks)):
            tokens, grid = self.run_block(index, tokens, grid, bias)
        return tokens, grid

    def embed(self, clips: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Patch tokens with their positions, as they enter the first block.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: as in `Backbone.tokens`.

        Returns:
            (B, N, D), a class token first if there is one, and the grid of the other tokens.
        """
        tokens, grid = self.patch_embed(clips)
        if mask is not None:
            # The device enlarges the mask: fewer bytes are copied.
            masked = resize_mask(copy_to_device(mask, tokens.device), grid)
            tokens = self.replace_masked(tokens, masked.flatten(1))
        return self.add_positions(tokens, grid), grid

    def replace_masked(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """Put the mask token in the place of masked patch tokens.

        Args:
            tokens: (B, N, D).
            masked: (B, N) bool, on the same device.

        Returns:
            (B, N, D).

        Raises:
            ValueError: the encoder has no mask token.
        """
        if not self.takes_masks:
            raise ValueError(
                f"{type(self).__name__} has no mask token for its encoder, so it takes no mask"
            )
        return torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)

    def add_positions(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Put the cls token in front and add the absolute positions.

        Args:
            tokens: (B, N, D) patch tokens.
            grid: their grid.

        Returns:
            (B, N or N + 1, D).
        """
        positions, cls_position = self._positions(grid)
        if positions is not None:
            tokens = tokens + positions.to(tokens.dtype)
        if self.has_cls:
            cls = self.cls_token if cls_position is None else self.cls_token + cls_position
            tokens = torch.cat(
                (cls.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens), dim=1
            )
        tokens = self.pos_drop(tokens)
        return self.norm_stem(tokens) if self.options.norm_stem else tokens

    def _positions(self, grid: Grid) -> tuple[Tensor | None, Tensor | None]:
        """Positions of the patch tokens (1, N, D) and of the cls token (1, 1, D)."""
        options = self.options
        if not (options.absolute_positions or options.sincos_positions):
            return None, None
        positions, cls_position = table_positions(
            self,
            "pos_embed",
            has_cls=self.has_cls,
            source=self.configured_grid,
            target=grid,
            offset=options.position_offset,
        )
        if options.sincos_positions and options.sincos_twice:
            positions = positions + positions
        return positions, cls_position

    def shared_bias(self, grid: Grid) -> Tensor | None:
        """Bias of the scores that all blocks share.

        Args:
            grid: grid of the patch tokens.

        Returns:
            (heads, N, N), or None if the blocks share none.
        """
        return self.rel_pos_bias(grid) if self.has_shared_bias else None

    def run_block(
        self,
        index: int,
        tokens: Tensor,
        grid: Grid,
        bias: Tensor | None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Grid]:
        """Run one block, recomputed in the backward pass if the options say so.

        Args:
            index: which block.
            tokens: (B, N, D), a cls token first if there is one.
            grid: grid of the other tokens.
            bias: see `shared_bias`.
            places: see `MultiscaleBlock.forward`.

        Returns:
            Tokens and grid after the block.
        """
        recompute = self.options.recomputes(index)
        return run_block(self.blocks[index], tokens, grid, bias, places, recompute=recompute)
