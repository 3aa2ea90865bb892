"""Gumbel-softmax: samples, their gradients, and noise that belongs to a sample."""

from __future__ import annotations

import math

import pytest
import torch

from slowfast_maskfeat.tokenizers import gumbel_noise, gumbel_softmax


def test_samples_have_the_frequencies_of_the_distribution() -> None:
    probability = torch.tensor([0.5, 0.3, 0.15, 0.05])
    noise = gumbel_noise(range(40), (4, 20, 20))
    logits = probability.log()[:, None, None].expand(40, 4, 20, 20)
    codes = gumbel_softmax(logits, noise, temperature=1.0).argmax(dim=1)
    frequency = torch.bincount(codes.flatten()) / codes.numel()
    assert torch.allclose(frequency, probability, atol=0.015)


def test_hard_samples_are_one_hot_with_the_gradient_of_soft_ones() -> None:
    logits = torch.randn(2, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    noise, gradients = gumbel_noise([1, 2], (5, 3, 3)), []
    for hard in (False, True):
        given = logits.clone().requires_grad_()
        sample = gumbel_softmax(given, noise, temperature=0.7, hard=hard)
        (sample * noise).sum().backward()
        gradients.append(given.grad)
    assert torch.allclose(*gradients)
    assert torch.allclose(sample.sum(dim=1), torch.ones(2, 3, 3))
    assert torch.allclose(sample.amax(dim=1), torch.ones(2, 3, 3))


def test_low_temperatures_come_close_to_one_hot() -> None:
    logits, noise = torch.zeros(1, 6, 8, 8), gumbel_noise([0], (6, 8, 8))
    largest = [
        float(gumbel_softmax(logits, noise, temperature=t).amax(dim=1).mean())
        for t in (10.0, 1.0, 0.05)
    ]
    assert largest[0] < 0.3 < largest[1] < 0.9 < largest[2]


def test_noise_belongs_to_the_sample() -> None:
    together = gumbel_noise([7, 8, 9], (4, 2))
    assert torch.equal(together[1:2], gumbel_noise([8], (4, 2)))
    assert not torch.equal(together[0], together[1])
    many = gumbel_noise([3], (100_000,))
    assert many.isfinite().all()
    assert float(many.mean()) == pytest.approx(0.5772, abs=0.02)  # Euler's constant
    assert float(many.var()) == pytest.approx(math.pi**2 / 6, abs=0.05)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"> 0, got {temperature}"):
        gumbel_softmax(torch.zeros(1, 2), torch.zeros(1, 2), temperature=temperature)
