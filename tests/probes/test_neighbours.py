"""The vote of the nearest neighbours."""

from __future__ import annotations

import math

import pytest
import torch

from slowfast_maskfeat.probes import neighbour_scores


def _plain(known, labels, asked, num_classes, k, temperature):
    """The definition, one row at a time."""
    scores = torch.zeros(len(asked), num_classes, dtype=torch.float64)
    for row, query in enumerate(asked.double()):
        cosines = [float(query @ other / (query.norm() * other.norm())) for other in known.double()]
        order = sorted(range(len(known)), key=lambda place: -cosines[place])[:k]
        for place in order:
            scores[row, labels[place]] += math.exp(cosines[place] / temperature)
        scores[row] /= scores[row].sum()
    return scores


@pytest.mark.parametrize("k", [1, 5, 1000])
@pytest.mark.parametrize("max_similarities", [1, 2**14, 2**24])
def test_it_is_the_plain_loop_whatever_the_chunks(k, max_similarities):
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(70, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 4, (70,), generator=generator)
    scores = neighbour_scores(
        known,
        labels,
        asked,
        num_classes=4,
        k=k,
        temperature=0.07,
        max_similarities=max_similarities,
    )
    expected = _plain(known, labels, asked, 4, k, 0.07)
    assert torch.allclose(scores.double(), expected, atol=1e-4)


def test_length_does_not_matter_and_small_temperatures_do_not_overflow():
    known = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    asked = torch.tensor([[3.0, 0.1], [1e-3, 2e-3]])
    scores = neighbour_scores(known, labels, asked, num_classes=2, temperature=1e-3)
    assert scores.isfinite().all()
    assert scores.argmax(1).tolist() == [0, 1]
    longer = neighbour_scores(known * 7, labels, asked * 5, num_classes=2, temperature=1e-3)
    assert torch.allclose(scores, longer)


@pytest.mark.parametrize("options", [{"k": 0}, {"temperature": 0.0}])
def test_impossible_values_are_named(options):
    with pytest.raises(ValueError, match=r"PROBE\.NUM_NEIGHBOURS and PROBE\.TEMPERATURE"):
        neighbour_scores(
            torch.ones(1, 2), torch.zeros(1).long(), torch.ones(1, 2), num_classes=1, **options
        )


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(ValueError, match="no labelled feature"):
        neighbour_scores(torch.ones(0, 2), torch.zeros(0).long(), torch.ones(1, 2), num_classes=1)
