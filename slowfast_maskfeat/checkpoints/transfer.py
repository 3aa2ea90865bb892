"""Carrying weights from a checkpoint into a model that need not be the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.class_names import compare_class_names
from slowfast_maskfeat.checkpoints.naming import NAMINGS, recognise
from slowfast_maskfeat.checkpoints.positions import (
    is_of_images,
    on_another_grid,
    other_form,
    source_layout,
)
from slowfast_maskfeat.checkpoints.report import CLASSIFIER, HEAD_NAMES, LoadReport, shorten
from slowfast_maskfeat.checkpoints.reshape import TokenLayout, reshape_weight
from slowfast_maskfeat.checkpoints.save_load import load_checkpoint
from slowfast_maskfeat.shapes import Grid

_CONTAINERS = ("model_state", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    min_coverage: float = 0.95,
    clear_names: Sequence[str] = (),
    inflate: str = "mean",
    complete: bool = False,
    class_names: Sequence[str] = (),
    average: bool = False,
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> LoadReport:
    """Fill a model from a checkpoint, as far as the two go together.

    Reads files of this package and of PySlowFast (``model_state``), other training codes'
    (``state_dict``, ``model``), bare dicts of names and tensors, and safetensors files; ``module.``
    in front of names is dropped. Entries of the same name are copied, position tables and kernels
    of another size are brought to the model's
    (:func:`slowfast_maskfeat.checkpoints.reshape.reshape_weight`), and position tables of another
    form made (:func:`slowfast_maskfeat.checkpoints.positions.other_form`). What remains, such as a
    classifier of another size, keeps its initial values.

    Deviations from PySlowFast, which only logs them: too little coverage is an error; a joint
    ``pos_embed`` and an image's one are converted; kernels are converted without being asked to.

    Args:
        model: The bare model, on any device. A ``configured_grid`` attribute tells its token grid.
        path: The checkpoint. A ``token_grid`` entry in it, (t, h, w), tells its model's.
        min_coverage: Least share of the backbone that must be filled
            (:attr:`LoadReport.coverage`).
        clear_names: Patterns whose first occurrence is removed from every name in the file
            (``TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN``).
        inflate: How an image's weights become a video's. ``mean`` keeps the response to a still
            clip: kernels repeated along time are divided by their length, and what only a video has
            starts at zero. ``repeat`` is the published way, which does neither.
        complete: Whether all entries, the head's too, must be filled, as testing needs. Of a run
            that averaged its weights, the average is then taken.
        class_names: Of the model's classifier, in its order; empty for unknown. A classifier of
            other classes is not loaded, and is an error with ``complete``; one of the same classes
            in another order always is.
        average: Whether to take the average of a run that kept one, as ``complete`` does.
        rename: Brings the file's weights to the published names, where it has others
            (:mod:`slowfast_maskfeat.checkpoints.naming`).

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: If the file cannot be read, fills too little, or its classes are in another
            order; the model is then unchanged.
    """
    if inflate not in ("mean", "repeat"):
        raise ValueError(f"inflate is {inflate!r}; 'mean' or 'repeat' is right")
    path = Path(path)
    content = load_checkpoint(path)
    if (complete or average) and isinstance(content.get("average_state"), Mapping):
        # What validated is what is tested: the running average, where a run kept one.
        content = {**content, "model_state": content["average_state"]["weights"]}
    found = _clean_names(_find_weights(content, path), clear_names, path)
    if rename is not None:
        found = dict(rename(found))
    state = model.state_dict()
    values, reshaped, refused = _match(
        found,
        state,
        source=source_layout(found, _source_grid(content, path), for_images=is_of_images(state)),
        target=TokenLayout("cls_token" in state, getattr(model, "configured_grid", None)),
        inflate=inflate,
    )
    own_head = [name for name in state if name.startswith(CLASSIFIER)]
    if own_head and all(name in values for name in own_head):
        theirs = content.get("class_names") or ()
        other = compare_class_names(theirs, class_names, path, may_start_anew=not complete)
        if other:
            values = {name: value for name, value in values.items() if name not in own_head}
            refused.update(dict.fromkeys(own_head, f"of other classes, {other}"))
    report = LoadReport(
        path=path,
        loaded=tuple(name for name in state if name in values),
        missing=tuple(name for name in state if name not in values),
        unexpected=tuple(name for name in found if name not in state),
        reshaped=reshaped,
        refused=refused,
        coverage=_coverage(state, values),
        classifier=_explain_classifier(own_head, state, found, refused),
    )
    _check(report, found, values, min_coverage, complete)
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
) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
    """What to fill the model with.

    Returns:
        Values in the model's shapes by name; of these, what was done to them; and the shapes of
        those that did not go together.
    """
    made = other_form(found, state, source=source, target=target, inflate=inflate)
    values: dict[str, Tensor] = {}
    reshaped: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, own in state.items():
        if name not in found and name not in made:
            continue
        weight, steps, layout = found.get(name), [], source
        if weight is None:
            weight, how, layout = made[name]
            steps = [how]
        old, shape = tuple(weight.shape), tuple(own.shape)
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
        if steps:
            reshaped[name] = "; ".join(steps)
    return values, reshaped, refused


def _find_weights(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    held: Any = content
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            held = content[key]
            break
    weights = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(
            f"{path} has no weights in it: its keys are {', '.join(map(str, list(held)[:8]))}; "
            f"tensors by name under one of {', '.join(_CONTAINERS)}, or at the top, are right"
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


def _explain_classifier(
    own_head: Sequence[str],
    state: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    refused: Mapping[str, str],
) -> str:
    """Why the classifier keeps its initial values; empty where it does not, or there is none."""
    for name in own_head:
        if name not in found:
            return "the file has none"
        if name not in refused:
            continue
        theirs, ours = found[name].shape, state[name].shape
        if theirs[1:] == ours[1:] and theirs[0] != ours[0]:
            return f"the file has {theirs[0]} classes, the model {ours[0]}"
        return refused[name]
    return ""


def _coverage(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> float:
    backbone = [name for name in state if not name.startswith(HEAD_NAMES)]
    filled = [name for name in backbone if name in values]
    num_elements = sum(state[name].numel() for name in backbone)
    if not num_elements:
        return 1.0
    of_elements = sum(state[name].numel() for name in filled) / num_elements
    return min(of_elements, len(filled) / len(backbone))


def _check(
    report: LoadReport,
    found: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    min_coverage: float,
    complete: bool,
) -> None:
    broken = [
        name
        for name, value in values.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise ValueError(
            f"{report.path} has weights that are not finite ({shorten(broken)}); a checkpoint "
            "from before its training went wrong is right"
        )
    if report.coverage < min_coverage:
        raise ValueError(
            f"{report.path} fills {report.coverage:.1%} of the backbone, and {min_coverage:.1%} is "
            "the least allowed (TRAIN.CHECKPOINT_MIN_COVERAGE). "
            f"{_guess_why(found, report.path)}\n{report}"
        )
    if complete and report.missing:
        raise ValueError(
            f"{report.path} does not fill the whole model, which testing needs; a checkpoint of "
            f"the same task and number of classes is right.\n{report}"
        )


def _guess_why(found: Mapping[str, Tensor], path: Path) -> str:
    naming = recognise(found)
    if naming:
        return (
            f"Its names look like {NAMINGS[naming].library}'s: python tools/convert_checkpoint.py "
            f"--cfg CFG --input {path} --output {path.with_name(f'{path.stem}_converted.pyth')} "
            "renames them."
        )
    return (
        "Is it of this model? If its names only have something in front, "
        "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN removes that."
    )
