"""Vector quantizers: gradients, steps that were not taken, splits of a batch, restarts, starts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.tokenizers import (
    DirectionEMAQuantizer,
    EMAQuantizer,
    LearnedQuantizer,
    Quantizer,
)

NUM_CODES, DIM = 8, 4
TAKEN, SKIPPED = torch.tensor(True), torch.tensor(False)
KINDS: dict[str, Callable[..., Quantizer]] = {
    "ema": lambda **options: EMAQuantizer(NUM_CODES, DIM, decay=0.8, **options),
    "ema on the sphere": lambda **options: EMAQuantizer(
        NUM_CODES, DIM, decay=0.8, unit_sphere=True, **options
    ),
    "directions": lambda **options: DirectionEMAQuantizer(NUM_CODES, DIM, decay=0.9, **options),
    "learned": lambda **options: LearnedQuantizer(NUM_CODES, DIM, **options),
    "learned on the sphere": lambda **options: LearnedQuantizer(
        NUM_CODES, DIM, unit_sphere=True, **options
    ),
}


def make(kind: str, **options: int) -> Quantizer:
    torch.manual_seed(0)
    return KINDS[kind](**options).double()


def batch(seed: int, num_samples: int = 6, num_cells: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_samples, num_cells, DIM, generator=generator, dtype=torch.float64)


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_code_and_a_straight_gradient(kind: str) -> None:
    quantizer, x = make(kind), batch(1).requires_grad_()
    result = quantizer(x)
    assert result.codes.shape == result.loss.shape == x.shape[:-1]
    codebook, vectors = quantizer.codebook.detach(), x.detach()
    if quantizer.unit_sphere:
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    distance = torch.cdist(vectors.flatten(0, 1), codebook)
    assert result.codes.flatten().tolist() == distance.argmin(dim=1).tolist()
    assert torch.allclose(result.vectors, codebook[result.codes])
    assert torch.equal(quantizer.encode(x), result.codes)
    assert torch.allclose(quantizer.decode(result.codes), codebook[result.codes])
    weight = batch(2)
    (result.vectors * weight).sum().backward()
    if quantizer.unit_sphere:  # straight to the input of unit length
        other = x.detach().clone().requires_grad_()
        (torch.nn.functional.normalize(other, dim=-1) * weight).sum().backward()
        weight = other.grad
    assert torch.allclose(x.grad, weight)


@pytest.mark.parametrize("beta_on_codebook", [False, True])
def test_both_orders_of_beta(beta_on_codebook: bool) -> None:
    """Equal values; the gradients of mean((x - c)**2) by x and by c, times their weights."""
    torch.manual_seed(0)
    quantizer = LearnedQuantizer(NUM_CODES, DIM, beta=0.25, beta_on_codebook=beta_on_codebook)
    quantizer.double()
    x = batch(1).requires_grad_()
    result = quantizer(x)
    result.loss.mean().backward()
    loss = float(result.loss.detach().mean())
    difference = x.detach() - quantizer.codebook.detach()[result.codes]
    assert loss == pytest.approx(1.25 * float(difference.square().mean()))
    of_x, of_codebook = (1.0, 0.25) if beta_on_codebook else (0.25, 1.0)
    assert torch.allclose(x.grad, of_x * 2 * difference / difference.numel())
    by_code = torch.zeros(NUM_CODES, DIM, dtype=torch.float64)
    by_code.index_add_(0, result.codes.flatten(), difference.flatten(0, 1))
    assert torch.allclose(quantizer.codebook.grad, -of_codebook * 2 * by_code / difference.numel())


@pytest.mark.parametrize("kind", KINDS)
def test_forward_moves_nothing_and_evaluation_collects_nothing(kind: str) -> None:
    quantizer = make(kind, restart_after=2)
    before = state(quantizer)
    quantizer(batch(1))
    assert_same(before, state(quantizer))
    assert float(quantizer.counts.sum()) == 30
    quantizer.discard()
    quantizer.eval()(batch(1))
    assert float(quantizer.counts.abs().sum()) == 0
    assert not len(quantizer._pool.vectors(quantizer.codebook))


@pytest.mark.parametrize("start", ["random", "kmeans"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_was_not_taken_moves_nothing(kind: str, start: str) -> None:
    quantizer = make(kind, restart_after=1, kmeans_rounds=3 * (start == "kmeans"))
    broken = batch(1)
    broken[2, 3] = torch.nan
    before = state(quantizer)
    quantizer(broken)
    quantizer.after_step(SKIPPED)
    assert_same(before, state(quantizer))
    # Nothing of the skipped step is left: the next one is as it would be without it.
    other = make(kind, restart_after=1, kmeans_rounds=3 * (start == "kmeans"))
    for each in (quantizer, other):
        each(batch(2))
        each.after_step(TAKEN)
    assert_same(state(other), state(quantizer))
    assert "learned" in kind or not torch.equal(quantizer.codebook, before["codebook"])
    assert int(quantizer.num_steps) == 1


def train(quantizer: Quantizer, parts: list[Tensor], *, num_steps: int = 4) -> dict[str, Tensor]:
    """Steps on samples of a batch of 6, of which each part is a micro-batch."""
    for step in range(num_steps):
        x = batch(step)
        for part in parts:
            quantizer(x[part], samples=part)
        quantizer.after_step(TAKEN)
    return state(quantizer)


@pytest.mark.parametrize("rounds", [0, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_equal_one_batch(kind: str, rounds: int) -> None:
    options = {"restart_after": 1, "kmeans_rounds": rounds, "seed": 5}
    whole = train(make(kind, **options), [torch.arange(6)])
    split = [torch.tensor([4]), torch.tensor([2, 0, 5]), torch.tensor([1, 3])]
    assert_same(whole, train(make(kind, **options), split))


def train_in_each_process(folder: str) -> None:
    own = [[torch.tensor([1]), torch.tensor([5, 3, 0])], [torch.tensor([4, 2])]]
    results = {}
    for kind in KINDS:
        for rounds in (0, 4):
            quantizer = make(kind, restart_after=1, kmeans_rounds=rounds, seed=5)
            results[f"{kind}/{rounds}"] = train(quantizer, own[distributed.rank()])
    # Without numbers of the samples, where each process has every other one.
    quantizer = make("ema", restart_after=1, kmeans_rounds=4, seed=5)
    for step in range(4):
        for part in batch(step)[distributed.rank() :: 2].split([1, 2]):
            quantizer(part)
        quantizer.after_step(TAKEN)
    results["every other"] = state(quantizer)
    torch.save(results, Path(folder) / f"{distributed.rank()}.pt")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    launch(train_in_each_process, 2, (str(tmp_path),))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for kind in KINDS:
        for rounds in (0, 4):
            quantizer = make(kind, restart_after=1, kmeans_rounds=rounds, seed=5)
            expected = train(quantizer, [torch.arange(6)])
            for results in found:
                assert_same(expected, results[f"{kind}/{rounds}"])
    expected = train(make("ema", restart_after=1, kmeans_rounds=4, seed=5), [torch.arange(6)])
    for results in found:
        assert_same(expected, results["every other"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_code_restarts_at_a_vector_of_the_step(kind: str) -> None:
    quantizer = make(kind, restart_after=3)
    codebook = quantizer.codebook.detach().clone()
    codebook[2] = -100.0 * codebook[1]  # far away, or opposite to a used direction
    quantizer.set_codebook(codebook)
    x = codebook[1] * torch.linspace(0.9, 1.1, 6, dtype=torch.float64)[:, None, None]
    for _ in range(2):
        quantizer(x)
        quantizer.after_step(TAKEN)
    dead = [code for code in range(NUM_CODES) if code != 1]
    assert quantizer.unused_steps[dead].tolist() == [2] * len(dead)
    assert int(quantizer.unused_steps[1]) == 0
    quantizer(x)
    quantizer.after_step(TAKEN)
    vectors = x[:, 0] / x[:, 0].norm(dim=-1, keepdim=True) if quantizer.unit_sphere else x[:, 0]
    nearest = torch.cdist(quantizer.codebook.detach()[dead], vectors).min(dim=1).values
    assert int((nearest < 1e-9).sum()) == 6  # the step has six vectors, for seven dead codes
    assert sorted(quantizer.unused_steps[dead].tolist()) == [0] * 6 + [3]


def test_restarted_codes_start_with_the_statistics_of_one_vector() -> None:
    quantizer = make("ema", restart_after=1)
    quantizer(batch(1, num_samples=1, num_cells=1))
    quantizer.after_step(TAKEN)
    restarted = torch.isclose(quantizer.codebook, batch(1, 1, 1)[0]).all(dim=1)
    assert int(restarted.sum()) == 1
    assert quantizer.sizes[restarted].tolist() == [1.0]
    assert torch.allclose(quantizer.totals[restarted], quantizer.codebook[restarted])


def test_codes_in_use_never_restart() -> None:
    quantizer = make("ema", restart_after=1)
    for step in range(20):
        x = quantizer.codebook.detach().clone()[None]  # each code is the nearest of itself
        quantizer(x)
        quantizer.after_step(TAKEN)
        assert torch.allclose(quantizer.codebook, x[0], atol=1e-4), step
    assert not quantizer.unused_steps.any()


@pytest.mark.parametrize("kind", KINDS)
def test_kmeans_finds_separated_groups(kind: str) -> None:
    corners = torch.nn.functional.one_hot(torch.arange(DIM), DIM).double()
    corners = torch.cat([corners, -corners])  # as many as there are codes
    x = corners + 0.01 * batch(3, num_samples=40, num_cells=NUM_CODES)
    found = []
    for seed in range(6):
        quantizer = make(kind, kmeans_rounds=10, seed=seed)
        again = make(kind, kmeans_rounds=10, seed=seed)
        for each in (quantizer, again):
            each(x)
            each.after_step(TAKEN)
        assert_same(state(quantizer), state(again))
        assert bool(quantizer.started)
        distance = torch.cdist(quantizer.codebook.detach(), corners)
        found.append(int((distance.min(dim=0).values < 0.05).sum()))
    # k-means may end with two centers in one group; other seeds give other starts.
    assert min(found) >= 4
    assert max(found) >= 6


def test_a_start_with_fewer_vectors_than_codes() -> None:
    quantizer = make("ema", kmeans_rounds=2)
    x = batch(1, num_samples=1, num_cells=3)
    quantizer(x)
    quantizer.after_step(TAKEN)
    assert torch.cdist(x[0], quantizer.codebook).min(dim=1).values.max() < 1e-12
    assert float(quantizer.sizes.sum()) == 3


def test_a_resumed_quantizer_goes_on_as_before() -> None:
    options = {"restart_after": 1, "kmeans_rounds": 2, "seed": 3}
    quantizer = make("ema", **options)
    train(quantizer, [torch.arange(6)], num_steps=2)
    resumed = KINDS["ema"](**options).double()
    resumed.load_state_dict(copy.deepcopy(quantizer.state_dict()))
    parts = [torch.arange(6)]
    assert_same(train(quantizer, parts), train(resumed, parts))


def test_unused_codes_of_the_sphere_stay() -> None:
    quantizer = make("directions")
    before = quantizer.codebook.clone()
    result = quantizer(batch(1))
    quantizer.after_step(TAKEN)
    used = torch.zeros(NUM_CODES, dtype=torch.bool).index_fill_(0, result.codes.unique(), True)
    assert 0 < int(used.sum()) < NUM_CODES
    assert torch.allclose(quantizer.codebook[~used], before[~used])
    assert torch.allclose(quantizer.codebook.norm(dim=1), torch.ones(NUM_CODES).double())


def test_a_code_without_vectors_for_very_long_stays_finite() -> None:
    for unit_sphere in (False, True):
        quantizer = EMAQuantizer(NUM_CODES, DIM, decay=0.1, unit_sphere=unit_sphere)
        x = quantizer.codebook.clone()[:1, None]
        for _ in range(60):  # 0.1 ** 60 is below the smallest float32
            quantizer(x)
            quantizer.after_step(TAKEN)
        assert quantizer.codebook.isfinite().all()
        if unit_sphere:
            assert torch.allclose(quantizer.codebook.norm(dim=1), torch.ones(NUM_CODES))


def test_half_precision_is_computed_in_the_codebook_s() -> None:
    torch.manual_seed(0)
    quantizer = EMAQuantizer(NUM_CODES, DIM, decay=0.9)
    x = batch(1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = quantizer(x)
    assert result.vectors.dtype == result.loss.dtype == torch.float32
    assert torch.equal(result.codes, quantizer.encode(x.float()))
    assert quantizer.sums.dtype == torch.float32


def test_an_empty_batch() -> None:
    quantizer = make("ema", restart_after=1, kmeans_rounds=1)
    result = quantizer(batch(1)[:0])
    assert result.codes.shape == (0, 5)
    quantizer(batch(1))
    quantizer.after_step(TAKEN)
    assert bool(quantizer.started)


def test_numbers_outside_their_ranges_are_errors() -> None:
    with pytest.raises(ValueError, match=r"0 x 4"):
        EMAQuantizer(0, 4, decay=0.9)
    with pytest.raises(ValueError, match=r"decay .* got 1\.0"):
        DirectionEMAQuantizer(8, 4, decay=1.0)
    with pytest.raises(ValueError, match="-1"):
        LearnedQuantizer(8, 4, restart_after=-1)
