"""Parameters and buffers of a whole module in a pickle, without its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slowfast_maskfeat.checkpoints.restricted_pickle import Placeholder
from slowfast_maskfeat.text import cut, printable

# Limits of one module, whose parts a file can contain any number of times.
_MOST_PARTS = 100_000  # parts, and as many weights
_DEEPEST = 100  # levels
_LONGEST = 1_000  # characters of a name


def as_mapping(value: Any) -> Mapping[Any, Any]:
    """Name -> value of a mapping, or of a module's parameters; empty for anything else."""
    if isinstance(value, Placeholder) and _attributes(value):
        return _module_state(value)
    return value if isinstance(value, Mapping) else {}


def _attributes(module: Any) -> dict[Any, Any]:
    """Attributes of an object by name; empty if it is no module."""
    state = module.state if isinstance(module, Placeholder) else None
    if isinstance(state, tuple):  # attributes in a dict, and those in slots
        parts = [part for part in state if isinstance(part, dict)]
        state = {name: item for part in parts for name, item in part.items()}
    if not isinstance(state, dict):
        return {}
    held = (state.get("_modules"), state.get("_parameters"))
    return state if all(isinstance(part, Mapping) for part in held) else {}


def _module_state(module: Placeholder) -> dict[str, Any]:
    """Parameters and buffers by the names of `state_dict`, in its order.

    Raises:
        ValueError: a module contains itself, or there are too many or too deep ones.
    """
    found: dict[str, Any] = {}
    path: list[int] = []  # the part, and those that contain it
    pending: list[tuple[int, str, Any]] = [(0, "", module)]
    num_parts = 0
    while pending:
        level, prefix, part = pending.pop()
        del path[level:]
        if id(part) in path:
            raise ValueError(
                f"a module must not contain itself, got one that does as {cut(printable(prefix))}"
            )
        path.append(id(part))
        num_parts += 1
        held = _attributes(part)
        passing = _names(held.get("_non_persistent_buffers_set"))
        buffers = _by_name(held.get("_buffers"))
        own = _by_name(held.get("_parameters"))
        own |= {name: value for name, value in buffers.items() if name not in passing}
        children = _by_name(held.get("_modules"))
        longest = len(prefix) + max(map(len, (*own, *children)), default=0)
        _check_size(level, longest, num_parts + len(pending) + len(children), len(found) + len(own))
        found |= {f"{prefix}{name}": value for name, value in own.items() if value is not None}
        deeper = [(level + 1, f"{prefix}{name}.", child) for name, child in children.items()]
        pending += reversed(deeper)
    return found


def _check_size(level: int, longest: int, num_parts: int, num_weights: int) -> None:
    if level > _DEEPEST or longest > _LONGEST or max(num_parts, num_weights) > _MOST_PARTS:
        raise ValueError(
            f"a module must have at most {_MOST_PARTS:,} parts and weights, {_DEEPEST} levels and "
            f"{_LONGEST:,} characters in a name, got {num_parts:,} parts, {num_weights:,} weights, "
            f"{level} levels and {longest:,} characters"
        )


def _by_name(value: Any) -> dict[str, Any]:
    """Name -> value of an attribute of a module; empty if it has another type."""
    if not isinstance(value, Mapping):
        return {}
    return {name: item for name, item in value.items() if isinstance(name, str)}


def _names(value: Any) -> set[str]:
    """Names in an attribute of a module; empty if it has another type."""
    if not isinstance(value, (set, frozenset, list, tuple)):
        return set()
    return {name for name in value if isinstance(name, str)}
