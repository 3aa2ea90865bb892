"""CONTRASTIVE.KOLEO_WEIGHT keeps the features of different samples apart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from helpers.tiny_views import (
    KINDS,
    in_float64,
    view_batch,
    view_config,
    view_options,
    view_settings,
    view_state,
)

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.losses import koleo
from slowfast_maskfeat.metrics.representation import effective_rank

CPU = torch.device("cpu")
WEIGHT = 0.1


def test_it_is_the_distance_to_the_nearest_other_sample():
    vectors = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.5, 0.5]])
    nearest = math.hypot(1 - math.sqrt(0.5), math.sqrt(0.5))  # on the unit circle, 45 degrees
    expected = [-math.log(nearest), -math.log(nearest), -math.log(math.sqrt(2)), -math.log(nearest)]
    torch.testing.assert_close(koleo(vectors), torch.tensor(expected))
    assert koleo(vectors.half()).dtype == torch.float32


def test_the_nearest_sample_is_that_of_full_precision():
    torch.manual_seed(0)
    features = torch.randn(1, 384) + 0.1 * torch.randn(64, 384)  # near a collapse
    expected = koleo(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert koleo(features).equal(expected)


def test_its_gradient_moves_both_samples_of_a_pair():
    torch.manual_seed(0)
    vectors = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(koleo, vectors)
    # Only the third finds another one near; that one is moved, too.
    vectors = torch.eye(3, dtype=torch.float64)[[0, 1, 1]] + 0.01 * torch.eye(3)[2].double()
    vectors[2, 2] += 0.1
    vectors.requires_grad_()
    koleo(vectors)[2].backward()
    assert (vectors.grad.abs().sum(dim=1) > 0).tolist() == [False, True, True]


def test_equal_samples_have_a_finite_loss_and_gradient():
    vectors = torch.ones(3, 4, requires_grad=True)
    loss = koleo(vectors).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_adds_it_for_each_large_view(kind):
    batch = view_batch(cfg := view_config(kind), 4)
    without = view_state(cfg)
    plain = without.task.step(without.model, batch)
    assert "koleo" not in plain.scalars
    state = view_state(cfg := view_config(kind, KOLEO_WEIGHT=WEIGHT))
    output = state.task.step(state.model, batch)
    assert tuple(output.scalars) == state.task.scalar_names
    large = state.task.clips_of_views([batch])
    if kind == "ibot":  # the student sees the masked views
        pooled = state.model(large, [batch.mask[v::2] for v in range(2)]).pooled
    else:
        pooled = torch.stack([state.model.pooled(clips) for clips in large])
    expected = sum(koleo(features).mean() for features in pooled)
    torch.testing.assert_close(output.scalars["koleo"], expected.detach())
    torch.testing.assert_close(output.loss, plain.loss + WEIGHT * expected)


@pytest.mark.parametrize("kind", KINDS)
def test_validation_lacks_it(kind):
    losses = []
    for weight in (0.0, WEIGHT):
        cfg = view_config(kind, KOLEO_WEIGHT=weight)
        state = view_state(cfg)
        state.model.eval()
        state.task.eval()
        evaluation = state.task.evaluation(range(4), 1)
        evaluation.add(state.model, view_batch(cfg, 4))
        evaluation.merge(lambda tensor, operation: tensor)
        losses.append(evaluation.results())
    assert losses[0] == losses[1]


def test_its_minimum_spreads_features_over_all_dimensions():
    torch.manual_seed(0)
    features = (torch.ones(32, 8) + 0.1 * torch.randn(32, 8)).requires_grad_()
    assert effective_rank(features) < 3
    optimizer = torch.optim.Adam([features], lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        koleo(features).mean().backward()
        optimizer.step()
    assert effective_rank(features) > 7


def _train_own_half(folder: str) -> None:
    for kind in KINDS:
        cfg = view_config(kind, KOLEO_WEIGHT=WEIGHT)
        state = view_state(cfg, dtype=torch.float64)
        if distributed.world_size() > 1:
            state.model = distributed.wrap(state.model)
        losses = []
        for step in range(2):
            batch = in_float64(view_batch(cfg, 4, seed=step))
            own = batch.split(4 // distributed.world_size())[distributed.rank()]
            _, sums, _ = train_step(state, own, view_settings(cfg), CPU, progress=step / 4)
            losses.append(float(sums[1] / sums[0]))
        result = {"losses": losses, "model": state.bare.state_dict()}
        torch.save(result, Path(folder) / f"{kind}{distributed.rank()}.pt")


def test_two_processes_equal_one(tmp_path):
    """The nearest sample can be in the other process."""
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    launch(_train_own_half, 2, (str(two),))
    _train_own_half(str(one))
    for kind in KINDS:
        expected = torch.load(one / f"{kind}0.pt", weights_only=True)
        for rank in (0, 1):
            got = torch.load(two / f"{kind}{rank}.pt", weights_only=True)
            assert got["losses"] == pytest.approx(expected["losses"], rel=1e-9), kind
            for name, value in expected["model"].items():
                torch.testing.assert_close(
                    got["model"][name], value, rtol=1e-7, atol=1e-9, msg=f"{kind} {name}"
                )


def test_parts_of_a_batch_are_one_warning():
    cfg = view_config("dino", KOLEO_WEIGHT=WEIGHT, TRAIN__ACCUMULATION_STEPS=2)
    message = r"STEPS 2 changes the result of CONTRASTIVE\.KOLEO_WEIGHT: samples are kept apart"
    with pytest.warns(UserWarning, match=message) as caught:
        build_task(cfg, build_model(cfg))
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"TRAIN__BATCH_SIZE": 1},
            r"TRAIN\.BATCH_SIZE must give CONTRASTIVE\.KOLEO_WEIGHT at least",
        ),
        ({"KOLEO_WEIGHT": -1.0}, r"CONTRASTIVE\.KOLEO_WEIGHT must be >= 0, got -1"),
    ],
)
def test_values_that_do_not_fit(changes, message):
    options = view_options("dino", **{"KOLEO_WEIGHT": WEIGHT, **changes})
    with pytest.raises(ValueError, match=message):
        _check([str(word) for pair in options.items() for word in pair])


def _check(words: list[str]) -> None:
    cfg = load_config([], words)
    find_method(cfg).check(cfg)
