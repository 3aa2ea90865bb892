"""Read the weights of a file: by this package, published, or by other training code."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import beit
from slowfast_maskfeat.checkpoints.report import CLASSIFIER
from slowfast_maskfeat.checkpoints.save_load import load_checkpoint
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.text import cut, quoted

# Keys under which files store weights; the first that exists is used.
WEIGHT_KEYS = ("model_state", "state_dict", "model", "module")
# Last part of the name of buffers that follow from the configuration, which BEiT's code saves.
_DERIVED = "relative_position_index"
BACKBONE = "backbone."  # prefix of a backbone beside heads of its own
_WRAPPERS = ("module.", "_orig_mod.")
_WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}

Renaming = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class FileWeights(NamedTuple):
    """Weights of a file, with its facts about their model.

    Attributes:
        weights: tensors by name, without the prefixes of wrappers.
        class_names: class names of its classifier, in its order; empty if unknown.
        grid: patch tokens along time, rows and columns; None if unknown.
    """

    weights: dict[str, Tensor]
    class_names: tuple[str, ...]
    grid: Grid | None

    @property
    def num_classes(self) -> int:
        """Outputs of its classifier; 0 without one."""
        kernel = self.weights.get(f"{CLASSIFIER}projection.weight")
        return 0 if kernel is None else len(kernel)


def read_weights(
    path: str | os.PathLike[str],
    *,
    clear_names: Sequence[str] = (),
    average: bool = False,
    teacher: bool = True,
    rename: Renaming | None = None,
    own_names: Container[str] = (),
    content: Mapping[str, Any] | None = None,
) -> FileWeights:
    """Read the weights of a file.

    Args:
        path: the checkpoint.
        clear_names: see `load_weights`.
        average: whether to read the weight average if the file has one.
        teacher: see `load_weights`.
        rename: see `load_weights`.
        own_names: names in the model; a head of other libraries that it has keeps its name.
        content: see `load_weights`.

    Returns:
        The weights, and the file's facts about their model.

    Raises:
        ValueError: if the file cannot be read or has no weights.
    """
    path = Path(path)
    content = load_checkpoint(path) if content is None else dict(content)
    has_model = isinstance(content.get("model_state"), Mapping)
    if average and has_model and content.get("average_state"):
        content = {**content, "model_state": content["average_state"]["weights"]}
    content = _of_two_networks(content, teacher=teacher)
    if teacher:
        content = _with_teacher(content)
    found = _clean_names(_find_weights(content, path), clear_names, path)
    if rename is not None:
        found = dict(rename(found))
    else:
        found = dict(beit.with_own_heads(found, own_names))
    names = tuple(content.get("class_names") or ())
    return FileWeights(found, names, _source_grid(content, path))


def _of_two_networks(content: dict[str, Any], *, teacher: bool) -> dict[str, Any]:
    """Select a network in a training file of DINO or iBOT.

    The teacher gets weights that only the student has, such as the mask token.
    """
    held = content.get("teacher" if teacher else "student")
    if not isinstance(held, Mapping) or any(key in content for key in WEIGHT_KEYS):
        return content
    names = {bare_name(name) for name in held if isinstance(name, str)}
    if not any(name.startswith(BACKBONE) for name in names):
        return content
    student = content.get("student")
    others = student if isinstance(student, Mapping) else {}
    added = {n: x for n, x in others.items() if isinstance(n, str) and bare_name(n) not in names}
    return {**content, "model_state": {**held, **added}}


def _with_teacher(content: dict[str, Any]) -> dict[str, Any]:
    """Replace a student's weights by its teacher's, where a checkpoint holds one."""
    prefix, state = content.get("teacher_prefix"), content.get("task_state")
    if not (prefix and state and isinstance(content.get("model_state"), Mapping)):
        return content
    teacher = {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
    return {**content, "model_state": {**content["model_state"], **teacher}}


def _find_weights(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    held: Any = content
    place = "it"
    for key in WEIGHT_KEYS:
        if isinstance(content.get(key), Mapping):
            held, place = content[key], f"its {key!r}"
            break
    weights = {
        name: value
        for name, value in held.items()
        if isinstance(name, str) and isinstance(value, Tensor) and not name.endswith(_DERIVED)
    }
    if not weights:
        keys = ", ".join(cut(str(key), 80) for key in list(held)[:8])
        what = f"{place} has the keys {keys}" if held else f"{place} is empty"
        raise ValueError(
            f"{path} must have tensors by name under {', '.join(WEIGHT_KEYS)} or at the top level, "
            f"but {what}"
        )
    return weights


def bare_name(name: str) -> str:
    """Remove the prefixes of DistributedDataParallel and torch.compile from a weight's name."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _plain_norm(name: str) -> str:
    """Replace the names that newer versions of torch give to the parts of a weight norm."""
    for newer, older in _WEIGHT_NORM.items():
        if name.endswith(newer):
            return name.removesuffix(newer) + older
    return name


def _clean_names(
    weights: Mapping[str, Tensor], clear_names: Sequence[str], path: Path
) -> dict[str, Tensor]:
    cleaned: dict[str, Tensor] = {}
    for name, value in weights.items():
        short = name
        for pattern in clear_names:
            short = short.replace(pattern, "", 1)
        short = _plain_norm(bare_name(short))
        if short in cleaned:
            raise ValueError(
                f"TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN {quoted(list(clear_names))} gives two "
                f"weights in {path} the name {quoted(short)}; use a prefix that all weights to "
                "load have"
            )
        cleaned[short] = value
    return cleaned


def _source_grid(content: Mapping[str, Any], path: Path) -> Grid | None:
    grid = content.get("token_grid")
    if grid is None or grid in ([], ()):
        return None
    is_grid = isinstance(grid, (list, tuple)) and len(grid) == 3
    if not is_grid or not all(type(side) is int and 0 < side < 2**31 for side in grid):
        raise ValueError(f"{path}: its token_grid must be three integers, got {quoted(grid)}")
    return Grid(*grid)
