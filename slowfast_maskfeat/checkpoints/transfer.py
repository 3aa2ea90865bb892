"""Carrying weights from a checkpoint into a model that need not be the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.class_names import compare_class_names
from slowfast_maskfeat.checkpoints.explain import explain_classifier, explain_names
from slowfast_maskfeat.checkpoints.positions import (
    MadeTable,
    exchange_class_row,
    is_of_images,
    on_another_grid,
    other_form,
    source_layout,
)
from slowfast_maskfeat.checkpoints.report import (
    CLASSIFIER,
    HEAD_NAMES,
    LoadError,
    LoadReport,
    shorten,
)
from slowfast_maskfeat.checkpoints.reshape import TokenLayout, reshape_weight
from slowfast_maskfeat.checkpoints.save_load import load_checkpoint
from slowfast_maskfeat.shapes import Grid

# Under which of its keys a file holds weights; the first that is there is taken.
WEIGHT_KEYS = ("model_state", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")

Renaming = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class FileWeights(NamedTuple):
    """What a file holds for a model.

    Attributes:
        weights: Tensors by name, what wrappers put in front of it removed.
        class_names: Of its classifier, in its order; empty where it says none.
        grid: Patch tokens along time, rows and columns; None where it does not say.
    """

    weights: dict[str, Tensor]
    class_names: tuple[str, ...]
    grid: Grid | None

    @property
    def num_classes(self) -> int:
        """Outputs of its classifier; 0 where it has none."""
        kernel = self.weights.get(f"{CLASSIFIER}projection.weight")
        return 0 if kernel is None else len(kernel)


def read_weights(
    path: str | os.PathLike[str],
    *,
    clear_names: Sequence[str] = (),
    average: bool = False,
    teacher: bool = True,
    rename: Renaming | None = None,
) -> FileWeights:
    """Read the weights that a file holds for a model.

    Args:
        path: The checkpoint.
        clear_names: See :func:`load_weights`.
        average: Whether to take the average of a run that kept one.
        teacher: See :func:`load_weights`.
        rename: See :func:`load_weights`.

    Returns:
        The weights, and what else the file says of them.

    Raises:
        ValueError: If the file cannot be read or has no weights.
    """
    path = Path(path)
    content = load_checkpoint(path)
    if average and isinstance(content.get("average_state"), Mapping):
        content = {**content, "model_state": content["average_state"]["weights"]}
    if teacher:
        content = _with_teacher(content)
    found = _clean_names(_find_weights(content, path), clear_names, path)
    if rename is not None:
        found = dict(rename(found))
    names = tuple(content.get("class_names") or ())
    return FileWeights(found, names, _source_grid(content, path))


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    min_coverage: float = 0.95,
    clear_names: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    inflate: str = "mean",
    complete: bool = False,
    class_names: Sequence[str] = (),
    average: bool = False,
    teacher: bool = True,
    rename: Renaming | None = None,
    initialized: bool = True,
) -> LoadReport:
    """Fill a model from a checkpoint, as far as the two go together.

    Reads files of this package and of PySlowFast (``model_state``), other training codes'
    (``state_dict``, ``model``), bare dicts of names and tensors, and safetensors files; ``module.``
    in front of names is dropped. Entries of the same name are copied, position tables and kernels
    of another size are brought to the model's
    (:func:`slowfast_maskfeat.checkpoints.reshape.reshape_weight`), and position tables of another
    form made (:func:`slowfast_maskfeat.checkpoints.positions.other_form`). What remains, such as a
    classifier of another size, keeps its values.

    Deviations from PySlowFast, which only logs them: too little coverage is an error; a joint
    ``pos_embed`` and an image's one are converted; kernels are converted without being asked to.

    Args:
        model: The bare model, on any device. A ``configured_grid`` attribute tells its token grid.
        path: The checkpoint. A ``token_grid`` entry in it, (t, h, w), tells its model's.
        min_coverage: Least share of the backbone that must be filled
            (:attr:`LoadReport.coverage`).
        clear_names: Patterns whose first occurrence is removed from every name in the file
            (``TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN``).
        leave_out: Beginnings of names; what the file has under them is not used, and what the model
            has keeps its values (``TRAIN.CHECKPOINT_LEAVE_OUT``).
        inflate: How an image's weights become a video's. ``mean`` keeps the response to a still
            clip: kernels repeated along time are divided by their length, and what only a video has
            starts at zero. ``repeat`` is the published way, which does neither.
        complete: Whether all entries, the head's too, must be filled, as testing needs. Of a run
            that averaged its weights, the average is then taken.
        class_names: Of the model's classifier, in its order; empty for unknown. A classifier of
            other classes is not loaded, and is an error with ``complete``; one of the same classes
            in another order always is.
        average: Whether to take the average of a run that kept one, as ``complete`` does.
        teacher: Whether to take the teacher of a method that has one
            (``TRAIN.CHECKPOINT_WEIGHTS``); what it lacks, such as a predictor, is the student's.
        rename: Brings the file's weights to the published names, where it has others
            (:mod:`slowfast_maskfeat.checkpoints.naming`).
        initialized: Whether the model has initial values, not those of another file; for the words
            of the report.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: If the file cannot be read, has numbers of another kind, fills too little, or
            its classes are in another order; the model is then unchanged. It is a
            :class:`LoadError`, which has the report, where the file fills too little.
    """
    if inflate not in ("mean", "repeat"):
        raise ValueError(f"inflate is {inflate!r}; 'mean' or 'repeat' is right")
    path = Path(path)
    # What validated is what is tested: the running average, where a run kept one.
    file = read_weights(
        path,
        clear_names=clear_names,
        average=complete or average,
        teacher=teacher,
        rename=rename,
    )
    left_out = [name for name in file.weights if name.startswith(tuple(leave_out))]
    found = {name: value for name, value in file.weights.items() if name not in left_out}
    state = model.state_dict()
    _require_floats(found, state, path)
    target = TokenLayout("cls_token" in state, getattr(model, "configured_grid", None))
    is_still = is_of_images(state) or (target.grid is not None and target.grid.t == 1)
    values, reshaped, refused, used = _match(
        found,
        state,
        source=source_layout(found, file.grid, for_one_step=is_still),
        target=target,
        inflate=inflate,
    )
    own_head = [name for name in state if name.startswith(CLASSIFIER)]
    if own_head and all(name in values for name in own_head):
        other = compare_class_names(
            file.class_names, class_names, path, may_start_anew=not complete
        )
        if other:
            values = {name: value for name, value in values.items() if name not in own_head}
            refused.update(dict.fromkeys(own_head, f"of other classes, {other}"))
    report = LoadReport(
        path=path,
        loaded=tuple(name for name in state if name in values),
        missing=tuple(name for name in state if name not in values),
        unexpected=tuple(name for name in found if name not in state and name not in used),
        reshaped=reshaped,
        refused=refused,
        left_out=tuple(left_out),
        coverage=_coverage(state, values),
        classifier=explain_classifier(own_head, state, found, refused),
        unchecked_order=bool(class_names)
        and not file.class_names
        and any(name in values for name in own_head),
        initialized=initialized,
    )
    _check_numbers(values, path)
    if report.coverage < min_coverage:
        why = explain_names(found, state, path, renamed=rename is not None)
        raise LoadError(
            f"{path} fills {report.coverage:.1%} of the backbone, and {min_coverage:.1%} is the "
            f"least allowed (TRAIN.CHECKPOINT_MIN_COVERAGE). {why}",
            report,
        )
    if complete and report.missing:
        raise LoadError(
            f"{path} does not fill the whole model, which testing needs; a checkpoint of the same "
            "task and number of classes is right",
            report,
        )
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    return report


def _match(
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    source: TokenLayout,
    target: TokenLayout,
    inflate: str,
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str], set[str]]:
    """What to fill the model with.

    Returns:
        Values in the model's shapes by name; of these, what was done to them; the shapes of those
        that did not go together; and names of the file's tables that others were made of.
    """
    made = other_form(found, state, source=source, target=target, inflate=inflate)
    values: dict[str, Tensor] = {}
    reshaped: dict[str, str] = {}
    refused: dict[str, str] = {}
    used: set[str] = set()
    for name, own in state.items():
        if name not in found and name not in made:
            continue
        table = MadeTable(found[name], "", source) if name in found else made[name]
        made_of = table.made_of
        steps = [table.how] if table.how else []
        shape = tuple(own.shape)
        if table.value.shape != shape or on_another_grid(name, table.layout, target):
            exchanged = exchange_class_row(
                name, table.value, own, source=table.layout, target=target
            )
            if exchanged is not None:
                table = exchanged
                steps.append(table.how)
        weight, layout = table.value, table.layout
        old = tuple(weight.shape)
        if old != shape or on_another_grid(name, layout, target):
            change = reshape_weight(
                name, weight, shape, source=layout, target=target, inflate=inflate
            )
            if change is None:
                refused[name] = f"{old} -> {shape}"
                continue
            weight = change.value
            steps.append(f"{old} -> {shape}, {change.how}")
        assert tuple(weight.shape) == shape, name
        values[name] = weight
        used.update(made_of)
        if steps:
            reshaped[name] = "; ".join(steps)
    return values, reshaped, refused, used


def _with_teacher(content: dict[str, Any]) -> dict[str, Any]:
    """Replace a student's weights by its teacher's, where a checkpoint holds one."""
    prefix, state = content.get("teacher_prefix"), content.get("task_state")
    if not (isinstance(prefix, str) and prefix and isinstance(state, Mapping)):
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
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not weights:
        keys = ", ".join(map(str, list(held)[:8]))
        what = f"{place} has the keys {keys}" if held else f"{place} is empty"
        raise ValueError(
            f"{path} has no weights in it: {what}; tensors by name under one of "
            f"{', '.join(WEIGHT_KEYS)}, or at the top, are right"
        )
    return weights


def bare_name(name: str) -> str:
    """The name of a weight without what DistributedDataParallel or torch.compile put in front."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def _clean_names(
    weights: Mapping[str, Tensor], clear_names: Sequence[str], path: Path
) -> dict[str, Tensor]:
    cleaned: dict[str, Tensor] = {}
    for name, value in weights.items():
        short = name
        for pattern in clear_names:
            short = short.replace(pattern, "", 1)
        short = bare_name(short)
        if short in cleaned:
            raise ValueError(
                f"after removing {list(clear_names)} from the names in {path}, two are {short!r}; "
                "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN should say what all names to be used have in "
                "front"
            )
        cleaned[short] = value
    return cleaned


