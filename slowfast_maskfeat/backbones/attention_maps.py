"""Where a network looks: the attention in its last block, for figures."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.backbones.attention import PoolingAttention
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.encoder import Encoder


@torch.no_grad()
def last_attention(encoder: Encoder, clips: Tensor, *, of_class_token: bool) -> Tensor:
    """Attention that the patches receive in the last block, as in DINO (arXiv 2104.14294).

    Args:
        encoder: MViT or ViT.
        clips: (B, C, T, H, W), float, normalized.
        of_class_token: the attention of the class token; otherwise the mean over the patch tokens.

    Returns:
        (B, heads, t, h, w) on the grid of the keys, which an MViT may have pooled.
    """
    tokens, grid = encoder.embed(clips)
    bias = encoder.shared_bias(grid)
    *first, last = range(len(encoder.blocks))
    for index in first:
        tokens, grid = encoder.run_block(index, tokens, grid, bias)
    block = encoder.blocks[last]
    assert isinstance(block, MultiscaleBlock)
    assert isinstance(block.attn, PoolingAttention)
    weights, grid_k = block.attn.weights(block.norm1(tokens), grid, bias)
    front = int(encoder.has_cls)
    rows = weights[:, :, 0] if of_class_token else weights[:, :, front:].mean(dim=2)
    return rows[..., front:].unflatten(-1, tuple(grid_k))
