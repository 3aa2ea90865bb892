"""Perceptual distances: of two images, by the features of a network.

Sources: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(arXiv:1801.03924) for the distance; PeCo (arXiv:2111.12710) for features of a self-supervised
transformer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.losses.precision import at_least_float32
from slowfast_maskfeat.losses.regression import unit_length


def unit_squared_difference(first: Tensor, second: Tensor, *, dim: int = 1) -> Tensor:
    """Squared difference of features that are scaled to length 1 along `dim`, elementwise."""
    first, second = (unit_length(at_least_float32(x), dim=dim) for x in (first, second))
    return (first - second).square()


class FeatureDistance(nn.Module):
    """Distance of two images by the outputs of named layers of a frozen network.

    The outputs of a layer are scaled to length 1 over their channels; the squared difference is
    summed over channels, averaged over positions, and summed over layers. The gradient passes
    through the network into the reconstruction.

    Args:
        network: the network.
        layers: names of modules in it, as in `named_modules`. The output of such a module, or the
            first entry of it if it is a tuple, has the axes (B, N, D) of tokens or (B, C, ...) of
            feature maps.
        run: runs the network on images (B, 3, H, W) in [0, 1], which it resizes, normalizes and
            gives the axes that the network takes; its result is dropped.

    Raises:
        ValueError: no layer, or one that the network does not have.
    """

    def __init__(
        self,
        network: FrozenNetwork,
        layers: Sequence[str],
        *,
        run: Callable[[nn.Module, Tensor], Any],
    ) -> None:
        super().__init__()
        _check_layers(network.network, layers)
        self.network = network
        self.layers = tuple(layers)
        self.run = run

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """Compute the distance of each image, with gradient by the reconstruction alone.

        Args:
            reconstruction: (B, 3, H, W) in [0, 1].
            image: (B, 3, H, W) in [0, 1].

        Returns:
            (B,), float32 or float64.
        """
        with torch.no_grad():
            targets = self.features(image)
        outputs = self.features(reconstruction)
        return torch.stack([*map(_layer_distance, outputs, targets)]).sum(dim=0)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the layers for images (B, 3, H, W) in [0, 1]."""
        network = self.network.network
        return layer_outputs(network, self.layers, lambda: self.run(network, images))


def layer_outputs(
    network: nn.Module, layers: Sequence[str], run: Callable[[], Any]
) -> list[Tensor]:
    """Run a network and return the outputs of some of its modules, with gradients.

    Args:
        network: the network.
        layers: names in `named_modules`.
        run: runs it; the result is dropped.

    Returns:
        One tensor per layer: its output, or the first entry of it.

    Raises:
        ValueError: a layer is not a module of the network, or did not run.
    """
    _check_layers(network, layers)
    modules = dict(network.named_modules())
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    idle = [name for name in layers if name not in outputs]
    if idle:
        raise ValueError(f"a perceptual layer must run with the network, got {idle[0]!r}")
    return [outputs[name] for name in layers]


class LPIPS(nn.Module):
    """Learned perceptual distance by a VGG network, with the names of published weights.

    As `FeatureDistance`, with a weight for each channel. It starts at random: load weights, and
    wrap it in `FrozenNetwork`.

    Args:
        widths: channels of each of the stages, between which rows and columns are halved.
        depths: convolutions in each of them. The defaults are those of VGG-16
            (arXiv:1409.1556), table 1, column D.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
    ) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = VGGFeatures(widths, depths)
        for stage, width in enumerate(widths):
            self.add_module(f"lin{stage}", _ChannelWeights(width))

    def forward(self, reconstruction: Tensor, image: Tensor) -> Tensor:
        """Compute the distance of each image.

        Args:
            reconstruction: (B, 3, H, W) in [-1, 1].
            image: (B, 3, H, W) in [-1, 1].

        Returns:
            (B,).
        """
        distances = [
            _mean_over_positions(self.get_submodule(f"lin{stage}")(difference)[:, 0])
            for stage, difference in enumerate(self.differences(reconstruction, image))
        ]
        return torch.stack(distances).sum(dim=0)

    def differences(self, reconstruction: Tensor, image: Tensor) -> list[Tensor]:
        """Squared differences of the unit features of each stage: [(B, C, h, w), ...]."""
        pair = [self.net(self.scaling_layer(x)) for x in (reconstruction, image)]
        return [unit_squared_difference(*features) for features in zip(*pair, strict=True)]


class VGGFeatures(nn.Module):
    """Feature maps of a VGG network at the end of each stage; see `LPIPS`."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        channels, number = 3, 0  # layers are numbered through, ReLU and pooling included
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            layers = nn.Sequential()
            if stage > 1:
                layers.add_module(str(number), nn.MaxPool2d(2))
                number += 1
            for _ in range(depth):
                layers.add_module(str(number), nn.Conv2d(channels, width, 3, padding=1))
                layers.add_module(str(number + 1), nn.ReLU())
                channels = width
                number += 2
            self.add_module(f"slice{stage}", layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the features: (B, 3, H, W) -> [(B, C, h, w), ...]."""
        features = [images]
        for stage in self.children():
            features.append(stage(features[-1]))
        return features[1:]


class _Scaling(nn.Module):
    """Scales images in [-1, 1] by the mean and spread of ImageNet's colors on this scale."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        self.register_buffer("shift", (2 * mean - 1).view(1, 3, 1, 1))
        self.register_buffer("scale", (2 * std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.shift) / self.scale


class _ChannelWeights(nn.Module):
    """A weight for each channel, as a 1x1 convolution: (B, C, h, w) -> (B, 1, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # The published weights have dropout in front, which is idle in evaluation.
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))

    def forward(self, differences: Tensor) -> Tensor:
        weighted: Tensor = self.model(differences)
        return weighted


def _mean_over_positions(values: Tensor) -> Tensor:
    """Average all axes but the first: (B, ...) -> (B,)."""
    return values.flatten(1).mean(dim=1)


def _layer_distance(output: Tensor, target: Tensor) -> Tensor:
    """Distance of tokens (B, N, D) or feature maps (B, C, ...) of one layer -> (B,)."""
    channels = 2 if output.ndim == 3 else 1
    difference = unit_squared_difference(output, target, dim=channels)
    return _mean_over_positions(difference.sum(dim=channels))


def _check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    names = [name for name, _ in network.named_modules() if name]
    if not layers:
        raise ValueError(f"perceptual layers must be modules of the network, such as {names[-1]!r}")
    for layer in layers:
        if layer not in names:
            near = difflib.get_close_matches(layer, names, n=3, cutoff=0.3) or names[:3]
            raise ValueError(
                f"a perceptual layer must be a module of the network, such as {', '.join(near)}, "
                f"got {layer!r}"
            )
