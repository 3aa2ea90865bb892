"""Effective rank and deviation of features, by their definitions."""

import math

import pytest
import torch

from slowfast_maskfeat.metrics.representation import effective_rank, mean_deviation


def test_orthogonal_features_of_equal_norm_have_the_rank_of_their_number():
    q, _ = torch.linalg.qr(torch.randn(40, 7, generator=torch.Generator().manual_seed(0)))
    assert effective_rank(3 * q) == pytest.approx(7, abs=1e-4)


def test_equal_features_have_rank_one_and_no_deviation():
    features = torch.tensor([[1.0, -2.0, 0.5]]).repeat(20, 1)
    assert effective_rank(features) == pytest.approx(1, abs=1e-5)
    assert mean_deviation(features) == 0


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values():
    values = [5.0, 2.0, 1.0]
    shares = [value / 8 for value in values]
    expected = math.exp(-sum(p * math.log(p) for p in shares))
    assert effective_rank(torch.diag(torch.tensor(values))) == pytest.approx(expected)


def test_deviation_is_averaged_over_channels():
    features = torch.tensor([[0.0, 0.0], [2.0, 6.0]])  # standard deviations 1 and 3
    assert mean_deviation(features) == pytest.approx(2.0)


@pytest.mark.parametrize("features", [torch.full((4, 3), math.nan), torch.zeros(0, 3)])
def test_without_finite_features_there_is_no_figure(features):
    assert math.isnan(effective_rank(features))
    assert math.isnan(mean_deviation(features))
