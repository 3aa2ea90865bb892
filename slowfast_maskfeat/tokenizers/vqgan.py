"""VQGAN (arXiv:2012.09841): residual networks with group norms, and attention on the last grid.

Source: github.com/CompVis/taming-transformers, taming/modules/diffusionmodules/model.py and
taming/models/vqgan.py, whose names of parameters these networks have. Its published networks attend
on the grid of the codes alone, as here. Dropout, which they do not use, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.tokenizers.base import ImageEncoder
from slowfast_maskfeat.tokenizers.quantizer import Quantizer
from slowfast_maskfeat.tokenizers.vq import VQTokenizer

_GROUPS = 32  # of a norm
_EPSILON = 1e-6


class VQGANBlock(nn.Module):
    """Two 3x3 convolutions, each after a norm and SiLU, added to the input.

    Args:
        in_channels: channels of the input; another number than `out_channels` passes the shortcut
            through a 1x1 convolution.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        is_same = in_channels == out_channels
        self.nin_shortcut = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        shortcut: Tensor = self.nin_shortcut(x)
        x = self.conv1(F.silu(self.norm1(x)))
        return shortcut + self.conv2(F.silu(self.norm2(x)))


class VQGANAttention(nn.Module):
    """Attention of one head over all cells after a norm, added to the input.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it: (B, width, h, w) -> the same."""
        normed = self.norm(x)
        # (B, D, h, w) -> (B, h * w, D)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.proj_out(attended.unflatten(2, x.shape[2:]))


class _Resize(nn.Module):
    """A 3x3 convolution that halves, or after repetition doubles, rows and columns."""

    def __init__(self, width: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv = nn.Conv2d(
            width, width, 3, stride=2 if halves else 1, padding=0 if halves else 1
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.halves:  # zeros on the right and below alone
            x = F.pad(x, (0, 1, 0, 1))
        else:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        resized: Tensor = self.conv(x)
        return resized


class _Stage(nn.Module):
    """Blocks of one width, each followed by attention if there is any, and a change of the grid."""

    def __init__(
        self, in_channels: int, width: int, num_blocks: int, *, attends: bool, resize: str = ""
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            VQGANBlock(width if number else in_channels, width) for number in range(num_blocks)
        )
        self.attn = nn.ModuleList(VQGANAttention(width) for _ in range(num_blocks * attends))
        self.resize = resize
        if resize:
            self.add_module(resize, _Resize(width, halves=resize == "downsample"))

    def forward(self, x: Tensor) -> Tensor:
        for number, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[number](x)
        return self.get_submodule(self.resize)(x) if self.resize else x


class _Middle(nn.Module):
    """Two blocks with attention between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = VQGANBlock(width, width)
        self.attn_1 = VQGANAttention(width)
        self.block_2 = VQGANBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return attended


class VQGANEncoder(ImageEncoder):
    """Vectors of codes from images.

    Args:
        widths: channels of each stage, between which rows and columns are halved; multiples of 32.
        num_blocks: blocks in each stage.
        out_channels: channels of the output.
        attends: attention follows each block of the last stage.

    Attributes:
        stride: pixels per code, along rows and along columns: 2 ** (stages - 1).
        out_channels: as given.

    Raises:
        ValueError: a width is no multiple of 32, or there is no stage or no block.
    """

    def __init__(
        self, widths: Sequence[int], *, num_blocks: int, out_channels: int, attends: bool
    ) -> None:
        super().__init__()
        _check(widths, num_blocks)
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        for number, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            is_last = number == last
            resize = "" if is_last else "downsample"
            self.down.append(
                _Stage(before, width, num_blocks, attends=attends and is_last, resize=resize)
            )
        self.mid = _Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        self.stride = 2**last
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Compute vectors: (B, 3, H, W) -> (B, out_channels, h, w)."""
        x = self.conv_in(images)
        for stage in self.down:
            x = stage(x)
        vectors: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return vectors


class VQGANDecoder(nn.Module):
    """Pixels from vectors of codes.

    Args:
        in_channels: channels of the input.
        widths: channels of each stage in the order of the encoder, whose reverse is applied;
            multiples of 32.
        num_blocks: blocks in each stage of the encoder; the decoder has one more.
        out_channels: channels of the output.
        attends: attention follows each block on the grid of the codes.

    Raises:
        ValueError: a width is no multiple of 32, or there is no stage or no block.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        num_blocks: int,
        out_channels: int,
        attends: bool,
    ) -> None:
        super().__init__()
        _check(widths, num_blocks)
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList()
        for number, (width, before) in enumerate(
            zip(widths, (*widths[1:], widths[-1]), strict=True)
        ):
            has_attention = attends and number == last
            resize = "upsample" if number else ""
            self.up.append(
                _Stage(before, width, num_blocks + 1, attends=has_attention, resize=resize)
            )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute pixels: (B, in_channels, h, w) -> (B, out_channels, H, W)."""
        x = self.mid(self.conv_in(vectors))
        for stage in reversed(self.up):
            x = stage(x)
        pixels: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return pixels


class VQGAN(VQTokenizer):
    """VQGAN's networks, with a 1x1 convolution before and after the quantizer.

    Args:
        encoder: (B, 3, H, W) -> (B, Z, h, w).
        quantizer: of vectors of width D.
        decoder: (B, Z, h, w) -> (B, 3, H, W).
        **options: of `VQTokenizer`.
    """

    def __init__(
        self, encoder: VQGANEncoder, quantizer: Quantizer, decoder: VQGANDecoder, **options: Any
    ) -> None:
        super().__init__(encoder, quantizer, decoder, projects=True, **options)
        self.quant_conv = nn.Conv2d(encoder.out_channels, quantizer.dim, 1)
        self.post_quant_conv = nn.Conv2d(quantizer.dim, encoder.out_channels, 1)

    def to_vectors(self, encoded: Tensor) -> Tensor:
        """Apply the first convolution: (B, Z, h, w) -> (B, D, h, w)."""
        vectors: Tensor = self.quant_conv(encoded)
        return vectors

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """Apply the second convolution and the decoder: (B, D, h, w) -> (B, 3, H, W)."""
        return super().from_vectors(self.post_quant_conv(vectors))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=_EPSILON)


def _check(widths: Sequence[int], num_blocks: int) -> None:
    if not widths or min(widths) < _GROUPS or any(w % _GROUPS for w in widths) or num_blocks < 1:
        raise ValueError(
            f"VQGAN's networks must have stages of a width that is a multiple of {_GROUPS} and >= "
            f"1 blocks in each, got widths {list(widths)} and {num_blocks} blocks"
        )
