"""Optimizers of torch that do not import its compiler.

torch wraps methods of its optimizers so that the compiler leaves them alone, or knows where a step
begins. A wrapper imports the whole compiler when it is first called: 1.2 of the 3.7 seconds of
processor time in which a training starts. No step of an optimizer is compiled here, so the methods
are called as they were before they were wrapped. Numbers and checkpoints are those of torch.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from typing import Any

import torch


class _Uncompiled(torch.optim.Optimizer):
    """Methods of an optimizer, and `_update`, its step, without torch's wrappers."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    _update: Callable[..., Any]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step, and call the hooks of steps, see `torch.optim.Optimizer.step`."""
        return self._update(closure)


class AdamW(_Uncompiled, torch.optim.AdamW):
    """`torch.optim.AdamW`."""

    _update = unwrap(torch.optim.AdamW.step)


class Adam(_Uncompiled, torch.optim.Adam):
    """`torch.optim.Adam`."""

    _update = unwrap(torch.optim.Adam.step)


class SGD(_Uncompiled, torch.optim.SGD):
    """`torch.optim.SGD`."""

    _update = unwrap(torch.optim.SGD.step)
