"""Parameter groups against the published ones (tests/golden/param_groups.*), and optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.golden_rule import golden_parameter_groups
from helpers.published_files import published_config
from torch import nn

from slowfast_maskfeat.builders import build_model, build_optimizer
from slowfast_maskfeat.engine.optimizer import (
    make_optimizer,
    parameter_groups,
    restore_optimizer,
    set_learning_rate,
)

GOLDEN = golden_parameter_groups()
RECIPES = [name for name, recipe in GOLDEN.items() if "rows" in recipe]


def model_with(names: list[str]) -> nn.Module:
    """A stand-in with the published parameter names: 1-D where the name says bias or norm."""
    model = nn.Module()
    for name in names:
        *path, last = name.split(".")
        owner = model
        for part in path:
            if not hasattr(owner, part):
                owner.add_module(part, nn.Module())
            owner = getattr(owner, part)
        is_flat = last == "bias" or (last == "weight" and _is_norm(path))
        owner.register_parameter(
            last, nn.Parameter(torch.zeros(2) if is_flat else torch.zeros(2, 2))
        )
    return model


def _is_norm(path: list[str]) -> bool:
    is_last_of_a_head = path[:2] == ["pred_head", "transforms"] and len(path) == 4
    return is_last_of_a_head or path[-1].startswith("norm")


def published_layer_id(num_layers: int) -> Any:
    def layer_id(name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        first = name.startswith(("cls_token", "mask_token", "pos_embed", "patch_embed"))
        return 0 if first else num_layers

    return layer_id


@pytest.mark.parametrize("recipe", RECIPES)
def test_published_groups(recipe: str) -> None:
    golden = GOLDEN[recipe]
    rows = {name: (group, scale, decay) for name, group, scale, decay in golden["rows"]}
    model = model_with(list(rows))
    flat = {name for name, parameter in model.named_parameters() if parameter.ndim == 1}
    assert flat == {name for name, row in rows.items() if row[2] == 0.0}
    num_layers = 1 + max(
        (int(n.split(".")[1]) + 1 for n in rows if n.startswith("blocks.")), default=0
    )
    groups = parameter_groups(
        model,
        weight_decay=0.05,
        zero_decay_1d=True,
        layer_decay=golden["layer_decay"],
        layer_id=published_layer_id(num_layers),
        num_layers=num_layers,
    )
    assert len(groups) == golden["n_groups"]
    got = {
        name: (number, group["lr_scale"], group["weight_decay"])
        for number, group in enumerate(groups)
        for name in group["names"]
    }
    assert got.keys() == set(rows)
    for name in rows:
        assert got[name][0] == rows[name][0], name
        assert got[name][1:] == pytest.approx(rows[name][1:], rel=1e-9), name


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_exempt_names_are_full_names_with_and_without_layer_decay(layer_decay: float) -> None:
    exempt = ["cls_token", "pos_embed", "blocks.0.attn.rel_pos_h"]
    groups = parameter_groups(
        model_with([*exempt, "blocks.1.attn.rel_pos_h", "blocks.0.attn.qkv.weight"]),
        weight_decay=0.05,
        zero_decay_1d=True,
        zero_decay_names=exempt,
        layer_decay=layer_decay,
        layer_id=published_layer_id(3),
        num_layers=3,
    )
    found = [name for group in groups if group["weight_decay"] == 0 for name in group["names"]]
    assert sorted(found) == sorted(exempt)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zero_decay", [False, True])
@pytest.mark.parametrize("recipe", [name for name in RECIPES if not name.startswith("AVA")])
def test_groups_of_the_real_models(recipe: str, zero_decay: bool) -> None:
    """As published; MVIT.ZERO_DECAY_POS_CLS takes all tokens and positions out, and only these."""
    cfg = published_config(recipe, ["MVIT.ZERO_DECAY_POS_CLS", str(zero_decay)])
    with torch.device("meta"):
        optimizer = build_optimizer(cfg, build_model(cfg))
    decays = {
        name: group["weight_decay"] != 0
        for group in optimizer.param_groups
        for name in group["names"]
    }
    expected = {name: decay != 0 for name, _, _, decay in GOLDEN[recipe]["rows"]}
    if zero_decay:
        words = ("cls_token", "mask_token", "pos_embed", "rel_pos")
        expected |= {name: False for name in expected if any(word in name for word in words)}
    assert decays == expected
    scales = {n: g["lr_scale"] for g in optimizer.param_groups for n in g["names"]}
    for name, _, scale, _ in GOLDEN[recipe]["rows"]:
        assert scales[name] == pytest.approx(scale, rel=1e-9), name


def test_decay_of_flat_parameters_is_a_choice_and_frozen_ones_are_skipped() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, zero_decay_1d=False)
    assert [group["names"] for group in groups] == [["0.bias", "1.weight", "1.bias"]]
    assert groups[0]["weight_decay"] == 0.1


def test_nothing_to_train_and_wrong_layer_decay() -> None:
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        parameter_groups(model, weight_decay=0.1, zero_decay_1d=True)
    for layer_decay in (0.0, 1.5, 0.5):  # the last: this model has no layers
        with pytest.raises(ValueError, match=r"SOLVER\.LAYER_DECAY"):
            parameter_groups(
                nn.Linear(2, 2), weight_decay=0.1, zero_decay_1d=True, layer_decay=layer_decay
            )


@pytest.mark.parametrize("method", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("dampening", [0.0, 0.1])
def test_fused_and_plain_forms_agree(method: str, dampening: float) -> None:
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)).double()
        groups = parameter_groups(model, weight_decay=0.05, zero_decay_1d=True)
        optimizer = make_optimizer(
            groups,
            method=method,
            lr=0.01,
            dampening=dampening,
            nesterov=dampening == 0,
            fused=fused,
        )
        inputs = torch.randn(4, 5, dtype=torch.float64)
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_adam_puts_decay_into_the_gradient_and_adamw_beside_it() -> None:
    # Gradient 0: AdamW shrinks by lr * decay, Adam takes a full step of lr.
    for method, expected in (("adamw", 1 - 0.1 * 0.5), ("adam", 1 - 0.1)):
        weight = nn.Parameter(torch.ones(1))
        group = {"params": [weight], "names": ["w"], "lr_scale": 1.0, "weight_decay": 0.5}
        optimizer = make_optimizer([group], method=method, lr=0.1)
        weight.grad = torch.zeros(1)
        optimizer.step()
        assert weight.item() == pytest.approx(expected, rel=1e-5)


def test_learning_rate_is_scaled_by_group() -> None:
    groups = [
        {
            "params": [nn.Parameter(torch.ones(1))],
            "names": [str(s)],
            "lr_scale": s,
            "weight_decay": 0,
        }
        for s in (0.25, 1.0)
    ]
    optimizer = make_optimizer(groups, method="adamw", lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.025, 0.1])
    set_learning_rate(optimizer, 0.2)
    set_learning_rate(optimizer, 0.2)  # no scaling of what is scaled already
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.05, 0.2])
    assert "lr" not in groups[0]


def _optimizer(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    rules = {"weight_decay": 0.1, "zero_decay_1d": True, **options.pop("rules", {})}
    return make_optimizer(parameter_groups(model, **rules), lr=0.1, **options)


def _stepped(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """An optimizer after one step, with other moments for each parameter."""
    optimizer = _optimizer(model, **options)
    for number, parameter in enumerate(model.parameters(), 1):
        parameter.grad = torch.full_like(parameter, float(number))
    optimizer.step()
    return optimizer


def test_restored_moments_go_to_the_parameters_of_other_groups() -> None:
    model = model_with(["a.weight", "a.bias", "b.weight", "norm.weight"])
    saved = _stepped(model, method="adamw").state_dict()
    other = _optimizer(model, method="adamw", rules={"zero_decay_1d": False, "weight_decay": 0.3})
    restore_optimizer(other, saved)
    assert [group["weight_decay"] for group in other.param_groups] == [0.3]
    for number, parameter in enumerate(model.parameters(), 1):
        assert other.state[parameter]["exp_avg"].flatten()[0].item() == pytest.approx(0.1 * number)


def test_adam_continues_adamw_as_adam() -> None:
    model = model_with(["a.weight"])
    saved = _stepped(model, method="adamw").state_dict()
    adam, reference = (_optimizer(model, method=method) for method in ("adam", "adamw"))
    restore_optimizer(adam, saved)
    options = [key for key in adam.param_groups[0] if key not in ("params", "names")]
    fresh = _optimizer(model, method="adam").param_groups[0]
    assert {key: adam.param_groups[0][key] for key in options} == {
        key: fresh[key] for key in options
    }
    assert type(adam) is not type(reference)


@pytest.mark.parametrize(("saved", "now"), [("adamw", "sgd"), ("sgd", "adam")])
def test_moments_of_another_method_are_refused(saved: str, now: str) -> None:
    model = model_with(["a.weight"])
    state = _stepped(model, method=saved).state_dict()
    with pytest.raises(ValueError, match=f"OPTIMIZING_METHOD must be .*{saved}.*got {now}"):
        restore_optimizer(_optimizer(model, method=now), state)


def test_momentum_that_begins_at_a_resume_begins_at_zero() -> None:
    model = model_with(["a.weight"])
    state = _stepped(model, method="sgd", momentum=0.0).state_dict()
    optimizer = _optimizer(model, method="sgd", momentum=0.9)
    restore_optimizer(optimizer, state)
    (parameter,) = model.parameters()
    assert optimizer.state[parameter]["momentum_buffer"].eq(0).all()


def test_groups_without_names_must_have_the_sizes_of_the_own_ones() -> None:
    model = model_with(["a.weight", "a.bias"])
    state = _stepped(model, method="adamw").state_dict()
    for group in state["param_groups"]:
        del group["names"]
    restore_optimizer(_optimizer(model, method="adamw"), state)
    with pytest.raises(ValueError, match=r"\[1, 1\], got \[2\]"):
        restore_optimizer(_optimizer(model, method="adamw", rules={"zero_decay_1d": False}), state)


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match=r"SOLVER\.OPTIMIZING_METHOD must .* got 'lion'"):
        make_optimizer([], method="lion", lr=0.1)
