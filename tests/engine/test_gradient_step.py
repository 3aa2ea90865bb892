"""The optimizer step: division by the weight, clipping, and steps that do nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups

FORMS = [
    pytest.param(method, fused, momentum, id=f"{method}-{'fused' if fused else 'plain'}-{momentum}")
    for method in ("adamw", "adam", "sgd", "lars")
    for fused in (True, False)
    for momentum in ((0.9, 0.0) if method == "sgd" else (0.9,))
]


def make(
    method: str = "adamw", fused: bool = True, momentum: float = 0.9, lr: float = 0.01
) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    groups = parameter_groups(model, weight_decay=0.05, zero_decay_1d=True)
    lars_norm = "sum" if method == "lars" else None
    method = "sgd" if lars_norm else method
    optimizer = make_optimizer(
        groups, method=method, lr=lr, momentum=momentum, lars_norm=lars_norm, fused=fused
    )
    return model, optimizer


def losses(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    return model(inputs).square().mean(dim=1)


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = optimizer.state_dict()["state"]
    moments = [v for s in state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return [t.detach().clone() for t in [*model.parameters(), *moments]]


@pytest.mark.parametrize(("method", "fused", "momentum"), FORMS)
@pytest.mark.parametrize("good_steps", [0, 2])
@pytest.mark.parametrize("fault", ["nan gradient", "inf gradient", "nan loss", "no terms"])
def test_a_faulty_step_changes_no_bit(
    method: str, fused: bool, momentum: float, good_steps: int, fault: str
) -> None:
    model, optimizer = make(method, fused, momentum)
    untouched, untouched_optimizer = make(method, fused, momentum)
    inputs = torch.randn(4, 5)

    def good_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        losses(model, inputs).sum().backward()
        result = GradientStep(optimizer, clip_l2norm=1.0)(torch.tensor(4.0))
        assert result.taken

    for _ in range(good_steps):
        good_step(model, optimizer)
        good_step(untouched, untouched_optimizer)

    before = snapshot(model, optimizer)
    optimizer.zero_grad()
    loss = losses(model, inputs).sum()
    loss.backward()
    if "gradient" in fault:
        next(model.parameters()).grad[0, 0] = float(fault.split()[0])
    loss = loss * math.nan if fault == "nan loss" else loss
    weight = torch.tensor(0.0 if fault == "no terms" else 4.0)
    result = GradientStep(optimizer, clip_l2norm=1.0)(weight, loss)
    assert not result.taken
    assert bool(result.loss_is_finite) == (fault != "nan loss")
    assert bool(result.gradient_is_finite) == ("gradient" not in fault)
    if good_steps:  # before the first step some forms have no state yet
        for old, new in zip(before, snapshot(model, optimizer), strict=True):
            assert torch.equal(old, new)

    # And what follows is as if it had never been.
    for _ in range(2):
        good_step(model, optimizer)
        good_step(untouched, untouched_optimizer)
    for a, b in zip(
        snapshot(model, optimizer), snapshot(untouched, untouched_optimizer), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sizes", [(8,), (3, 5), (1, 6, 1)])
def test_micro_batches_of_any_size_give_the_step_of_one_batch(sizes: tuple[int, ...]) -> None:
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    model, optimizer = make()
    losses(model, inputs).mean().backward()  # the plain form: one batch, one mean
    expected_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02)
    optimizer.step()

    other, other_optimizer = make()
    for part in inputs.split(sizes):
        losses(other, part).sum().backward()
    result = GradientStep(other_optimizer, clip_l2norm=0.02)(torch.tensor(8))
    assert result.gradient_norm.item() == pytest.approx(expected_norm.item(), rel=1e-6)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_skipped_first_step_dampens_nothing() -> None:
    after = []
    for skips in (0, 2):
        weight = nn.Parameter(torch.ones(3))
        groups = [{"params": [weight], "weight_decay": 0.0, "lr_scale": 1.0}]
        optimizer = make_optimizer(
            groups, method="sgd", lr=0.1, momentum=0.9, dampening=0.5, nesterov=False
        )
        for number in range(skips + 3):
            weight.grad = torch.full((3,), math.nan if number < skips else 1.0)
            GradientStep(optimizer)(torch.tensor(1.0))
        after.append(weight.detach())
    # Buffers 1, 0.9 + 0.5 and 1.26 + 0.5.
    torch.testing.assert_close(after[0], torch.full((3,), 1 - 0.1 * (1 + 1.4 + 1.76)))
    assert torch.equal(after[0], after[1])


def test_a_small_gradient_is_not_blown_up() -> None:
    model, optimizer = make()
    losses(model, torch.randn(4, 5)).sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters()]
    result = GradientStep(optimizer, clip_l2norm=1e6)(torch.tensor(1.0))
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, parameter.grad)
    expected = torch.cat([g.flatten() for g in before]).norm()
    torch.testing.assert_close(result.gradient_norm, expected)


def test_clipping_by_value_comes_after_the_division() -> None:
    model, optimizer = make()
    losses(model, torch.randn(4, 5)).sum().backward()
    expected = [(p.grad / 4).clamp(-0.01, 0.01) for p in model.parameters()]
    GradientStep(optimizer, clip_value=0.01)(torch.tensor(4.0))
    for wanted, parameter in zip(expected, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, wanted)


def test_half_precision_gradients_are_measured_in_float32() -> None:
    weight = nn.Parameter(torch.zeros(2048, dtype=torch.float16))
    group = {"params": [weight], "names": ["w"], "lr_scale": 1.0, "weight_decay": 0.0}
    optimizer = make_optimizer([group], method="sgd", lr=1.0, fused=False)
    weight.grad = torch.full_like(weight, 3000.0)  # the sum of squares is far beyond float16
    result = GradientStep(optimizer, clip_l2norm=1.0)(torch.tensor(1.0))
    assert result.gradient_norm.item() == pytest.approx(3000 * math.sqrt(2048), rel=1e-5)


def test_with_a_gradient_scaler() -> None:
    model, optimizer = make()
    reference, reference_optimizer = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1000)
    inputs = torch.randn(4, 5)
    for overflow in (False, True, False):
        loss = losses(model, inputs).sum()
        scaler.scale(loss).backward()
        if overflow:
            next(model.parameters()).grad[0, 0] = math.inf
        scaler.unscale_(optimizer)
        result = GradientStep(optimizer, clip_l2norm=1.0)(torch.tensor(4.0), loss)
        scaler.update()
        optimizer.zero_grad()
        assert bool(result.taken) != overflow
        assert result.loss_is_finite
        if not overflow:
            losses(reference, inputs).sum().backward()
            GradientStep(reference_optimizer, clip_l2norm=1.0)(torch.tensor(4.0))
            reference_optimizer.zero_grad()
    assert scaler.get_scale() == 2.0**9  # halved once
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_state_survives_saving_between_steps() -> None:
    model, optimizer = make("sgd")
    inputs = torch.randn(4, 5)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        losses(model, inputs).sum().backward()
        GradientStep(optimizer)(torch.tensor(4.0))

    step(model, optimizer)
    other, other_optimizer = make("sgd")
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(other, other_optimizer)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fused", [True, False])
def test_clipping_of_each_parameter(fused: bool) -> None:
    model, optimizer = make(fused=fused)
    losses(model, torch.randn(4, 5)).sum().backward()
    means = [parameter.grad / 4 for parameter in model.parameters()]
    limit = sorted(float(mean.norm()) for mean in means)[1] * 1.001  # clips two of four
    result = GradientStep(optimizer, clip_l2norm=limit, per_parameter=True)(torch.tensor(4.0))
    norms = [float(parameter.grad.norm()) for parameter in model.parameters()]
    for mean, norm, parameter in zip(means, norms, model.parameters(), strict=True):
        expected = mean * min(1.0, limit / (float(mean.norm()) + 1e-6))  # DINO's utils.py
        torch.testing.assert_close(parameter.grad, expected)
        assert norm <= limit
    assert sum(norm == pytest.approx(limit, rel=1e-4) for norm in norms) == 2
    whole = torch.cat([mean.flatten() for mean in means]).norm()
    torch.testing.assert_close(result.gradient_norm, whole)


@pytest.mark.parametrize(("method", "fused", "momentum"), FORMS)
def test_frozen_parameters_keep_their_values_and_moments(
    method: str, fused: bool, momentum: float
) -> None:
    model, optimizer = make(method, fused, momentum)
    inputs = torch.randn(4, 5)
    frozen = list(model[2].parameters())

    def step(*without: nn.Parameter) -> torch.Tensor:
        optimizer.zero_grad()
        losses(model, inputs).sum().backward()
        return GradientStep(optimizer, clip_l2norm=0.01)(
            torch.tensor(4.0), frozen=without
        ).gradient_norm

    step()
    before = snapshot(model[2], optimizer)[:2]
    moments = copy.deepcopy([optimizer.state[parameter] for parameter in frozen])
    free = [parameter.clone() for parameter in model[0].parameters()]
    optimizer.zero_grad()
    losses(model, inputs).mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(step(*frozen), gradient.norm())  # the frozen ones included
    for old, parameter in zip(before, frozen, strict=True):
        assert torch.equal(old, parameter)  # not even weight decay
    for state, parameter in zip(moments, frozen, strict=True):
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(optimizer.state[parameter][name])
            ), name
    assert all(not torch.equal(a, b) for a, b in zip(free, model[0].parameters(), strict=True))


def test_wrong_ways_to_clip() -> None:
    _, optimizer = make()
    with pytest.raises(ValueError, match=r"CLIP_GRAD_L2NORM or SOLVER.* got 1\.0 and"):
        GradientStep(optimizer, clip_l2norm=1.0, clip_value=2.0)
    with pytest.raises(ValueError, match=r"CLIP_GRAD_L2NORM must .* got 0\.0"):
        GradientStep(optimizer, clip_l2norm=0.0)
    with pytest.raises(
        ValueError, match=r"CLIP_GRAD_L2NORM must be > 0 .*PER_PARAM True, got None"
    ):
        GradientStep(optimizer, per_parameter=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("method", "fused", "momentum"), FORMS)
def test_no_wait_for_the_device(method: str, fused: bool, momentum: float) -> None:
    model, optimizer = make(method, fused, momentum)
    model = model.cuda()
    groups = parameter_groups(model, weight_decay=0.05, zero_decay_1d=True)
    norm = "sum" if method == "lars" else None
    name = "sgd" if norm else method
    optimizer = make_optimizer(
        groups, method=name, lr=0.1, momentum=momentum, lars_norm=norm, fused=fused
    )
    step = GradientStep(optimizer, clip_l2norm=1.0)
    inputs, weight = torch.randn(4, 5, device="cuda"), torch.tensor(4.0, device="cuda")
    for turn in range(3):
        torch.cuda.set_sync_debug_mode("error" if turn and fused else "default")
        try:
            loss = losses(model, inputs).sum() * (math.nan if turn == 1 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            result = step(weight, loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert bool(result.taken) == (turn != 1)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_step_in_float64_divides_in_float64() -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.full((1,), 3.0, dtype=torch.float64)
    GradientStep(torch.optim.SGD([parameter], lr=1.0))(torch.tensor(3.0, dtype=torch.float64))
    assert parameter.item() == -1.0
