"""Loss terms: values, gradients, precision."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.golden_rule import golden_randn

from slowfast_maskfeat.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    mean_absolute_error,
    mean_squared_error,
    soft_cross_entropy,
)


def test_soft_cross_entropy_has_the_published_value():
    # metrics.json: logits randn 80 (8, 40), target softmax of randn 81.
    logits, target = golden_randn(80, (8, 40)), golden_randn(81, (8, 40)).softmax(dim=1)
    terms = soft_cross_entropy(logits, target)
    assert terms.shape == (8,)
    assert float(terms.mean()) == pytest.approx(4.18574333190918, rel=1e-6)
    doubled = soft_cross_entropy(logits, 2 * target).mean()
    assert float(doubled) == pytest.approx(8.37148666381836, rel=1e-6)


def test_soft_and_hard_agree_on_one_hot_targets():
    logits, labels = golden_randn(1, (8, 40)), torch.arange(8)
    hard = cross_entropy(logits, labels)
    assert hard.shape == (8,)
    assert torch.allclose(hard, soft_cross_entropy(logits, torch.eye(40)[labels]))
    smooth = 0.9 * torch.eye(40)[labels] + 0.1 / 40
    assert torch.allclose(
        cross_entropy(logits, labels, label_smoothing=0.1), soft_cross_entropy(logits, smooth)
    )


def test_equal_scores_cost_the_log_of_the_number_of_classes():
    assert cross_entropy(torch.zeros(2, 7), torch.tensor([0, 6])).tolist() == pytest.approx(
        [math.log(7)] * 2
    )


def test_binary_cross_entropy_is_that_of_probabilities():
    logits = golden_randn(2, (5, 80))
    target = (golden_randn(3, (5, 80)) > 1).long()
    probability = logits.double().sigmoid()
    expected = -torch.where(target == 1, probability, 1 - probability).log().mean(dim=1)
    ours = binary_cross_entropy_with_logits(logits, target)
    assert torch.allclose(ours.double(), expected, rtol=1e-5)
    assert binary_cross_entropy_with_logits(torch.tensor([[-300.0]]), torch.ones(1, 1)) == 300


def test_mean_squared_error():
    prediction = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert mean_squared_error(prediction, torch.tensor([[1.0, 4.0], [3.0, 1.0]])).tolist() == [2, 5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [mean_squared_error, soft_cross_entropy])
def test_at_least_float32(loss, dtype):
    prediction, target = golden_randn(4, (3, 6)).to(dtype), golden_randn(5, (3, 6))
    terms = loss(prediction, target)
    assert terms.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = loss(prediction.double(), target)
    assert torch.allclose(terms.double(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "loss", [mean_squared_error, soft_cross_entropy, binary_cross_entropy_with_logits]
)
def test_gradients(loss):
    prediction = golden_randn(6, (3, 6)).double().requires_grad_()
    target = golden_randn(7, (3, 6)).double().sigmoid()
    assert torch.autograd.gradcheck(lambda p: loss(p, target), (prediction,))


def test_shapes_that_would_broadcast_are_refused():
    for loss in (mean_squared_error, soft_cross_entropy):
        with pytest.raises(AssertionError):
            loss(torch.zeros(3, 6), torch.zeros(1, 6))


def test_the_absolute_error_is_a_mean_over_the_channels():
    prediction = torch.tensor([[1.0, -2.0], [0.5, 0.5]], requires_grad=True)
    target = torch.tensor([[0.0, 2.0], [0.5, 1.0]])
    terms = mean_absolute_error(prediction, target)
    assert terms.tolist() == [2.5, 0.25]
    terms.sum().backward()
    assert prediction.grad.tolist() == [[0.5, -0.5], [0.0, -0.5]]
    assert mean_absolute_error(prediction.bfloat16(), target).dtype == torch.float32
