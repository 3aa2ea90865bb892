"""Draws from the vectors of a step depend on seed, step and samples, and on nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.tokenizers.pool import VectorPool

LIKE = torch.zeros(1, 2)


def drawn(pool: VectorPool, count: int, *, seed: int = 1, step: int = 0) -> tuple[Tensor, Tensor]:
    return pool.draw(count, seed=seed, step=torch.tensor(step), like=LIKE)


def filled(num_samples: int = 10, num_cells: int = 7) -> tuple[VectorPool, Tensor]:
    vectors = torch.arange(num_samples * num_cells * 2.0).view(num_samples, num_cells, 2)
    pool = VectorPool()
    pool.add(vectors)
    return pool, vectors


def test_draws_are_without_replacement() -> None:
    pool, vectors = filled()
    rows, found = drawn(pool, 70)
    assert found.all()
    assert sorted(rows[:, 0].tolist()) == vectors[..., 0].flatten().tolist()


def test_more_draws_than_vectors() -> None:
    pool, _ = filled(2, 3)
    rows, found = drawn(pool, 9)
    assert found.tolist() == [True] * 6 + [False] * 3
    assert len(rows[:6].unique(dim=0)) == 6
    pool.clear()
    assert not drawn(pool, 4)[1].any()


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    first, again = (drawn(filled()[0], 20)[0] for _ in range(2))
    assert torch.equal(first, again)
    for other in ({"seed": 2}, {"step": 1}):
        assert not torch.equal(first, drawn(filled()[0], 20, **other)[0])


def test_draws_are_uniform() -> None:
    pool, _ = filled()
    counts = torch.zeros(70)
    for step in range(1400):
        rows, _ = drawn(pool, 5, step=step)
        counts[(rows[:, 0] / 2).long()] += 1
    # 100 each; the standard deviation of a count is about 9.6.
    assert float(counts.min()) > 60
    assert float(counts.max()) < 140
    assert 6 < float(counts.std()) < 14


def test_the_order_of_samples_does_not_matter() -> None:
    _, vectors = filled()
    order = torch.tensor([3, 9, 1, 0, 8, 7, 2, 4, 6, 5])
    pool = VectorPool()
    for part in order.split(4):
        pool.add(vectors[part], part)
    assert torch.equal(drawn(pool, 20)[0], drawn(filled()[0], 20)[0])
