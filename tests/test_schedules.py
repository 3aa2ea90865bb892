"""Schedules against published ones (tests/golden/schedule.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slowfast_maskfeat.schedules import (
    LearningRates,
    Schedule,
    Shape,
    learning_rate,
    scale_by_shards,
)

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "schedule.json").read_text())
RECIPES = [
    (name, shards) for name, rows in GOLDEN.items() if isinstance(rows, dict) for shards in rows
]


@pytest.mark.parametrize(("name", "shards"), RECIPES)
def test_published_recipes(name: str, shards: str) -> None:
    recipe = GOLDEN[name][shards]
    raw = LearningRates(
        *(recipe["raw"][k] for k in ("BASE_LR", "WARMUP_START_LR", "COSINE_END_LR"))
    )
    rates = scale_by_shards(raw, int(shards.partition("=")[2]))
    assert rates == pytest.approx(tuple(recipe["scaled"].values()), rel=1e-12)
    for epoch, expected in recipe["lr"]:
        got = learning_rate(
            epoch,
            policy=recipe["policy"],
            base_lr=rates.base_lr,
            end_lr=rates.end_lr,
            warmup_start_lr=rates.warmup_start_lr,
            max_epoch=recipe["max_epoch"],
            warmup_epochs=recipe["warmup_epochs"],
            cosine_after_warmup=recipe["cosine_after_warmup"],
        )
        assert got == pytest.approx(expected, rel=1e-9), epoch


def test_cosine_that_runs_under_the_warm_up() -> None:
    # The warm-up ends at the cosine's value at epoch 30, below the base rate.
    for epoch, expected in GOLDEN["variant_cosine_not_after_warmup(K400_MVITv2_S_16x4)"]:
        got = learning_rate(
            epoch,
            base_lr=1e-4,
            end_lr=1e-6,
            warmup_start_lr=1e-6,
            max_epoch=200,
            warmup_epochs=30.0,
        )
        assert got == pytest.approx(expected, rel=1e-9), epoch


def test_steps_with_relative_rates() -> None:
    # Published AVA schedule: stages from epochs 0, 10, 15 at 1, 0.1, 0.01 of the base rate.
    for epoch, expected in GOLDEN["variant_steps(AVA SLOW_8x8 schedule)"]:
        got = learning_rate(
            epoch,
            policy="steps_with_relative_lrs",
            base_lr=0.1,
            warmup_start_lr=0.000125,
            max_epoch=20,
            warmup_epochs=5.0,
            steps=[0, 10, 15],
            lrs=[1, 0.1, 0.01],
        )
        assert got == pytest.approx(expected, rel=1e-9), epoch


def test_rate_stays_at_the_end_after_the_last_epoch() -> None:
    assert learning_rate(11.0, base_lr=1.0, end_lr=0.1, max_epoch=10) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"policy": "linear"}, "SOLVER.LR_POLICY"),
        ({"end_lr": 2.0}, "SOLVER.COSINE_END_LR"),
        ({"max_epoch": 0}, "SOLVER.MAX_EPOCH"),
        ({"policy": "steps_with_relative_lrs"}, "SOLVER.STEPS"),
        ({"policy": "steps_with_relative_lrs", "steps": [1, 2], "lrs": [1, 1]}, "SOLVER.STEPS"),
        ({"policy": "steps_with_relative_lrs", "steps": [0, 3, 2], "lrs": [1] * 3}, "ascending"),
        ({"policy": "steps_with_relative_lrs", "steps": [0, 2], "lrs": [1]}, "SOLVER.LRS"),
    ],
)
def test_contradictions_name_the_key(changes: dict[str, object], key: str) -> None:
    settings: dict[str, object] = {"base_lr": 1.0, "end_lr": 0.0, "max_epoch": 10, **changes}
    with pytest.raises(ValueError, match=key):
        learning_rate(0.0, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, -0.5, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("epoch", "epoch"),
        ("base_lr", "SOLVER.BASE_LR"),
        ("end_lr", "SOLVER.COSINE_END_LR"),
        ("max_epoch", "SOLVER.MAX_EPOCH"),
        ("warmup_epochs", "SOLVER.WARMUP_EPOCHS"),
        ("warmup_start_lr", "SOLVER.WARMUP_START_LR"),
        ("warmup_last_step", "warmup_last_step"),
    ],
)
def test_a_number_that_is_none_of_a_schedule_is_refused(
    argument: str, named: str, number: object
) -> None:
    settings: dict[str, object] = {"epoch": 1.0, "base_lr": 0.1, "max_epoch": 40}
    with pytest.raises(ValueError, match=rf"^{named} must be a number, finite and .*, got "):
        learning_rate(**{**settings, argument: number})  # type: ignore[arg-type]


def test_a_rate_of_a_stage_is_not_negative() -> None:
    stages = {"policy": "steps_with_relative_lrs", "steps": [0, 2], "lrs": [1.0, -0.1]}
    with pytest.raises(ValueError, match=r"^SOLVER\.LRS\[1\] must be a number, finite and >= 0"):
        learning_rate(0.0, base_lr=1.0, max_epoch=10, **stages)  # type: ignore[arg-type]


def test_a_warm_up_may_include_its_end() -> None:
    """Four steps of warm-up from 0 in epochs of four: thirds, then the cosine."""
    settings = {"base_lr": 1.0, "max_epoch": 2, "warmup_epochs": 1.0, "cosine_after_warmup": True}
    plain, closed = (
        [learning_rate(step / 4, warmup_last_step=last, **settings) for step in range(6)]
        for last in (0.0, 0.25)
    )
    assert plain[:5] == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4, 1])
    assert closed[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert closed[5] == plain[5] < 1


def test_a_warm_up_of_one_step_that_includes_its_end_stays_at_its_start() -> None:
    rates = [
        learning_rate(
            step / 4,
            base_lr=1.0,
            max_epoch=2,
            warmup_epochs=0.25,
            warmup_start_lr=0.5,
            warmup_last_step=0.25,
            cosine_after_warmup=True,
        )
        for step in range(2)
    ]
    assert rates == [0.5, 1.0]


def test_a_training_shorter_than_its_warm_up_rises_as_the_long_one_does() -> None:
    """A trial of one epoch sees the rates of the recipe's first epoch."""
    settings = {"base_lr": 1.0, "end_lr": 0.1, "warmup_epochs": 10.0, "cosine_after_warmup": True}
    for epoch in (0.0, 0.5, 1.0):
        trial, recipe = (learning_rate(epoch, max_epoch=n, **settings) for n in (1, 300))
        assert trial == pytest.approx(recipe)
        assert trial == pytest.approx(epoch / 10)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_ends_of_schedules(shape: Shape) -> None:
    schedule = Schedule(2.0, -1.0, shape)
    assert (schedule(0.0), schedule(0.5), schedule(1.0)) == pytest.approx((2.0, 0.5, -1.0))
    for outside in (-1e-9, 1.0 + 1e-9, float("nan")):
        with pytest.raises(AssertionError):
            schedule(outside)


def test_constant_schedule() -> None:
    assert {Schedule(0.3, 0.3, "constant")(progress) for progress in (0.0, 0.7, 1.0)} == {0.3}
    with pytest.raises(AssertionError, match=r"0\.3, 0\.4"):
        Schedule(0.3, 0.4, "constant")


def test_shards_must_be_positive() -> None:
    with pytest.raises(ValueError, match="NUM_SHARDS"):
        scale_by_shards(LearningRates(1.0, 0.1, 0.0), 0)
