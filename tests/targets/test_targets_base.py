"""The contract of targets: the default loss, the baseline, and room for targets to come."""

from __future__ import annotations

import pytest
import torch
from helpers.golden_rule import golden_randn
from torch import Tensor

from slowfast_maskfeat.losses import cross_entropy
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import HOGTarget, PixelTarget, Target


class _Tokens(Target):
    """Discrete tokens: class indexes as target, logits as prediction."""

    @property
    def dim(self) -> int:
        return 5

    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        return torch.arange(grid.num_tokens).remainder(5).expand(len(clips), -1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(prediction, target)

    def constant_prediction(self, target: Tensor) -> Tensor:
        return target.bincount(minlength=5).float().div(len(target)).log()


def test_a_target_must_say_its_width_and_encoding():
    with pytest.raises(TypeError, match="abstract"):
        Target()


def test_loss_is_the_mean_over_the_width_of_a_token():
    prediction, target = golden_randn(1, (6, 108)), golden_randn(2, (6, 108))
    expected = ((prediction - target) ** 2).mean(dim=1)
    assert torch.allclose(HOGTarget((2, 16, 16)).loss(prediction, target), expected)


def test_loss_is_float32_of_a_half_precision_prediction():
    prediction = golden_randn(1, (6, 108)).bfloat16().requires_grad_()
    loss = HOGTarget((2, 16, 16)).loss(prediction, golden_randn(2, (6, 108)))
    assert loss.dtype == torch.float32
    loss.mean().backward()
    assert prediction.grad is not None
    assert prediction.grad.dtype == torch.bfloat16


def test_baseline_is_the_variance_of_the_target():
    target = golden_randn(3, (50, 108)) * 2 + 1
    baseline = HOGTarget((2, 16, 16)).baseline_loss(target)
    assert baseline.shape == ()
    assert float(baseline) == pytest.approx(float(target.var(dim=0, correction=0).mean()), rel=1e-5)
    other = HOGTarget((2, 16, 16)).loss(torch.ones_like(target) * 1.1, target).mean()
    assert baseline < other


def test_a_target_of_discrete_tokens_fits():
    target = _Tokens()
    labels = target.encode(torch.zeros(2, 3, 2, 16, 16), Grid(2, 3, 3))
    assert labels.shape == (2, 18)
    rows = labels.flatten()
    assert target.loss(torch.randn(36, 5), rows).shape == (36,)
    frequency = rows.bincount().double() / 36
    entropy = -(frequency * frequency.log()).sum()
    assert float(target.baseline_loss(rows)) == pytest.approx(float(entropy), rel=1e-5)


@pytest.mark.parametrize("target", [HOGTarget((2, 16, 16)), PixelTarget((2, 16, 16))])
def test_nothing_to_save(target):
    assert target.state_dict() == {}
    assert "dim=" in repr(target)
