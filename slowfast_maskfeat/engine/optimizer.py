"""Parameter groups, the optimizer, and its learning rate.

Layer-wise learning-rate decay follows Bao et al., "BEiT" (ICLR 2022), section 3, and Clark et al.,
"ELECTRA" (ICLR 2020), appendix A. AdamW is Loshchilov and Hutter, "Decoupled Weight Decay
Regularization" (ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.engine.lars import LARS
from slowfast_maskfeat.optimizers import SGD, Adam, AdamW

METHODS = ("adamw", "adam", "sgd")
"""Values of `SOLVER.OPTIMIZING_METHOD`."""

ParameterGroup = dict[str, Any]
"""`params` (list of tensors), `names` (list of str), `lr_scale` and `weight_decay`."""


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    zero_decay_1d: bool,
    zero_decay_names: Collection[str] = (),
    layer_decay: float = 1.0,
    layer_id: Callable[[str], int] | None = None,
    num_layers: int | None = None,
) -> list[ParameterGroup]:
    """Group a model's trainable parameters by learning-rate scale and weight decay.

    Without layer decay there are two groups: with weight decay, then without. With layer decay
    there are up to two groups per layer, in the order of their first parameters. Frozen parameters
    (`requires_grad` false) are in no group, and empty groups are omitted.

    Weight decay follows the same rule with and without layer decay: a parameter has none if its
    full name is in `zero_decay_names`, or if it is one-dimensional or a bias and
    `zero_decay_1d` is set. (The published code matches parts of names in one case and full names
    in the other; full names give the same groups in all its shipped configurations.)

    Args:
        model: the bare model, not its DDP or compiled wrapper, so that it has the published names.
        weight_decay: `SOLVER.WEIGHT_DECAY`.
        zero_decay_1d: `SOLVER.ZERO_WD_1D_PARAM`.
        zero_decay_names: full parameter names without decay (`MVIT.ZERO_DECAY_POS_CLS`).
        layer_decay: `SOLVER.LAYER_DECAY`, in (0, 1]: the factor from each layer to the one below.
        layer_id: parameter name to layer: 0 before the blocks, `i + 1` for block `i`,
            `num_layers` after the blocks. Required when `layer_decay` is not 1.
        num_layers: the largest layer, blocks + 1. Required when `layer_decay` is not 1.

    Returns:
        Groups for `make_optimizer`; `lr_scale` is
        `layer_decay ** (num_layers - layer)`.

    Raises:
        ValueError: if `layer_decay` is outside (0, 1], or not 1 without `layer_id`, or the
            model has no trainable parameters.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"SOLVER.LAYER_DECAY must be in (0, 1], got {layer_decay}")
    if layer_decay != 1.0 and (layer_id is None or num_layers is None):
        raise ValueError(
            f"SOLVER.LAYER_DECAY must be 1.0 for {type(model).__name__}, which does not define the "
            f"layers of its parameters, got {layer_decay}"
        )
    groups: dict[tuple[int, bool], ParameterGroup] = {}
    if layer_decay == 1.0:
        # Fixed order: the group with weight decay first, whatever the model's first parameter.
        groups = {(0, decays): _new_group(decays, 1.0, weight_decay) for decays in (True, False)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_flat = parameter.ndim <= 1 or name.endswith(".bias")
        decays = not (name in zero_decay_names or (zero_decay_1d and is_flat))
        layer = 0
        lr_scale = 1.0
        if layer_decay != 1.0:
            assert layer_id is not None
            assert num_layers is not None
            layer = layer_id(name)
            assert 0 <= layer <= num_layers, f"layer {layer} of {name}"
            lr_scale = layer_decay ** (num_layers - layer)
        group = groups.setdefault((layer, decays), _new_group(decays, lr_scale, weight_decay))
        group["params"].append(parameter)
        group["names"].append(name)
    used = [group for group in groups.values() if group["params"]]
    if not used:
        raise ValueError(f"{type(model).__name__} has no trainable parameters")
    return used


def _new_group(decays: bool, lr_scale: float, weight_decay: float) -> ParameterGroup:
    return {
        "params": [],
        "names": [],
        "lr_scale": lr_scale,
        "weight_decay": weight_decay if decays else 0.0,
    }


def make_optimizer(
    groups: Sequence[ParameterGroup],
    *,
    method: str,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = True,
    lars_norm: str | None = None,
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Build AdamW, Adam (with L2 weight decay in the gradient) or SGD for parameter groups.

    Args:
        groups: from `parameter_groups`; not changed.
        method: `adamw`, `adam` or `sgd` (`SOLVER.OPTIMIZING_METHOD`).
        lr: learning rate of a group whose `lr_scale` is 1.
        betas: `SOLVER.BETAS`, for Adam and AdamW. Their epsilon is 1e-8.
        momentum: `SOLVER.MOMENTUM`, for SGD.
        dampening: `SOLVER.DAMPENING`, for SGD.
        nesterov: `SOLVER.NESTEROV`, for SGD.
        lars_norm: `SOLVER.LARS_NORM`, see `LARS`; None for SGD without LARS.
        fused: use torch's fused kernel, which can also skip a step on the device. The multi-tensor
            form, equal up to rounding, is used where torch has no fused one for the device or
            dtype, and for SGD with dampening, whose first step torch does not skip cleanly.

    Returns:
        The optimizer, each group's `lr` set to `lr` times its `lr_scale`.

    Raises:
        ValueError: if the method is unknown, or not SGD with LARS.
    """
    if lars_norm is not None and method != "sgd":
        raise ValueError(
            f"SOLVER.OPTIMIZING_METHOD must be 'sgd' with SOLVER.LARS_ON True, got {method!r}"
        )
    arguments: dict[str, Any]
    if method in ("adamw", "adam"):
        optimizer_type = AdamW if method == "adamw" else Adam
        arguments = {"betas": tuple(betas), "eps": 1e-8}
    elif method == "sgd":
        optimizer_type = SGD  # type: ignore[assignment]
        # Nesterov without momentum is plain gradient descent, but torch raises an error for it.
        nesterov = nesterov and momentum > 0
        arguments = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        if lars_norm is not None:
            optimizer_type = LARS  # type: ignore[assignment]
            arguments["norm"] = lars_norm
    else:
        known = ", ".join(METHODS)
        raise ValueError(f"SOLVER.OPTIMIZING_METHOD must be one of {known}, got {method!r}")
    own = [{**group, "params": list(group["params"])} for group in groups]
    parameters = [parameter for group in own for parameter in group["params"]]
    may_fuse = fused and _can_fuse(parameters) and not (method == "sgd" and dampening != 0)
    try:
        optimizer = optimizer_type(own, lr=lr, fused=True if may_fuse else None, **arguments)
    except RuntimeError:  # an older torch without a fused form on this device
        optimizer = optimizer_type(own, lr=lr, **arguments)
    if method == "sgd" and momentum > 0 and dampening == 0:
        # torch creates the buffer at the first step, from undefined values if that step is skipped.
        # Zeros give the same first step: momentum * 0 + gradient.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    set_learning_rate(optimizer, lr)
    return optimizer


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Restore the moments of each parameter from a checkpoint.

    The options of the groups (weight decay, betas, momentum ...) stay as they were built, since a
    resumed run may have changed them. Groups that name their parameters may be other groups than
    those saved.

    Args:
        optimizer: from `make_optimizer`.
        saved: `state_dict` of an optimizer over the same parameters.

    Raises:
        ValueError: if the parameters differ, or the moments are those of another method.
    """
    is_sgd = isinstance(optimizer, torch.optim.SGD)
    found = {name for moments in saved["state"].values() for name in moments}
    if ("exp_avg" if is_sgd else "momentum_buffer") in found:
        raise ValueError(
            f"SOLVER.OPTIMIZING_METHOD must be {'adam or adamw' if is_sgd else 'sgd'}, as in the "
            f"checkpoint, got {type(optimizer).__name__.lower()}"
        )
    indices = _saved_indices(saved["param_groups"], optimizer.param_groups)
    groups = [
        {**group, "params": mine}
        for group, mine in zip(optimizer.param_groups, indices, strict=True)
    ]
    built = dict(optimizer.state)  # zero buffers of SGD, which a checkpoint without momentum lacks
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for parameter, buffers in built.items():
        if optimizer.state[parameter].get("momentum_buffer") is None:
            optimizer.state[parameter].update(buffers)


def _saved_indices(
    saved: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]
) -> list[list[int]]:
    """Find the index in a saved state of each parameter of each own group.

    Raises:
        ValueError: if the saved groups have other parameters.
    """
    if all("names" in group for group in saved):
        index = {
            name: number
            for group in saved
            for name, number in zip(group["names"], group["params"], strict=True)
        }
        different = sorted(index.keys() ^ {name for group in own for name in group["names"]})
        if different:
            raise ValueError(
                f"the optimizer must have the parameters of the checkpoint, but only one has "
                f"{shorten(different)}"
            )
        return [[index[name] for name in group["names"]] for group in own]
    sizes, own_sizes = ([len(group["params"]) for group in some] for some in (saved, own))
    if sizes != own_sizes:
        raise ValueError(
            "the parameter groups of the optimizer must have the sizes in the checkpoint, "
            f"{sizes}, got {own_sizes} (SOLVER.LAYER_DECAY, SOLVER.ZERO_WD_1D_PARAM)"
        )
    return [list(group["params"]) for group in saved]


def _can_fuse(parameters: Iterable[Tensor]) -> bool:
    return all(
        parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point()
        for parameter in parameters
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group to `lr` times its `lr_scale`.

    Args:
        optimizer: from `make_optimizer`.
        lr: from `learning_rate`.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of the groups that have one.

    Args:
        optimizer: from `make_optimizer`.
        weight_decay: new value; a group whose weight decay is 0 keeps it.
    """
    for group in optimizer.param_groups:
        if group["weight_decay"]:
            group["weight_decay"] = weight_decay
