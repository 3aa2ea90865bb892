"""A backbone that is no vision transformer: what any network must have to be one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones import resize_mask
from slowfast_maskfeat.shapes import Grid

STRIDE = (2, 8, 8)


class ToyBackbone(nn.Module):
    """Patches of 2x8x8, two linear layers as blocks, a norm; with a class token if asked for."""

    token_stride = STRIDE
    num_layers = 3

    def __init__(self, width: int = 12, *, has_cls: bool = False) -> None:
        super().__init__()
        self.width, self.has_cls = width, has_cls
        self.patches = nn.Conv3d(3, width, STRIDE, STRIDE)
        self.mask_token = nn.Parameter(torch.full((width,), 0.5))
        if has_cls:
            self.cls_token = nn.Parameter(torch.full((width,), -0.5))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.norm = nn.LayerNorm(width)

    def layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers if name.startswith("norm.") else 0

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("_token")}

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        return [Grid(*(size // step for size, step in zip(clip_size, STRIDE, strict=True)))] * 2

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.patches(clips).flatten(2).transpose(1, 2)
        if mask is not None:
            masked = resize_mask(mask, self.grids(clips.shape[2:])[0]).flatten(1)
            tokens = torch.where(masked[..., None].to(tokens.device), self.mask_token, tokens)
        if self.has_cls:
            tokens = torch.cat((self.cls_token.expand(len(tokens), 1, -1), tokens), dim=1)
        for block in self.blocks:
            tokens = tokens + block(tokens.mean(dim=1, keepdim=True) + tokens).relu()
        return self.norm(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.has_cls else tokens.mean(dim=1)