def _source_grid(content: Mapping[str, Any], path: Path) -> Grid | None:
    grid = content.get("token_grid")
    if not grid:
        return None
    if not isinstance(grid, Sequence) or len(grid) != 3 or any(type(n) is not int for n in grid):
        raise ValueError(f"{path}: its token_grid is {grid!r}; three whole numbers are right")
    return Grid(*grid)


def _coverage(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> float:
    backbone = [name for name in state if not name.startswith(HEAD_NAMES)]
    filled = [name for name in backbone if name in values]
    num_elements = sum(state[name].numel() for name in backbone)
    if not num_elements:
        return 1.0
    of_elements = sum(state[name].numel() for name in filled) / num_elements
    return min(of_elements, len(filled) / len(backbone))


def _require_floats(found: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    wrong = [
        name
        for name, own in state.items()
        if own.is_floating_point()
        and name in found
        and not (found[name].is_floating_point() and found[name].layout is torch.strided)
    ]
    if wrong:
        value = found[wrong[0]]
        kind = str(value.layout if value.is_floating_point() else value.dtype).removeprefix(
            "torch."
        )
        raise ValueError(
            f"{path} has numbers of the kind {kind} where the model has floating-point ones "
            f"({shorten(wrong)}); quantized or sparse weights are not read, their original is right"
        )


def _check_numbers(values: Mapping[str, Tensor], path: Path) -> None:
    broken = [
        name
        for name, value in values.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise ValueError(
            f"{path} has weights that are not finite ({shorten(broken)}); a checkpoint from before "
            "its training went wrong is right"
        )
