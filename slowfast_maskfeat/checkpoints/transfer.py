"""Load the weights of a checkpoint into a model that may differ from the checkpoint's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.class_names import compare_class_names
from slowfast_maskfeat.checkpoints.explain import (
    explain_classifier,
    explain_gaps,
    explain_misfits,
    explain_names,
)
from slowfast_maskfeat.checkpoints.file_weights import BACKBONE, Renaming, read_weights
from slowfast_maskfeat.checkpoints.integrity import other_kind
from slowfast_maskfeat.checkpoints.naming import recognize
from slowfast_maskfeat.checkpoints.positions import (
    TABLES,
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
from slowfast_maskfeat.shapes import position_grid

_LAST_NORM = ("norm.weight", "norm.bias")


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

    Reads files of this package and of PySlowFast (`model_state`), of other training code
    (`state_dict`, `model`, `module`), training files of DINO and iBOT (`teacher` or
    `student`), plain dicts of names and tensors, and safetensors files; a prefix `module.` of
    names is dropped, and BEiT's names of heads are converted. A prefix `backbone.` does not
    matter, in the file or the model. Weights of the same name are copied, position tables and
    kernels of another size are resized
    (`reshape_weight`), and position tables of another
    form are converted (`other_form`). All other
    weights, such as a classifier of another size, keep their values.

    Deviations from PySlowFast: too little coverage is an error instead of a log line; a joint
    `pos_embed` and that of an image are converted; kernels are always converted.

    Args:
        model: the bare model, on any device. Its attribute `configured_grid`, if it has one, is
            its token grid, and its method `own_names` a default of `rename`.
        path: the checkpoint. Its entry `token_grid`, (t, h, w), is its model's token grid.
        min_coverage: smallest share of the backbone that must be filled
            (`LoadReport.coverage`). Unless 0, the patch embedding and the positions must be
            filled, too, and no weight of the backbone may have another shape.
        clear_names: patterns whose first occurrence is removed from every name in the file
            (`TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN`).
        leave_out: prefixes of names in the file that are not loaded
            (`TRAIN.CHECKPOINT_LEAVE_OUT`).
        inflate: how weights of an image model are inflated to video. `mean` keeps the response to
            a still clip: kernels repeated along time are divided by their length, and weights that
            only a video model has start at zero. `repeat` is the published form, without either.
        complete: whether all weights, including the head's, must be filled, as for testing. The
            weight average is then loaded if the file has one.
        class_names: class names of the model's classifier, in its order; empty if unknown. A
            classifier of other classes is not loaded, and is an error with `complete`; one of the
            same classes in another order is always an error.
        average: whether to load the weight average if the file has one, as with `complete`.
        teacher: whether to load the teacher of a method that has one (`TRAIN.CHECKPOINT_WEIGHTS`);
            weights that only the student has, such as a predictor's, are then the student's.
        rename: converts names of another library to the published ones (`checkpoints.naming`).
        initialized: whether the model has its initial values, not those of another file; for the
            wording of the report.
        content: what `load_checkpoint` returned for the file; None reads it.

    Returns:
        A report of what was loaded and what was not.

    Raises:
        ValueError: if the file cannot be read, has weights that are not floating-point numbers,
            fills too little or does not fit, or its classes are in another order; the model is then
            unchanged. If it fills too little or does not fit, this is a `LoadError`, which has the
            report.
    """
    if inflate not in ("mean", "repeat"):
        raise ValueError(f"inflate must be 'mean' or 'repeat', got {inflate!r}")
    path, weights = Path(path), model.state_dict()
    rename = rename or getattr(model, "own_names", None)
    # Test the weights that were validated: the average, if there is one.
    file = read_weights(
        path,
        clear_names=clear_names,
        average=complete or average,
        teacher=teacher,
        rename=rename,
        own_names=weights.keys(),
        content=content,
    )
    left_out = [name for name in file.weights if name.startswith(tuple(leave_out))]
    state, full_names = _without_backbone(weights)
    found, found_names = _without_backbone(
        {name: value for name, value in file.weights.items() if name not in left_out}
    )
    _require_floats(found, state, path)
    target = TokenLayout("cls_token" in state, position_grid(model))
    is_still = is_of_images(state) or (target.grid is not None and target.grid.t == 1)
    source = source_layout(found, file.grid, for_one_step=is_still)
    match = _match(found, state, source=source, target=target, inflate=inflate)
    _refuse_second_values(match, state)
    own_head = [name for name in state if name.startswith(f"{CLASSIFIER}projection.")]
    if own_head and match.values.keys() >= set(own_head):
        other = compare_class_names(
            file.class_names, class_names, path, may_start_anew=not complete
        )
        if other:
            match.refuse(own_head, f"of other classes, {other}")
    has_head = not match.values.keys().isdisjoint(own_head)
    named = _named_weights(match, full_names, found_names)
    report = LoadReport(
        path=path,
        left_out=tuple(left_out),
        coverage=_coverage(state, match.values, found),
        classifier=explain_classifier(own_head, state, found, match.refused),
        unchecked_order=has_head and bool(class_names) and not file.class_names,
        initialized=initialized,
        **named,
    )
    _check_numbers(match.values, path)
    # A backbone of an extension may have names like those of a library.
    foreign = rename is None and not recognize(state) and bool(recognize(found))
    misfits = explain_misfits(found, state, match.values)
    if foreign or report.coverage < min_coverage:
        why = explain_names(found, state, path, renamed=rename is not None, misfits=misfits)
        raise _too_little(report, min_coverage, why)
    fixed = _fixed_tables(model)
    lack = misfits or explain_gaps(state, match.values, fixed_tables=fixed, left_out=left_out)
    if complete and report.missing:
        raise _incomplete(report, lack)
    if lack and min_coverage:
        raise _does_not_fit(report, lack)
    with torch.no_grad():
        for name, value in match.values.items():
            state[name].copy_(value)
    return report


