"""Numbers of other implementations of the training methods (tests/golden/methods).

METHOD_GOLDENS names another folder, whose goldens may have other seeds, sizes and settings.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.method_goldens import DEFAULT_FOLDER, MethodGolden

from slowfast_maskfeat.losses import (
    cosine_distance,
    cross_entropy,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
    soft_cross_entropy,
    standardized,
)

Check = Callable[[MethodGolden], None]

# Goldens that must be there, each with a check.
GOLDENS = ("feature_losses",)
CHECKS: dict[str, Check] = {}


def check_of(name: str) -> Callable[[Check], Check]:
    """Register the check of a golden."""

    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


@check_of("feature_losses")
def _(golden: MethodGolden) -> None:
    prediction, target = golden.input("prediction"), golden.input("target")
    losses = {
        "mse": lambda p: mean_squared_error(p, target),
        "smooth_l1": lambda p: smooth_l1(p, target),
        "smooth_l1_beta2": lambda p: smooth_l1(p, target, beta=2.0),
        "l1": lambda p: mean_absolute_error(p, target),
        "two_minus_two_cos": lambda p: 2 * cosine_distance(p, target),
        "one_minus_cos": lambda p: cosine_distance(p, target),
        "mvd": lambda p: smooth_l1(p, standardized(target, epsilon=1e-6)),
        "vjepa_l1": lambda p: mean_absolute_error(p, standardized(target, epsilon=1e-5)),
        "ce_argmax": lambda p: cross_entropy(p, target.argmax(dim=1)),
        "ce_soft": lambda p: soft_cross_entropy(p, target.softmax(dim=1)),
    }
    for name, loss in losses.items():
        given = prediction.clone().requires_grad_()
        value = loss(given).mean()
        value.backward()
        golden.compare(name, value)
        golden.compare(f"grad/{name}", given.grad)
    # A mean of cosines may be close to 0: its error is relative to 1.
    negative_cosine = cosine_distance(prediction, target).mean() - 1
    bound = 1e-9 if golden.dtype == torch.float64 else 1e-6
    golden.compare_absolutely("lightly_negative_cosine", float(negative_cosine), tolerance=bound)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]) -> None:
    golden = MethodGolden(name, dtype)
    assert name in CHECKS, f"there is no check of the golden {name}"
    CHECKS[name](golden)
    number = golden.finish()
    with capsys.disabled():
        print(f"\n{name}, {str(dtype).removeprefix('torch.')}: {number} values compared", end=" ")


def test_every_golden_of_this_repository_has_a_check() -> None:
    elsewhere = {"ema_schedules"}  # tests/test_schedules.py
    assert {path.stem for path in DEFAULT_FOLDER.glob("*.json")} == {*GOLDENS, *elsewhere}
    assert set(CHECKS) == set(GOLDENS)
