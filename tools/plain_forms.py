"""Plain implementations of a model's layers, casts and MAE, the baselines of the fast ones.

They follow the formulas of the papers, with the attention matrix in memory, and serve only for
comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.backbones import MaskedAutoencoder, block
from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.mlp import Mlp
from slowfast_maskfeat.backbones.pooling import DepthwisePool
from slowfast_maskfeat.shapes import Grid


class ExplicitAttention(PoolingAttention):
    """Attention that computes the full (query, key) matrix of scores and biases.

    Source: MViTv2 (Li et al., 2022), section 3.1.
    """

    def forward(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Attend as in `PoolingAttention.forward`."""
        query, key, value, grid_q, grid_k = self._project_and_pool(tokens, grid)
        scores = query @ key.transpose(-2, -1) * self.scale  # (B, heads, Nq, Nk)
        if self.axes:
            scores = scores + self._bias(query, grid_q, grid_k)
        bias = self._position_bias(grid, bias)
        if bias is not None:
            scores = scores + bias
        attended = scores.softmax(dim=-1) @ value
        if self.residual_pooling:
            attended[:, :, int(self.has_cls) :] += query[:, :, int(self.has_cls) :]
        attended = attended.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(attended)), grid_q

    def _project(self, tokens: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, whose gradients autograd joins."""
        return F.linear(tokens, self.qkv.weight, self._projection_bias()).chunk(3, dim=-1)

    def _bias(self, query: Tensor, grid_q: Grid, grid_k: Grid) -> Tensor:
        """Relative position bias (B, heads, Nq, Nk) of all pairs, 0 for the class token."""
        front = int(self.has_cls)
        planes = query[:, :, front:].unflatten(2, tuple(grid_q))  # (B, heads, t, h, w, d)
        bias = planes.new_zeros(*planes.shape[:5], *grid_k)
        for axis, name in ((0, "t"), (1, "h"), (2, "w")):
            if axis not in self.axes:
                continue
            vectors = relative_vectors(getattr(self, f"rel_pos_{name}"), grid_q[axis], grid_k[axis])
            shape = [1, 1, 1]
            shape[axis] = grid_k[axis]
            # The vectors of the query's own coordinate along this axis, one per key coordinate.
            letters = "thw"[axis]
            part = torch.einsum(f"bnthwd,{letters}kd->bnthwk", planes, vectors)
            bias = bias + part.reshape(*planes.shape[:5], *shape)
        return F.pad(bias.flatten(5).flatten(2, 4), (front, 0, front, 0))


def relative_vectors(table: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """Row of the table for each pair of coordinates on one axis: (num_queries, num_keys, d)."""
    length = 2 * max(num_queries, num_keys) - 1
    if len(table) != length:
        table = F.interpolate(table.t()[None], size=length, mode="linear")[0].t()
    rows = []
    for i in range(num_queries):
        for j in range(num_keys):
            distance = torch.tensor(i * max(num_keys / num_queries, 1.0))
            distance = distance - torch.tensor(j * max(num_queries / num_keys, 1.0))
            distance = distance + (num_keys - 1) * max(num_queries / num_keys, 1.0)
            rows.append(table[int(distance)])
    return torch.stack(rows).reshape(num_queries, num_keys, -1)


class FullAutoencoder(MaskedAutoencoder):
    """Masked autoencoder whose encoder processes masked tokens, too; its decoder is unchanged.

    The predictions differ, since visible tokens attend to masked ones: it shows the cost of a step
    and is not meant for training.
    """

    def encode_visible(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Encode all tokens, then return those of `MaskedAutoencoder.encode_visible`."""
        front = int(self.has_cls)
        every = torch.arange(tokens.shape[1] - front, device=tokens.device)
        encoded = super().encode_visible(tokens, every.expand(len(tokens), -1))
        positions = F.pad(visible + 1, (1, 0)) if front else visible
        return encoded.take_along_dim(positions[..., None], dim=1)


def encode_all(model: nn.Module) -> nn.Module:
    """Make the encoder of a masked autoencoder process all tokens, in place; keeps the weights."""
    assert type(model) is MaskedAutoencoder, "MASK.MAE_ON must be True"
    model.__class__ = FullAutoencoder
    return model


class PlainPool(DepthwisePool):
    """Depthwise convolution by torch's own operator, one clip for each head."""

    def forward(self, clips: Tensor) -> Tensor:
        """Pool (b, t, h, w, heads * d) -> (b, t', h', w', heads * d)."""
        planes = clips.permute(0, 4, 1, 2, 3)  # (b, heads * d, t, h, w)
        heads = planes.reshape(-1, self.in_channels, *planes.shape[2:])  # (b * heads, d, t, h, w)
        pooled = nn.Conv3d.forward(self, heads)
        return pooled.reshape(*planes.shape[:2], *pooled.shape[2:]).permute(0, 2, 3, 4, 1)

    def pool_patches(self, tokens: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Pool what follows a class token, (b, 1 + t*h*w, heads * d); that token apart."""
        cls, patches = tokens.split([1, grid.num_tokens], dim=1)
        return cls, self(patches.unflatten(1, tuple(grid)))


class PlainMlp(Mlp):
    """MLP whose hidden tensor and its GELU are both kept for the backward pass."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute (..., dim) -> (..., dim_out)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(tokens)))))


class PlainBlock(MultiscaleBlock):
    """Block that computes all tokens, also where only some are needed."""

    takes_places = False  # type: ignore[assignment]


def make_plain(model: nn.Module, *, attention: bool = True, pooling: bool = False) -> nn.Module:
    """Replace the fast layers of a model by plain ones, in place; keeps the weights.

    Args:
        model: any model of this package.
        attention: whether to use `ExplicitAttention`, `PlainMlp` and `PlainBlock`.
        pooling: whether to use `PlainPool`.

    Returns:
        The model.
    """
    for module in model.modules():
        if attention and type(module) is MultiscaleBlock:
            module.__class__ = PlainBlock
        if attention and type(module) is PoolingAttention:
            module.__class__ = ExplicitAttention
        if attention and type(module) is Mlp:
            module.__class__ = PlainMlp
        if pooling and type(module) is DepthwisePool:
            module.__class__ = PlainPool
    return model


@contextmanager
def separate_casts() -> Iterator[None]:
    """Context in which autocast casts each weight for itself, as it does without `one_dtype`."""
    with mock.patch.object(block, "call_in_one_dtype", _call):
        yield


def _call(module: nn.Module, tokens: Tensor, *args: Any) -> Any:
    return module(tokens, *args)
