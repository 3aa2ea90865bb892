"""Optimizers without torch's wrappers: the numbers, checkpoints and hooks of torch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from slowfast_maskfeat import optimizers

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {"fused": True, "betas": (0.9, 0.95), "weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "fused": True}),
]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    network(torch.randn(3, 4, generator=draw)).square().sum().backward()
    optimizer.step()


def _tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    states = optimizer.state_dict()["state"].values()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_steps_and_checkpoints_are_torchs(name: str, options: dict[str, Any]) -> None:
    """Bit-equal steps; each loads the checkpoint of the other and goes on."""
    networks = [_network() for _ in range(2)]
    kinds = [getattr(optimizers, name), getattr(torch.optim, name)]
    ours, theirs = (
        kind(network.parameters(), lr=0.1, **options)
        for kind, network in zip(kinds, networks, strict=True)
    )
    for seed in range(4):
        if seed == 2:
            first, second = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
            assert first["param_groups"] == second["param_groups"]
            ours.load_state_dict(second)
            theirs.load_state_dict(first)
        _step(networks[0], ours, seed)
        _step(networks[1], theirs, seed)
        for own, other in zip(*(network.parameters() for network in networks), strict=True):
            assert torch.equal(own, other)
        assert len(_tensors(ours)) == len(_tensors(theirs)) > 0
        assert all(map(torch.equal, _tensors(ours), _tensors(theirs)))


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_hooks_are_called_and_no_gradient_is_recorded(name: str) -> None:
    network = _network()
    optimizer = getattr(optimizers, name)(network.parameters(), lr=0.1)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("saved"))
    _step(network, optimizer, 0)
    optimizer.state_dict()
    assert calls == ["before", "after", "saved"]
    assert torch.is_grad_enabled()
    assert all(parameter.grad_fn is None for parameter in network.parameters())
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_closure_is_called_with_gradients() -> None:
    network = _network()
    optimizer = optimizers.SGD(network.parameters(), lr=0.1)

    def closure() -> Tensor:
        loss = network(torch.ones(1, 4)).square().sum()
        loss.backward()
        return loss

    before = network[2].bias.clone()
    assert optimizer.step(closure) > 0
    assert not torch.equal(before, network[2].bias)
