"""One block of a (multiscale) vision transformer: attention, then an MLP of two layers."""

from __future__ import annotations

import torch
from pytorchvideo.layers.drop_path import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON, PoolingAttention
from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.backbones.masking import take_places
from slowfast_maskfeat.backbones.mlp import Mlp
from slowfast_maskfeat.backbones.one_dtype import LayerNorm, call_in_one_dtype
from slowfast_maskfeat.backbones.options import BlockOptions
from slowfast_maskfeat.backbones.pooling import make_skip_pool, pool_tokens
from slowfast_maskfeat.shapes import Grid


class MultiscaleBlock(nn.Module):
    """Pooling attention and an MLP, each with a shortcut.

    Where the width grows (`geometry.dim` to `dim_out`) the shortcut is projected from the
    normalized input: before the attention if that is where it grows, else beside the MLP.
    Where queries are pooled the shortcut is max-pooled, with kernel stride + 1.
    Source: MViT (Fan et al., 2021), section 3.1; MViTv2 (Li et al., 2022), section 3.

    Args:
        geometry: widths, heads, strides and kernels.
        grid: grid of the tokens that come in, at the configured clip size.
        options: options of the block.
        table_grid: grid that sizes the tables of relative positions; None: `grid`.

    Attributes:
        has_own_graph: whether the block is compiled alone.
    """

    has_own_graph = False

    def __init__(
        self,
        geometry: BlockGeometry,
        grid: Grid,
        options: BlockOptions,
        *,
        table_grid: Grid | None = None,
    ) -> None:
        super().__init__()
        geometry.check_shortcut(grid)
        self.has_cls = options.has_cls
        self.norm1 = LayerNorm(geometry.dim, eps=LAYER_NORM_EPSILON)
        self.attn = PoolingAttention(geometry, grid, options, table_grid=table_grid)
        width = geometry.attention_dim
        self.norm2 = LayerNorm(width, eps=LAYER_NORM_EPSILON)
        hidden = int(width * options.mlp_ratio)
        self.mlp = Mlp(width, hidden, geometry.dim_out, dropout=options.dropout)
        self.widens_in_attention = geometry.dim != width
        self.widens_in_mlp = width != geometry.dim_out
        if geometry.dim != geometry.dim_out:
            self.proj = nn.Linear(geometry.dim, geometry.dim_out)
        self.pool_skip = make_skip_pool(geometry.kernel_skip, geometry.steps_q)
        self.has_layer_scale = options.layer_scale > 0
        if self.has_layer_scale:
            self.gamma_1 = nn.Parameter(torch.full((width,), options.layer_scale))
            self.gamma_2 = nn.Parameter(torch.full((geometry.dim_out,), options.layer_scale))
        self.drop_path = DropPath(geometry.drop_path)

    def forward(
        self,
        tokens: Tensor,
        grid: Grid,
        bias: Tensor | None = None,
        places: Tensor | None = None,
    ) -> tuple[Tensor, Grid]:
        """Run the block.

        Args:
            tokens: (B, N, D), a cls token first if there is one.
            grid: grid of the other tokens.
            bias: see `PoolingAttention.forward`.
            places: (M, 2), see `masked_places`: the tokens after query pooling, without the cls
                token, that are needed. The MLP works token by token, so the others need none.

        Returns:
            (B, N', D') and the grid after query pooling; with `places` (M, D').
        """
        normed = self.norm1(tokens)
        attended, new_grid = self.attn(normed, grid, bias)
        skip = self.proj(normed) if self.widens_in_attention else tokens
        skip, _ = pool_tokens(skip.unsqueeze(1), grid, self.pool_skip, has_cls=self.has_cls)
        if self.has_layer_scale:
            attended = attended * self.gamma_1
        tokens = skip.squeeze(1) + self.drop_path(attended)
        num_clips = tokens.shape[0]  # `len` would fix their number in an exported graph
        if places is not None:
            tokens = take_places(tokens[:, int(self.has_cls) :], places)
        normed = self.norm2(tokens)
        skip = self.proj(normed) if self.widens_in_mlp else tokens
        mixed = self.mlp(normed)
        if self.has_layer_scale:
            mixed = mixed * self.gamma_2
        if places is None:
            return skip + self.drop_path(mixed), new_grid
        return skip + self._drop_path_of_rows(mixed, places[:, 0], num_clips), new_grid

    @property
    def takes_places(self) -> bool:
        """Whether to call the block with `places` where not all tokens are needed.

        In evaluation others may look at what leaves a block. A block compiled alone would need a
        second graph, which takes long to compile.
        """
        return self.training and not self.has_own_graph

    def _drop_path_of_rows(self, rows: Tensor, clips: Tensor, num_clips: int) -> Tensor:
        """Drop path of tokens (M, D) by the clips (M,) that they are of, with the same draws."""
        if not (self.training and self.drop_path.drop_prob):
            return rows
        kept = self.drop_path(rows.new_ones(num_clips, 1)) != 0
        return rows / (1 - self.drop_path.drop_prob) * kept[clips]


def run_block(
    block: nn.Module,
    tokens: Tensor,
    grid: Grid,
    bias: Tensor | None = None,
    places: Tensor | None = None,
    *,
    recompute: bool,
) -> tuple[Tensor, Grid]:
    """Run a block.

    Args:
        block: a `MultiscaleBlock`.
        tokens: (B, N, D), a cls token first if there is one.
        grid: grid of the other tokens.
        bias: see `PoolingAttention.forward`.
        places: see `MultiscaleBlock.forward`.
        recompute: compute it again in the backward pass instead of keeping what it computed.

    Returns:
        Tokens and grid after the block, see `MultiscaleBlock.forward`.
    """
    options = (bias,) if places is None else (bias, places)
    if recompute and torch.is_grad_enabled():
        return checkpoint(call_in_one_dtype, block, tokens, grid, *options, use_reentrant=False)
    return call_in_one_dtype(block, tokens, grid, *options)


def turn_off_drops(network: nn.Module) -> nn.Module:
    """Turn dropout and drop path off for good, as in a teacher that stays in training mode.

    Args:
        network: changed in place.

    Returns:
        The network.
    """
    for module in network.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return network
