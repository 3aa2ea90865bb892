"""Perceptual distances: gradients through a frozen network into the reconstruction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones import EncoderOptions, NormedEncoder
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.losses import LPIPS, FeatureDistance, layer_outputs


class Blocks(nn.Module):
    """Tokens through blocks, the second of which returns its grid, too."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.first = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5))
        self.second = WithGrid()
        self.idle = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.second(self.first(tokens))[0]


class WithGrid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)

    def forward(self, tokens: Tensor) -> tuple[Tensor, int]:
        return self.linear(tokens).tanh(), tokens.shape[1]


def distance_by(layers: list[str]) -> FeatureDistance:
    torch.manual_seed(0)
    network = FrozenNetwork(Blocks().double())
    return FeatureDistance(network, layers, run=lambda net, images: net((images - 0.5) / 0.25))


def images(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 3, 8, 12, generator=generator, dtype=torch.float64)


def test_the_formula() -> None:
    distance = distance_by(["patches", "second"])
    network = distance.network.network
    expected = torch.zeros(3, dtype=torch.float64)
    maps, tokens = [], []
    for x in (images(1), images(2)):
        maps.append(network.patches((x - 0.5) / 0.25).flatten(2).transpose(1, 2))
        tokens.append(network((x - 0.5) / 0.25))
    for pair in (maps, tokens):  # (B, N, D) both; |a - b|**2 = 2 - 2 cos for unit vectors
        expected += (2 - 2 * torch.cosine_similarity(*pair, dim=-1)).mean(dim=1)
    assert torch.allclose(distance(images(1), images(2)), expected)
    assert distance(images(1), images(1)).abs().max() < 1e-12


def test_gradients_reach_the_reconstruction_alone() -> None:
    distance = distance_by(["first", "second"])
    distance.train()
    reconstruction, image = images(1).requires_grad_(), images(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distance(x, image.detach()), (reconstruction,))
    distance(reconstruction, image).sum().backward()
    assert float(reconstruction.grad.norm()) > 0
    assert image.grad is None
    assert not list(distance.parameters())
    network = distance.network.network
    assert not network.training  # dropout is idle
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert set(distance.state_dict()) == {"network._extra_state"}


def test_the_distance_falls_when_the_reconstruction_follows_its_gradient() -> None:
    distance, image = distance_by(["patches", "first"]), images(2)
    reconstruction = images(1).requires_grad_()
    optimizer = torch.optim.Adam([reconstruction], lr=0.02)
    found = []
    for _ in range(30):
        value = distance(reconstruction, image).mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(value.detach()))
    assert found[-1] < 0.3 * found[0]


def test_hooks_do_not_stay() -> None:
    distance = distance_by(["first"])
    distance(images(1), images(2))
    modules = list(distance.network.network.modules())
    with pytest.raises(RuntimeError):  # other channels than the network has
        distance.features(images(1)[:, :2])
    assert not any(module._forward_hooks for module in modules)


def test_layers_that_do_not_exist_or_do_not_run() -> None:
    with pytest.raises(ValueError, match=r"such as .*second.*, got 'secnd'"):
        distance_by(["first", "secnd"])
    with pytest.raises(ValueError, match="modules of the network"):
        distance_by([])
    network = Blocks()
    with pytest.raises(ValueError, match=r"must run .* 'idle'"):
        layer_outputs(network, ["first", "idle"], lambda: network(torch.rand(1, 3, 8, 8)))


def test_lpips_of_equal_images_is_zero_with_finite_gradients() -> None:
    torch.manual_seed(0)
    network = FrozenNetwork(LPIPS((4, 6), (1, 2)))
    black = torch.zeros(2, 3, 8, 8, requires_grad=True)
    with torch.no_grad():  # every feature is 0 behind a ReLU: its direction is not defined
        for parameter in network.network.parameters():
            parameter.fill_(-1.0)
    value = network(black, torch.zeros(2, 3, 8, 8))
    value.sum().backward()
    assert value.tolist() == [0, 0]
    assert black.grad.isfinite().all()


def test_lpips_has_the_published_names() -> None:
    names = {name: tuple(value.shape) for name, value in LPIPS().state_dict().items()}
    assert names["net.slice1.0.weight"] == (64, 3, 3, 3)
    assert names["net.slice5.28.weight"] == (512, 512, 3, 3)
    assert names["lin3.model.1.weight"] == (1, 512, 1, 1)
    assert sum(name.startswith("net.") for name in names) == 26


def test_layers_of_a_vision_transformer() -> None:
    """Blocks of a backbone, which takes clips: images of one frame, normalized."""
    torch.manual_seed(0)
    options = EncoderOptions(
        clip_size=(1, 16, 16),
        patch_kernel=(4, 4),
        patch_stride=(4, 4),
        patch_padding=(0, 0),
        width=16,
        num_heads=2,
        depth=3,
    )
    network = FrozenNetwork(NormedEncoder(options))

    def run(backbone: nn.Module, images: Tensor) -> Tensor:
        resized = nn.functional.interpolate(images, size=(16, 16), mode="bilinear")
        return backbone.tokens((resized[:, :, None] - 0.45) / 0.225)

    distance = FeatureDistance(network, ["blocks.0", "blocks.2"], run=run)
    tokens = distance.features(images(2).float())
    assert [x.shape for x in tokens] == [(3, 17, 16)] * 2
    reconstruction = images(1).float().requires_grad_()
    value = distance(reconstruction, images(2).float())
    value.sum().backward()
    assert (value > 0).all()
    assert float(reconstruction.grad.norm()) > 0
    assert all(p.grad is None for p in network.network.parameters())
