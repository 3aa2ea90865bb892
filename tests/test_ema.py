"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slowfast_maskfeat.ema import WeightAverage, move_average


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_average_follows_its_formula() -> None:
    model = make()
    average = WeightAverage(model, decay=0.9)
    expected = model[0].weight.detach().clone()
    for turn in range(3):
        with torch.no_grad():
            model[0].weight += 1.0 + turn
            model[1].num_batches_tracked += 1
        average.update(model)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
    torch.testing.assert_close(average.weights["0.weight"], expected)
    assert average.weights["1.num_batches_tracked"] == 3  # integers are taken as they are


def test_swapped_and_back_even_after_an_error() -> None:
    model = make()
    average = WeightAverage(model, decay=0.5)
    own, parameter = model[0].weight.detach().clone(), model[0].weight
    with torch.no_grad():
        average.weights["0.weight"].zero_()
    with pytest.raises(KeyError), average.swapped(model):  # noqa: PT012
        assert model[0].weight is parameter
        assert not model[0].weight.any()
        assert torch.is_grad_enabled()
        raise KeyError
    assert torch.equal(model[0].weight, own)


def test_state_goes_round() -> None:
    model = make()
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model[0].weight += 1
    average.update(model)
    other = WeightAverage(make(), decay=0.5)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.weights["0.weight"], average.weights["0.weight"])
    with pytest.raises(ValueError, match="must have the entries of the model"):
        other.load_state_dict({"decay": 0.5, "weights": {"x": torch.zeros(1)}})


def test_decay_must_leave_room() -> None:
    with pytest.raises(ValueError, match=r"EMA_DECAY.*1\.0"):
        WeightAverage(make(), decay=1.0)


def test_a_skipped_step_changes_nothing_even_if_values_are_not_finite() -> None:
    averages = [torch.tensor([1.0, 2.0]), torch.tensor(3.0)]
    currents = [torch.tensor([torch.nan, 4.0]), torch.tensor(torch.inf)]
    move_average(averages, currents, 0.5, torch.tensor(False))
    assert averages[0].tolist() == [1.0, 2.0]
    assert averages[1] == 3.0
    currents = [torch.tensor([3.0, 4.0]), torch.tensor(5.0)]
    move_average(averages, currents, 0.5, torch.tensor(True))
    assert averages[0].tolist() == [2.0, 3.0]
    assert averages[1] == 4.0
