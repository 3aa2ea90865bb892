"""DALL-E's discrete VAE: residual networks without normalization.

Source: github.com/openai/DALL-E, dall_e/encoder.py and dall_e/decoder.py, whose names of parameters
encoder and decoder have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.tokenizers.base import ImageEncoder

_KERNELS = (3, 3, 3, 1)  # of a block in the encoder; reversed in the decoder


class NamedConv2d(nn.Module):
    """A convolution that keeps the grid, with the parameters `w` and `b`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: odd number of rows, and of columns.

    Attributes:
        w: (out_channels, in_channels, kernel, kernel), at first normal with variance
            1 / (in_channels * kernel**2).
        b: (out_channels,), at first 0.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.b = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.w, std=(in_channels * kernel**2) ** -0.5)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution: (B, C, h, w) -> (B, out_channels, h, w)."""
        return F.conv2d(x, self.w, self.b, padding=self.padding)


class DalleBlock(nn.Module):
    """Four convolutions, each after a ReLU, times a small constant, added to the input.

    Args:
        in_channels: channels of the input; another number than `out_channels` passes the shortcut
            through a 1x1 convolution.
        out_channels: channels of the output; a fourth of them within the block.
        kernels: of the four convolutions.
        gain: the constant.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernels: Iterable[int], gain: float
    ) -> None:
        super().__init__()
        self.gain = gain
        is_same = in_channels == out_channels
        self.id_path = nn.Identity() if is_same else NamedConv2d(in_channels, out_channels, 1)
        hidden = out_channels // 4
        widths = (in_channels, hidden, hidden, hidden, out_channels)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for number, kernel in enumerate(kernels, start=1):
            layers[f"relu_{number}"] = nn.ReLU()
            layers[f"conv_{number}"] = NamedConv2d(widths[number - 1], widths[number], kernel)
        self.res_path = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, in_channels, h, w) -> (B, out_channels, h, w)."""
        shortcut: Tensor = self.id_path(x)
        return shortcut + self.gain * self.res_path(x)


class DalleEncoder(ImageEncoder):
    """Logits of the codes from images.

    Args:
        widths: channels of each group of blocks, between which rows and columns are halved.
            Published: 256, 512, 1024, 2048.
        num_blocks: blocks in each group; published: 2.
        out_channels: K.

    Attributes:
        stride: pixels per code, along rows and along columns: 2 ** (groups - 1).
        out_channels: as given.

    Raises:
        ValueError: a width is no multiple of 4, or there is no group or no block.
    """

    def __init__(self, widths: Sequence[int], *, num_blocks: int, out_channels: int) -> None:
        super().__init__()
        _check(widths, num_blocks)
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=NamedConv2d(3, widths[0], 7))
        layers |= _groups(
            (widths[0], *widths), num_blocks, _KERNELS, pool=partial(nn.MaxPool2d, kernel_size=2)
        )
        layers["output"] = _output(widths[-1], out_channels)
        self.blocks = nn.Sequential(layers)
        self.stride = 2 ** (len(widths) - 1)
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits: (B, 3, H, W) -> (B, K, h, w)."""
        logits: Tensor = self.blocks(images)
        return logits


class DalleDecoder(nn.Module):
    """Pixels from the weights of all codes at each cell.

    Args:
        num_codes: K.
        code_dim: channels after the first layer, a 1x1 convolution, whose columns are the vectors
            of the codes; published: 128.
        widths: channels of each group of blocks, between which rows and columns are doubled.
            Published: 2048, 1024, 512, 256.
        num_blocks: blocks in each group; published: 2.
        out_channels: C.

    Raises:
        ValueError: a width is no multiple of 4, or there is no group or no block.
    """

    def __init__(
        self,
        num_codes: int,
        code_dim: int,
        widths: Sequence[int],
        *,
        num_blocks: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        _check(widths, num_blocks)
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=NamedConv2d(num_codes, code_dim, 1))
        layers |= _groups(
            (code_dim, *widths),
            num_blocks,
            _KERNELS[::-1],
            upsample=partial(nn.Upsample, scale_factor=2, mode="nearest"),
        )
        layers["output"] = _output(widths[-1], out_channels)
        self.blocks = nn.Sequential(layers)

    def forward(self, weights: Tensor) -> Tensor:
        """Compute pixels: (B, K, h, w) -> (B, C, H, W)."""
        output: Tensor = self.blocks(weights)
        return output


def _groups(
    widths: Sequence[int],
    num_blocks: int,
    kernels: Sequence[int],
    **resize: Callable[[], nn.Module],
) -> OrderedDict[str, nn.Module]:
    """Build groups of blocks, with a layer named as in `resize` after all but the last.

    Args:
        widths: channels before the first group, and of each group.
        num_blocks: blocks in each group.
        kernels: of the convolutions of a block.
        **resize: name of the layer, and what builds it.
    """
    groups: OrderedDict[str, nn.Module] = OrderedDict()
    num_groups = len(widths) - 1
    gain = 1 / (num_groups * num_blocks) ** 2
    for number, width in enumerate(widths[1:], start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(num_blocks):
            before = width if block else widths[number - 1]
            layers[f"block_{block + 1}"] = DalleBlock(before, width, kernels=kernels, gain=gain)
        if number < num_groups:
            layers |= {name: build() for name, build in resize.items()}
        groups[f"group_{number}"] = nn.Sequential(layers)
    return groups


def _output(width: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=NamedConv2d(width, out_channels, 1)))


def _check(widths: Sequence[int], num_blocks: int) -> None:
    if not widths or min(widths) < 4 or any(width % 4 for width in widths) or num_blocks < 1:
        raise ValueError(
            "DALL-E's networks must have groups of a width that is a multiple of 4 and >= 1 blocks "
            f"in each, got widths {list(widths)} and {num_blocks} blocks"
        )
