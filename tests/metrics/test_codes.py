"""Use of a codebook, from counts of its codes."""

from __future__ import annotations

import math

import pytest
import torch

from slowfast_maskfeat.metrics.codes import (
    code_counts,
    code_entropy,
    code_perplexity,
    code_usage,
)


def test_counts_of_batches_add_up() -> None:
    codes = torch.tensor([[[0, 3], [3, 1]], [[3, 3], [0, 0]]])
    counts = code_counts(codes, 5)
    assert counts.tolist() == [3, 1, 0, 4, 0]
    assert torch.equal(code_counts(codes[:1], 5) + code_counts(codes[1:], 5), counts)


def test_usage_and_perplexity() -> None:
    even = torch.tensor([4.0, 4.0, 0.0, 4.0, 4.0, 0.0, 0.0, 0.0])
    assert float(code_usage(even)) == 0.5
    assert float(code_entropy(even)) == pytest.approx(math.log(4))
    assert float(code_perplexity(even)) == pytest.approx(4)
    assert float(code_perplexity(torch.tensor([9.0, 0.0]))) == pytest.approx(1)
    uneven = torch.tensor([3.0, 1.0])
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert float(code_entropy(uneven)) == pytest.approx(expected)


def test_no_codes_at_all() -> None:
    counts = code_counts(torch.zeros(0, 4, 4, dtype=torch.int64), 3)
    assert float(code_usage(counts)) == 0
    assert float(code_entropy(counts)) == 0
