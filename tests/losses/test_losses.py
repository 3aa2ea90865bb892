"""Loss terms: values, gradients, precision."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.golden_rule import golden_randn

from slowfast_maskfeat.losses import (
    binary_cross_entropy_with_logits,
    cosine_distance,
    cross_entropy,
    kl_to_uniform,
    logit_laplace,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
    soft_cross_entropy,
    standardized,
    unit_length,
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


def test_smooth_l1_is_squared_below_beta_and_absolute_above():
    prediction = torch.tensor([[0.5, 0.0], [4.0, -4.0]])
    target = torch.zeros(2, 2)
    assert smooth_l1(prediction, target).tolist() == [0.0625, 3.5]
    assert smooth_l1(prediction, target, beta=2.0).tolist() == [0.03125, 3.0]


def test_cosine_distance_ignores_lengths():
    prediction = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    target = torch.tensor([[7.0, 0.0], [0.0, 5.0], [0.0, -1.0]])
    assert cosine_distance(prediction, target).tolist() == pytest.approx([0, 1 - 0.5**0.5, 2])


def test_a_zero_vector_has_finite_gradients():
    prediction = torch.zeros(2, 3, requires_grad=True)
    cosine_distance(prediction, torch.ones(2, 3)).sum().backward()
    assert prediction.grad.isfinite().all()
    assert unit_length(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


def test_logit_laplace_is_a_density():
    x = torch.linspace(0, 1, 20001, dtype=torch.float64)[1:-1, None]
    for mean, log_scale in ((0.0, 0.0), (1.5, -0.7)):
        rows = [torch.full_like(x, value) for value in (mean, log_scale)]
        density = (-logit_laplace(*rows, x)).exp()
        assert float(density.mean()) == pytest.approx(1, abs=1e-3)


def test_logit_laplace_has_the_value_of_the_formula():
    mean, log_scale, x = (torch.tensor([[v]], dtype=torch.float64) for v in (0.3, -0.5, 0.8))
    expected = math.log(2 * 0.8 * 0.2) - 0.5 + abs(math.log(0.8 / 0.2) - 0.3) / math.exp(-0.5)
    assert float(logit_laplace(mean, log_scale, x)) == pytest.approx(expected, rel=1e-12)


def test_divergence_from_the_uniform_distribution():
    assert kl_to_uniform(torch.zeros(2, 3, 7)).abs().max() < 1e-6
    certain = torch.tensor([[1000.0, 0.0, 0.0, 0.0]])
    assert kl_to_uniform(certain).tolist() == pytest.approx([math.log(4)])
    logits = golden_randn(8, (5, 9)).double()
    q = logits.softmax(dim=1)
    assert torch.allclose(kl_to_uniform(logits), (q * (q * 9).log()).sum(dim=1))


def test_standardized_rows_have_no_mean_and_unit_variance():
    rows = standardized(golden_randn(9, (4, 50)) * 3 + 2)
    assert torch.allclose(rows.mean(dim=1), torch.zeros(4), atol=1e-6)
    assert torch.allclose(rows.var(dim=1, correction=0), torch.ones(4), atol=1e-5)
