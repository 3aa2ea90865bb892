"""Parameter groups, the optimizer, and one step of it that the device decides on by itself.

Layer-wise learning-rate decay follows Bao et al., "BEiT" (ICLR 2022), section 3, and Clark et al.,
"ELECTRA" (ICLR 2020), appendix A. AdamW is Loshchilov and Hutter, "Decoupled Weight Decay
Regularization" (ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

METHODS = ("adamw", "adam", "sgd")
"""What ``SOLVER.OPTIMIZING_METHOD`` may say."""

ParameterGroup = dict[str, Any]
"""``params`` (list of tensors), ``names`` (list of str), ``lr_scale`` and ``weight_decay``."""


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
    """Sort a model's trainable parameters into groups of one learning-rate scale and weight decay.

    Without layer decay there are two groups, first what decays, then what does not. With it there
    are up to two for each layer, numbered in the order in which the parameters first need them.
    Frozen parameters (``requires_grad`` false) are in no group; a group nobody is in is left out.

    One rule decides on weight decay, with and without layer decay: a parameter has none if its
    full name is in ``zero_decay_names``, or if it is one-dimensional or a bias and
    ``zero_decay_1d`` is set. (The field's published code matches parts of names in the one case and
    full names in the other; full names give what it gives in all its shipped configurations.)

    Args:
        model: The bare model, not its DDP or compiled wrapper, so that names are the published.
        weight_decay: ``SOLVER.WEIGHT_DECAY``.
        zero_decay_1d: ``SOLVER.ZERO_WD_1D_PARAM``.
        zero_decay_names: Full parameter names without decay (``MVIT.ZERO_DECAY_POS_CLS``).
        layer_decay: ``SOLVER.LAYER_DECAY``, in (0, 1]: the factor from each layer to the one below.
        layer_id: Parameter name to layer: 0 what comes before the blocks, ``i + 1`` block ``i``,
            ``num_layers`` what comes after. Needed when ``layer_decay`` is not 1.
        num_layers: The largest layer, blocks + 1. Needed when ``layer_decay`` is not 1.

    Returns:
        Groups for :func:`make_optimizer`; ``lr_scale`` is
        ``layer_decay ** (num_layers - layer)``.

    Raises:
        ValueError: If ``layer_decay`` is outside (0, 1] or nothing in the model can be trained.
    """
    if not 0.0 < layer_decay <= 1.0:
        raise ValueError(f"SOLVER.LAYER_DECAY is {layer_decay}; above 0 and at most 1 is right")
    if layer_decay != 1.0 and (layer_id is None or num_layers is None):
        raise ValueError(
            f"SOLVER.LAYER_DECAY is {layer_decay}, but {type(model).__name__} does not say which "
            "layer a parameter belongs to; 1.0 would be right"
        )
    groups: dict[tuple[int, bool], ParameterGroup] = {}
    if (
        layer_decay == 1.0
    ):  # fixed order: what decays comes first, whatever comes first in the model
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
        raise ValueError(f"{type(model).__name__} has no parameter that can be trained")
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
    fused: bool = True,
) -> torch.optim.Optimizer:
    """Make AdamW, Adam (its decay inside the gradient) or SGD over parameter groups.

    Args:
        groups: From :func:`parameter_groups`; not changed.
        method: ``adamw``, ``adam`` or ``sgd`` (``SOLVER.OPTIMIZING_METHOD``).
        lr: The rate of a group whose ``lr_scale`` is 1.
        betas: ``SOLVER.BETAS``, of the Adam family. Its epsilon is 1e-8.
        momentum: ``SOLVER.MOMENTUM``, of SGD, as are the next two.
        dampening: ``SOLVER.DAMPENING``.
        nesterov: ``SOLVER.NESTEROV``.
        fused: Use torch's one-kernel form, which can also skip a step on the device. Where torch
            has none (a device or dtype it does not know, SGD with dampening, whose first step it
            does not skip cleanly) the multi-tensor form is taken, same numbers to rounding.

    Returns:
        The optimizer, each group's ``lr`` set to ``lr`` times its ``lr_scale``.

    Raises:
        ValueError: If the method is unknown.
    """
    arguments: dict[str, Any]
    if method in ("adamw", "adam"):
        optimizer_type = torch.optim.AdamW if method == "adamw" else torch.optim.Adam
        arguments = {"betas": tuple(betas), "eps": 1e-8}
    elif method == "sgd":
        optimizer_type = torch.optim.SGD  # type: ignore[assignment]
        # Nesterov without momentum is plain descent, but torch refuses to be asked for it.
        nesterov = nesterov and momentum > 0
        arguments = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    else:
        known = ", ".join(METHODS)
        raise ValueError(f"SOLVER.OPTIMIZING_METHOD is {method!r}; one of {known} would be right")
    own = [{**group, "params": list(group["params"])} for group in groups]
    parameters = [parameter for group in own for parameter in group["params"]]
    may_fuse = fused and _can_fuse(parameters) and not (method == "sgd" and dampening != 0)
    try:
        optimizer = optimizer_type(own, lr=lr, fused=True if may_fuse else None, **arguments)
    except RuntimeError:  # an older torch that has no fused form on this device
        optimizer = optimizer_type(own, lr=lr, **arguments)
    if method == "sgd" and momentum > 0 and dampening == 0:
        # torch makes the buffer at the first step, from garbage when that step is skipped. Zeros
        # give the same first step: momentum * 0 + gradient.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    set_learning_rate(optimizer, lr)
    return optimizer


def _can_fuse(parameters: Iterable[Tensor]) -> bool:
    return all(
        parameter.device.type in ("cpu", "cuda") and parameter.is_floating_point()
        for parameter in parameters
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group to ``lr`` times the group's ``lr_scale``.

    Args:
        optimizer: From :func:`make_optimizer`.
        lr: From :func:`slowfast_maskfeat.schedules.learning_rate`.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
