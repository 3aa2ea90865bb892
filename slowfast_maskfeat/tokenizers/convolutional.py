"""Convolutional encoders and decoders of tokenizers.

The form, and the names of the parameters, are those of the small dVAE in BEiT's published code
(beit/modeling_discrete_vae.py); there all stages have one width and one block.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from slowfast_maskfeat.tokenizers.base import ImageEncoder


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a 1x1 one, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, width, h, w) -> the same."""
        return self.net(x) + x


class ConvEncoder(nn.Sequential, ImageEncoder):
    """Stages that each halve rows and columns, and a 1x1 convolution.

    Args:
        widths: channels of each stage.
        num_blocks: residual blocks in each stage.
        out_channels: logits of the codes, or width of a code.

    Attributes:
        stride: pixels per code, along rows and along columns: 2 ** stages.
        out_channels: as given.
    """

    def __init__(self, widths: Sequence[int], *, num_blocks: int, out_channels: int) -> None:
        _check(widths, num_blocks)
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            halve = nn.Conv2d(before, width, 4, stride=2, padding=1)
            layers.append(nn.Sequential(halve, nn.ReLU()))
            layers += [ResidualBlock(width) for _ in range(num_blocks)]
        super().__init__(*layers, nn.Conv2d(widths[-1], out_channels, 1))
        self.stride = 2 ** len(widths)
        self.out_channels = out_channels


class ConvDecoder(nn.Sequential):
    """Stages that each double rows and columns, and a 1x1 convolution: pixels from codes.

    Args:
        in_channels: width of a code.
        widths: channels of each stage.
        num_blocks: residual blocks in each stage.
        out_channels: channels of the output.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], *, num_blocks: int, out_channels: int
    ) -> None:
        _check(widths, num_blocks)
        layers: list[nn.Module] = []
        for before, width in zip((in_channels, *widths), widths, strict=False):
            double = nn.ConvTranspose2d(before, width, 4, stride=2, padding=1)
            layers.append(nn.Sequential(double, nn.ReLU()))
            layers += [ResidualBlock(width) for _ in range(num_blocks)]
        super().__init__(*layers, nn.Conv2d(widths[-1], out_channels, 1))


class FeatureDecoder(nn.Sequential):
    """Residual blocks on the grid of the codes, between 1x1 convolutions: features from codes.

    Args:
        in_channels: width of a code.
        width: channels of the blocks.
        num_blocks: residual blocks.
        out_channels: width of the features.
    """

    def __init__(self, in_channels: int, width: int, *, num_blocks: int, out_channels: int) -> None:
        _check((width,), num_blocks)
        first = nn.Sequential(nn.Conv2d(in_channels, width, 1), nn.ReLU())
        blocks = [ResidualBlock(width) for _ in range(num_blocks)]
        super().__init__(first, *blocks, nn.Conv2d(width, out_channels, 1))


def _check(widths: Sequence[int], num_blocks: int) -> None:
    if not widths or min(widths) < 1 or num_blocks < 0:
        raise ValueError(
            "a convolutional tokenizer must have stages of a width >= 1 and >= 0 blocks in each, "
            f"got widths {list(widths)} and {num_blocks} blocks"
        )
