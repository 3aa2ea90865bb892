"""Attentive probe: a learned query cross-attends to the frozen tokens.

Source: attentive pooling of CoCa (arXiv 2205.01917), section 3.2, as a probe in V-JEPA (arXiv
2404.08471), section 4: one learned query attends to all tokens, followed by an MLP with a residual
connection and a linear classifier.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def num_attention_heads(width: int, num_heads: int) -> int:
    """Number of attention heads of an attentive probe.

    Args:
        width: D.
        num_heads: PROBE.NUM_HEADS; 0 for one per 64 channels, at least one.

    Raises:
        ValueError: the width is not a multiple of the number of heads.
    """
    found = num_heads or max(width // 64, 1)
    if width % found:
        raise ValueError(
            f"PROBE.NUM_HEADS must divide the width {width} of the tokens, got {found}"
        )
    return found


class AttentiveHead(nn.Module):
    """One learned query, one block of cross-attention, one linear classifier.

    Args:
        width: D.
        num_classes: K.
        num_heads: of the attention; 0 for one per 64 channels.

    Raises:
        ValueError: the width is not a multiple of the number of heads.
    """

    def __init__(self, width: int, num_classes: int, num_heads: int = 0) -> None:
        super().__init__()
        self.num_heads = num_attention_heads(width, num_heads)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm_tokens = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.linear = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Classify tokens: (B, n, D) -> (B, K) logits."""
        query = self.query.expand(len(tokens), -1, -1)
        key, value = self.to_key_value(self.norm_tokens(tokens)).chunk(2, dim=-1)
        split = (self.num_heads, -1)
        heads = [
            x.unflatten(-1, split).transpose(1, 2) for x in (self.to_query(query), key, value)
        ]  # (B, heads, 1 or n, D / heads)
        attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)  # (B, 1, D)
        pooled = query + self.project(attended)
        pooled = pooled + self.mlp(self.norm_mlp(pooled))
        return self.linear(pooled[:, 0])
