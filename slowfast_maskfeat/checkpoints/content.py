"""Checks of what a checkpoint holds, so that its readers can rely on the types."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slowfast_maskfeat.text import cut, quoted

# Elements that a tensor may have although the file does not store each of them.
_MAX_EXPANDED = 2**20
_LARGEST_COUNT = 2**62
_SCALER_NAMES = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}


class _Entry(NamedTuple):
    """An entry of the checkpoints of this package and of PySlowFast.

    Attributes:
        accepts: whether a value is of the entry's type.
        what: the type, for messages.
        is_optional: whether None stands for no entry.
    """

    accepts: Callable[[Any], bool]
    what: str
    is_optional: bool = True


def check_content(content: Mapping[Any, Any], path: Path) -> None:
    """Check the types of what was read from a file.

    The tensors of any file must have data, and its `class_names` be strings. The other entries of
    this package must have their types in a file with a `model_state`, and those of a training in
    one that also has `optimizer_state` and `epoch`; elsewhere their names may stand for something
    else.

    Args:
        content: content of the file.
        path: path of the file, for messages.

    Raises:
        ValueError: the file must be refused; the message has the name and type of the entry.
    """
    for place, tensor in _tensors(content):
        problem = _problem(tensor)
        if problem:
            raise ValueError(f"{path} can't be used: its {cut(place)} {problem}")
    entries = {
        "class_names": _Entry(lambda value: _is_list_of(value, _is_text), "a list of strings")
    }
    if isinstance(content.get("model_state"), Mapping):
        entries |= _MODEL_ENTRIES
        if "optimizer_state" in content and "epoch" in content:
            entries |= _TRAINING_ENTRIES
    for name, entry in entries.items():
        value = content.get(name)
        is_left_out = name not in content or (value is None and entry.is_optional)
        if not is_left_out and not entry.accepts(value):
            raise ValueError(
                f"{path} can't be used: its {name!r} must be {entry.what}, got "
                f"{_described(value)}; use another checkpoint"
            )


def _tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested containers, each once, with their places."""
    pending: list[tuple[str, Any]] = [("content", content)]
    seen: set[int] = set()  # a container may contain itself, or be contained many times
    while pending:
        place, value = pending.pop()
        if isinstance(value, Tensor):
            yield place, value
        if not isinstance(value, (Mapping, list, tuple, set)) or id(value) in seen:
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            if isinstance(item, (Tensor, Mapping, list, tuple, set)):
                short = quoted(key, 80)
                pending.append((short if place == "content" else cut(f"{place}[{short}]"), item))


def _problem(value: Tensor) -> str:
    """The reason to refuse a tensor; empty if there is none."""
    if value.is_meta:
        return "is a tensor without data (on the meta device)"
    if value.layout is not torch.strided or value.is_quantized or value.is_nested:
        return ""  # refused where dense weights are needed, with another hint
    size, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if value.numel() > _MAX_EXPANDED and size > stored:
        return f"has {size} bytes of elements, of which the file stores only {stored}"
    return ""


def _described(value: object) -> str:
    """The type of a value, and the value itself if it is short."""
    kind = type(value).__name__
    if isinstance(value, (bool, int, float, str)):
        return f"{kind} {quoted(value, 80)}"
    return kind


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _is_epoch(value: object) -> bool:
    return _is_count(value) or (type(value) is int and value == -1)


def _is_state(value: object) -> bool:
    """Whether a value is a `state_dict`; the extra state of a module is a dict of its own."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and (isinstance(item, Tensor) or name.endswith("_extra_state"))
        for name, item in value.items()
    )


def _is_average(value: object) -> bool:
    return isinstance(value, Mapping) and _is_state(value.get("weights"))


def _is_optimizer(value: object) -> bool:
    if value == {}:  # a file to start from, not to resume
        return True
    if not isinstance(value, Mapping) or not isinstance(value.get("state"), Mapping):
        return False
    groups = value.get("param_groups")
    return (
        isinstance(groups, list)
        and all(map(_is_group, groups))
        and all(map(_is_parameter_state, value["state"].values()))
        and all(_is_count(number) for number in value["state"])
    )


def _is_parameter_state(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("step", 0), (int, float, Tensor))


def _is_group(value: object) -> bool:
    """Whether a value is a group of parameters, which may name them."""
    if not isinstance(value, Mapping) or not _is_list_of(value.get("params"), _is_count):
        return False
    names = value.get("names")
    return names is None or (_is_list_of_texts(names) and len(names) == len(value["params"]))


def _is_list_of(value: object, accepts: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(accepts(item) for item in value)


def _is_random_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and "cpu" in value
        and all(
            isinstance(value[device], Tensor)
            and value[device].dtype is torch.uint8
            and value[device].ndim == 1
            for device in ("cpu", "cuda")
            if device in value
        )
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list_of_texts(value: object) -> bool:
    return _is_list_of(value, _is_text)


def _is_section(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_scaler(value: object) -> bool:
    """Whether a value is the state of a GradScaler; that of a disabled one is empty."""
    return value == {} or (
        isinstance(value, Mapping)
        and set(value) >= _SCALER_NAMES
        and all(isinstance(value[name], (int, float)) for name in _SCALER_NAMES)
    )


def _is_sections(value: object) -> bool:
    """Whether a value is a dict of dicts, or of None."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and (item is None or _is_section(item))
        for name, item in value.items()
    )


_MODEL_ENTRIES = {
    "task_state": _Entry(_is_state, "a dict of tensors by name"),
    "average_state": _Entry(_is_average, "a dict whose 'weights' are tensors by name"),
    "teacher_prefix": _Entry(_is_text, "a string"),
}
_TRAINING_ENTRIES = {
    "model_state": _Entry(_is_state, "a dict of tensors by name"),
    "epoch": _Entry(_is_epoch, "an integer >= -1", is_optional=False),
    "step": _Entry(_is_count, "an integer >= 0", is_optional=False),
    "optimizer_state": _Entry(_is_optimizer, "the state of an optimizer", is_optional=False),
    "scaler_state": _Entry(_is_scaler, "the state of a GradScaler"),
    "random_states": _Entry(
        lambda value: _is_list_of(value, _is_random_state), "a list of random states"
    ),
    "loop_state": _Entry(_is_sections, "a dict of dicts by name"),
    "data": _Entry(_is_section, "a dict by name"),
    "cfg": _Entry(_is_text, "a string of YAML"),
}
