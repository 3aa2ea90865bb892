"""Going on from checkpoints: our own, published ones, and those that hold no training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState, is_resumable
from slowfast_maskfeat.losses import cross_entropy
from slowfast_maskfeat.tasks import Classification


def state_of(model: nn.Module) -> TrainState:
    task = Classification(
        cross_entropy,
        torch.sigmoid,
        num_classes=2,
        ensemble="sum",
        mean=[0.45] * 3,
        std=[0.225] * 3,
    )
    stepper = GradientStep(torch.optim.AdamW(model.parameters(), lr=0.1))
    return TrainState(model, task, stepper, torch.amp.GradScaler("cpu", enabled=False))


def trained() -> TrainState:
    torch.manual_seed(0)
    state = state_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    state.model(torch.randn(5, 3)).square().sum().backward()
    state.stepper.optimizer.step()
    state.epoch = 7
    return state


def restored(payload: dict[str, Any]) -> TrainState:
    state = state_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    state.restore(payload, "x.pyth")
    return state


def test_a_published_checkpoint_goes_on() -> None:
    """It has a wrapper's prefix, HOG filters among its weights, and fewer entries than ours."""
    before = trained()
    weights = {f"module.{name}": value for name, value in before.bare.state_dict().items()}
    weights["module.hogs.0.weight_x"] = torch.zeros(3, 1, 3, 3)
    optimizer_state = before.stepper.optimizer.state_dict()
    payload = {"epoch": 6, "model_state": weights, "optimizer_state": optimizer_state, "cfg": ""}
    after = restored(payload)
    assert (after.epoch, after.step) == (7, 0)
    for name, value in before.bare.state_dict().items():
        assert torch.equal(after.bare.state_dict()[name], value)
    moments = after.stepper.optimizer.state_dict()["state"]
    assert torch.equal(moments[0]["exp_avg"], optimizer_state["state"][0]["exp_avg"])


def test_an_epoch_goes_on_with_batches_of_its_size() -> None:
    before = trained()
    before.step = 6
    payload = before.payload(batches={"size": 4})
    restored(payload).check_batches(4)
    with pytest.raises(ValueError, match=r"TRAIN.BATCH_SIZE must give steps of 4 clips.* got 8"):
        restored(payload).check_batches(8)
    restored({**payload, "step": 0}).check_batches(8)  # another epoch
    for unknown in ({}, {"batches": None}):
        restored({**payload, "loop_state": unknown}).check_batches(8)


def test_an_average_that_a_checkpoint_lacks_starts_at_its_weights() -> None:
    before = trained()
    after = state_of(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    after.average = WeightAverage(after.bare, 0.999)
    after.restore(before.payload(), "x.pyth")
    for name, value in before.bare.state_dict().items():
        assert torch.equal(after.average.weights[name], value)


@pytest.mark.parametrize("key", ["epoch", "optimizer_state", "model_state"])
def test_weights_alone_are_nothing_to_go_on_from(key: str) -> None:
    payload = trained().payload()
    assert is_resumable(payload)
    del payload[key]
    assert not is_resumable(payload)
    with pytest.raises(
        ValueError, match=r"x\.pyth: can't resume .* must have model_state, optimizer_state"
    ):
        restored(payload)


def test_another_model_is_told_in_few_words() -> None:
    payload = trained().payload()
    weights = payload["model_state"]
    weights["0.weight"] = torch.zeros(9, 9)
    del weights["1.bias"]
    weights |= {f"other.{number}": torch.zeros(1) for number in range(100)}
    with pytest.raises(
        ValueError, match=r"it lacks 1\.bias; it has additional other\.0, "
    ) as error:
        restored(payload)
    assert "has other shapes of 0.weight" in str(error.value)
    assert len(str(error.value)) < 500


def _changed(payload: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    payload["optimizer_state"]["state"][2][name] = value
    return payload


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("exp_avg", torch.zeros(3)),
        ("exp_avg", None),
        ("exp_avg_sq", 1.0),
        ("step", torch.tensor(-1.0)),
        ("step", float("nan")),
    ],
)
def test_moments_that_do_not_fit_are_told_before_a_step(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"x\.pyth: .*optimizer has no usable {name}"):
        restored(_changed(trained().payload(), name, value))


def test_weights_that_are_not_finite_are_nothing_to_go_on_from() -> None:
    payload = trained().payload()
    payload["model_state"]["1.bias"].fill_(float("nan"))
    with pytest.raises(ValueError, match=r"x\.pyth: .* not finite \(1\.bias\)"):
        restored(payload)


def test_an_average_of_other_shapes_is_told() -> None:
    before = trained()
    before.average = WeightAverage(before.bare, 0.9)
    payload = before.payload()
    payload["average_state"]["weights"]["1.bias"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"average has other shapes of 1\.bias"):
        restored(payload)
