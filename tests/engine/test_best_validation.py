"""The best validation: progress, patience, and the state in a checkpoint."""

from __future__ import annotations

import math

import pytest

from slowfast_maskfeat.engine.best_validation import BestValidation


def _added(best: BestValidation, values) -> list[bool]:
    return [best.add(value, epoch) for epoch, value in enumerate(values, 1)]


def test_the_highest_accuracy_and_the_lowest_loss_are_the_best():
    values = [50.0, 40.0, 60.0, 60.0, 55.0]
    top1 = BestValidation(figure="top1", patience=2)
    assert _added(top1, values) == [True, False, True, False, False]
    assert (top1.value, top1.epoch, top1.num_without_progress) == (60.0, 3, 2)
    assert top1.should_stop
    loss = BestValidation(figure="loss", patience=2)
    assert _added(loss, values) == [True, True, False, False, False]
    assert (loss.value, loss.epoch) == (40.0, 2)


def test_small_gains_are_no_progress_until_they_add_up():
    best = BestValidation(figure="top1", patience=2, min_change=1.0)
    # 50.6 and 50.9 are better, but not by more than 1 than 50; 51.1 is.
    assert _added(best, [50.0, 50.6, 51.1, 51.5, 52.0]) == [True] * 5
    assert best.reference == 51.1
    assert best.num_without_progress == 2
    assert best.should_stop
    assert best.value == 52.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("figure", ["loss", "top1"])
def test_a_value_that_is_no_number_is_never_the_best(figure, value):
    best = BestValidation(figure=figure, patience=2)
    assert _added(best, [value, 1.0, value, value]) == [False, True, False, False]
    assert best.should_stop
    assert best.value == 1.0
    assert "no value of it is finite" in BestValidation(figure=figure).summary(1)


def test_without_patience_it_never_stops():
    best = BestValidation(figure="top1")
    _added(best, [1.0] * 50)
    assert not best.should_stop


def test_a_restored_state_goes_on():
    whole = BestValidation(figure="mean_ap", patience=3, min_change=0.01)
    _added(whole, [0.5, 0.505, 0.6, 0.3, 0.2])
    part = BestValidation(figure="mean_ap", patience=3, min_change=0.01)
    part.load_state_dict(whole.state_dict())
    assert part == whole
    part.add(0.1, 6)
    assert part.should_stop
    assert not whole.should_stop


@pytest.mark.parametrize(
    "change", [{"figure": "loss"}, {"value": "high"}, {"epoch": None}, {"last_epoch": 1.5}]
)
def test_another_state_is_refused(change):
    best = BestValidation(figure="top1")
    with pytest.raises(ValueError, match=r"validations in the checkpoint must be of 'top1', got"):
        best.load_state_dict({**best.state_dict(), **change})
