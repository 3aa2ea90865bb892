"""The vote of the nearest neighbors."""

from __future__ import annotations

import math

import pytest
import torch

from slowfast_maskfeat.probes import neighbor_scores as device_scores

CPU = torch.device("cpu")


def neighbor_scores(*args, device: torch.device = CPU, **options) -> torch.Tensor:
    return device_scores(*args, device=device, show_progress=False, **options)


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


@pytest.mark.parametrize("k", [1, 5, 70])
@pytest.mark.parametrize("max_similarities", [1, 2**14, 2**24])
def test_it_is_the_plain_loop_whatever_the_chunks(k, max_similarities):
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(70, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 4, (70,), generator=generator)
    scores = neighbor_scores(
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
    scores = neighbor_scores(known, labels, asked, num_classes=2, k=2, temperature=1e-3)
    assert scores.isfinite().all()
    assert scores.argmax(1).tolist() == [0, 1]
    longer = neighbor_scores(known * 7, labels, asked * 5, num_classes=2, k=2, temperature=1e-3)
    assert torch.allclose(scores, longer)


@pytest.mark.parametrize("num_known", [0, 19])
def test_more_neighbors_than_there_are_is_an_error(num_known):
    known, labels = torch.ones(num_known, 2), torch.zeros(num_known).long()
    with pytest.raises(ValueError, match=rf"PROBE\.NUM_NEIGHBORS .*\b{num_known}\b.*\b20\b"):
        neighbor_scores(known, labels, torch.ones(1, 2), num_classes=1)


@pytest.mark.parametrize("max_similarities", [2**24, 1])
def test_a_feature_left_out_is_judged_by_the_others(max_similarities):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(31, 5, generator=generator)
    labels = torch.randint(0, 4, (31,), generator=generator)
    options = {"num_classes": 4, "k": 7, "max_similarities": max_similarities}
    scores = neighbor_scores(features, labels, features, leave_one_out=True, **options)
    for number in range(31):
        others = torch.arange(31) != number
        one = features[number : number + 1]
        expected = neighbor_scores(features[others], labels[others], one, **options)
        assert torch.allclose(scores[number], expected[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"PROBE\.NUM_NEIGHBORS must be at most 30\b.*\b31\b"):
        neighbor_scores(features, labels, features, num_classes=4, k=31, leave_one_out=True)


def test_nothing_asked_is_no_score():
    known, labels = torch.ones(20, 2), torch.zeros(20).long()
    assert neighbor_scores(known, labels, torch.ones(0, 2), num_classes=3).shape == (0, 3)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_scores_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(5000, 64, generator=generator)
    asked = torch.randn(3000, 64, generator=generator)
    labels = torch.randint(0, 10, (5000,), generator=generator)
    options = {"num_classes": 10, "max_similarities": 2**20}
    expected = neighbor_scores(known, labels, asked, **options)
    found = neighbor_scores(known, labels, asked, device=torch.device("cuda"), **options)
    assert torch.allclose(found, expected, atol=1e-4)