def _fixed_tables(model: nn.Module) -> set[str]:
    """Names, without the backbone's prefix, of position tables that are not learned."""
    names = {name.removeprefix(BACKBONE): value for name, value in model.named_parameters()}
    return {name for name in TABLES if name in names and not names[name].requires_grad}


def _named_weights(
    match: _Match, full_names: Mapping[str, str], found_names: Mapping[str, str]
) -> dict[str, Any]:
    """The fields of a report that list weights.

    Args:
        match: of the file with the model.
        full_names: short name -> name in the model.
        found_names: short name -> name in the file.
    """
    return {
        "loaded": tuple(full_names[name] for name in full_names if name in match.values),
        "missing": tuple(full_names[name] for name in full_names if name not in match.values),
        "unexpected": tuple(
            found_names[name]
            for name in found_names
            if name not in full_names and name not in match.used
        ),
        "reshaped": {full_names[name]: how for name, how in match.reshaped.items()},
        "refused": {full_names[name]: why for name, why in match.refused.items()},
    }


@dataclass(frozen=True, kw_only=True)
class _Match:
    """Weights of a file that fit a model.

    Attributes:
        values: in the model's shapes, by its names.
        reshaped: how, of those that were.
        refused: why, of those that do not fit.
        used: names of the file's tables from which others were computed.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Take weights out again."""
        for name in names:
            del self.values[name]
            self.refused[name] = why


def _refuse_second_values(match: _Match, state: Mapping[str, Tensor]) -> None:
    """Keep the first of two weights of a file that are one weight of the model, such as a head's.

    The later one would be copied over it.
    """
    first: dict[tuple[Any, ...], str] = {}
    for name in list(match.values):
        own = state[name]
        other = first.setdefault((own.data_ptr(), own.shape, own.stride()), name)
        is_shared = name != other and own.data_ptr() != 0  # 0: empty, or without memory
        if is_shared and not match.values[name].equal(match.values[other]):
            match.refuse([name], f"the model shares this weight with {other}, the file does not")


def _too_little(report: LoadReport, min_coverage: float, why: str) -> LoadError:
    share = f"{report.path} fills {report.coverage:.1%} of the backbone"
    if report.coverage < min_coverage:
        share += f", less than the {min_coverage:.1%} of TRAIN.CHECKPOINT_MIN_COVERAGE"
    return LoadError(f"{share}. {why}", report)


def _does_not_fit(report: LoadReport, lack: str) -> LoadError:
    return LoadError(
        f"{report.path} fills {report.coverage:.1%} of the backbone but does not fit: {lack}. "
        "TRAIN.CHECKPOINT_MIN_COVERAGE 0 accepts it",
        report,
    )


def _incomplete(report: LoadReport, lack: str) -> LoadError:
    why = f" ({lack})" if lack else ""
    return LoadError(
        f"{report.path} does not fill the whole model, which testing needs{why}; use a checkpoint "
        "of the same task and number of classes",
        report,
    )


def _match(
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    source: TokenLayout,
    target: TokenLayout,
    inflate: str,
) -> _Match:
    """Match the weights of a file with those of a model."""
    made = other_form(found, state, source=source, target=target, inflate=inflate)
    match = _Match()
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
                match.refused[name] = f"{old} -> {shape}"
                continue
            weight = change.value
            steps.append(f"{old} -> {shape}, {change.how}")
        assert tuple(weight.shape) == shape, name
        match.values[name] = weight
        match.used.update(made_of)
        if steps:
            match.reshaped[name] = "; ".join(steps)
    return match


def _without_backbone(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Remove the prefix that the backbone of a model with heads of its own has.

    Returns:
        The weights, and their names by the shorter ones; the same names if two would be equal.
    """
    names = {name.removeprefix(BACKBONE): name for name in weights}
    if len(names) < len(weights):
        names = {name: name for name in weights}
    return {short: weights[name] for short, name in names.items()}, names


def _coverage(
    state: Mapping[str, Tensor], values: Mapping[str, Tensor], found: Mapping[str, Tensor]
) -> float:
    # A pre-training that predicts from blocks before the last has no last norm: its classifier
    # starts with a new one.
    new = {name for name in _LAST_NORM if name not in found}
    backbone = [name for name in state if not name.startswith(HEAD_NAMES) and name not in new]
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
        if own.is_floating_point() and name in found and other_kind(found[name])
    ]
    if wrong:
        kind = other_kind(found[wrong[0]])
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
