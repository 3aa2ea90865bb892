"""Load the weights of a checkpoint into a model that may differ from the checkpoint's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.class_names import compare_class_names
from slowfast_maskfeat.checkpoints.explain import explain_classifier, explain_names
from slowfast_maskfeat.checkpoints.naming import beit
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
from slowfast_maskfeat.text import cut, quoted

# Keys under which files store weights; the first that exists is used.
WEIGHT_KEYS = ("model_state", "state_dict", "model", "module")
# Last part of the name of buffers that follow from the configuration, which BEiT's code saves.
_DERIVED = "relative_position_index"
_BACKBONE = "backbone."
_WRAPPERS = ("module.", "_orig_mod.")

Renaming = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class FileWeights(NamedTuple):
    """Weights of a file, with its facts about their model.

    Attributes:
        weights: Tensors by name, without the prefixes of wrappers.
        class_names: Class names of its classifier, in its order; empty if unknown.
        grid: Patch tokens along time, rows and columns; None if unknown.
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
    content: Mapping[str, Any] | None = None,
) -> FileWeights:
    """Read the weights of a file.

    Args:
        path: The checkpoint.
        clear_names: See :func:`load_weights`.
        average: Whether to read the weight average if the file has one.
        teacher: See :func:`load_weights`.
        rename: See :func:`load_weights`.
        content: See :func:`load_weights`.

    Returns:
        The weights, and the file's facts about their model.

    Raises:
        ValueError: If the file cannot be read or has no weights.
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
    elif beit.recognizes(found):
        found = beit.rename_heads(found)
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
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load a checkpoint into a model, as far as the two match.

    Reads files of this package and of PySlowFast (``model_state``), of other training code
    (``state_dict``, ``model``, ``module``), training files of DINO and iBOT (the backbone of
    ``teacher`` or ``student``), plain dicts of names and tensors, and safetensors files; a prefix
    ``module.`` of names is dropped, and BEiT's names of heads are converted. Weights of the same
    name are copied, position tables and kernels of another size are resized
    (:func:`slowfast_maskfeat.checkpoints.reshape.reshape_weight`), and position tables of another
    form are converted (:func:`slowfast_maskfeat.checkpoints.positions.other_form`). All other
    weights, such as a classifier of another size, keep their values.

    Deviations from PySlowFast: too little coverage is an error instead of a log line; a joint
    ``pos_embed`` and that of an image are converted; kernels are always converted.

    Args:
        model: The bare model, on any device. Its attribute ``configured_grid``, if it has one, is
            its token grid, and its method ``own_names`` a default of `rename`.
        path: The checkpoint. Its entry ``token_grid``, (t, h, w), is its model's token grid.
        min_coverage: Smallest share of the backbone that must be filled
            (:attr:`LoadReport.coverage`).
        clear_names: Patterns whose first occurrence is removed from every name in the file
            (``TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN``).
        leave_out: Prefixes of names in the file that are not loaded
            (``TRAIN.CHECKPOINT_LEAVE_OUT``).
        inflate: How weights of an image model are inflated to video. ``mean`` keeps the response to
            a still clip: kernels repeated along time are divided by their length, and weights that
            only a video model has start at zero. ``repeat`` is the published form, without either.
        complete: Whether all weights, including the head's, must be filled, as for testing. The
            weight average is then loaded if the file has one.
        class_names: Class names of the model's classifier, in its order; empty if unknown. A
            classifier of other classes is not loaded, and is an error with ``complete``; one of the
            same classes in another order is always an error.
        average: Whether to load the weight average if the file has one, as with ``complete``.
        teacher: Whether to load the teacher of a method that has one
            (``TRAIN.CHECKPOINT_WEIGHTS``); weights that only the student has, such as a
            predictor's, are then the student's.
        rename: Converts names of another library to the published ones
            (:mod:`slowfast_maskfeat.checkpoints.naming`).
        initialized: Whether the model has its initial values, not those of another file; for the
            wording of the report.
        content: What `load_checkpoint` returned for the file; None reads it.

    Returns:
        A report of what was loaded and what was not.

    Raises:
        ValueError: If the file cannot be read, has weights that are not floating-point numbers,
            fills too little, or its classes are in another order; the model is then unchanged. If
            it fills too little, this is a :class:`LoadError`, which has the report.
    """
    if inflate not in ("mean", "repeat"):
        raise ValueError(f"inflate must be 'mean' or 'repeat', got {inflate!r}")
    path = Path(path)
    rename = rename or getattr(model, "own_names", None)
    # Test the weights that were validated: the average, if there is one.
    file = read_weights(
        path,
        clear_names=clear_names,
        average=complete or average,
        teacher=teacher,
        rename=rename,
        content=content,
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
            f"{path} fills {report.coverage:.1%} of the backbone, less than the "
            f"{min_coverage:.1%} of TRAIN.CHECKPOINT_MIN_COVERAGE. {why}",
            report,
        )
    if complete and report.missing:
        raise LoadError(
            f"{path} does not fill the whole model, which testing needs; use a checkpoint of the "
            "same task and number of classes",
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
    """Match the weights of a file with those of a model.

    Returns:
        Values in the model's shapes by name; for reshaped ones, how; for those whose shapes do not
        match, both shapes; and the names of the file's tables from which others were computed.
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


def _of_two_networks(content: dict[str, Any], *, teacher: bool) -> dict[str, Any]:
    """Select the backbone of the teacher or student in a training checkpoint of DINO or iBOT."""
    held = content.get("teacher" if teacher else "student")
    if not isinstance(held, Mapping) or any(key in content for key in WEIGHT_KEYS):
        return content
    names = {bare_name(name): name for name in held if isinstance(name, str)}
    weights = {
        name.removeprefix(_BACKBONE): held[own]
        for name, own in names.items()
        if name.startswith(_BACKBONE)
    }
    return {**content, "model_state": weights} if weights else content


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
            f"{path} must have dense floating-point weights, got {kind} ({shorten(wrong)}); use "
            "the original instead of quantized or sparse weights"
        )


def _check_numbers(values: Mapping[str, Tensor], path: Path) -> None:
    broken = [
        name
        for name, value in values.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise ValueError(
            f"{path} has weights that are not finite ({shorten(broken)}); use a checkpoint from "
            "before its training diverged"
        )
