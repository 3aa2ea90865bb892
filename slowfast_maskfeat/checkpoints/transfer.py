"""Carrying weights from a checkpoint into a model that need not be the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slowfast_maskfeat.checkpoints.reshape import TokenLayout, reshape_weight
from slowfast_maskfeat.checkpoints.save_load import load_checkpoint
from slowfast_maskfeat.shapes import Grid

_CONTAINERS = ("model_state", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
# What a task puts behind, or for the time of pre-training into, the backbone.
_HEAD_NAMES = ("head.", "pred_head.", "decoder_", "dec_", "mask_token")
_PRETRAINING_NAMES = ("pred_head.", "decoder_", "dec_", "mask_token", "hogs.")


@dataclass(frozen=True)
class LoadReport:
    """What came of loading weights; ``str()`` of it is a short table.

    Attributes:
        path: The file.
        loaded: Names in the model that were filled, those reshaped included.
        missing: Names in the model that kept their initial values.
        unexpected: Names in the file that the model has no use for.
        reshaped: Of the loaded, name to what was done to its shape.
        refused: Of the missing, name to the shapes that did not go together.
        coverage: Filled share of the backbone, 0 to 1: the smaller of the share of its entries and
            of its elements. The backbone is all but the heads, decoders and the mask token.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    coverage: float = 1.0

    @property
    def missing_head(self) -> tuple[str, ...]:
        """The missing names outside the backbone."""
        return tuple(name for name in self.missing if name.startswith(_HEAD_NAMES))

    def __str__(self) -> str:
        harmless = [name for name in self.unexpected if name.startswith(_PRETRAINING_NAMES)]
        strange = [name for name in self.unexpected if not name.startswith(_PRETRAINING_NAMES)]
        lines = [f"weights from {self.path}"]
        rows: list[tuple[str, int, str]] = [
            ("loaded", len(self.loaded), f"{self.coverage:.1%} of the backbone"),
            ("reshaped", len(self.reshaped), _shorten(list(_pairs(self.reshaped)), "; ")),
            ("left as initialised", len(self.missing), _shorten(_grouped(self.missing))),
            ("of another shape", len(self.refused), _shorten(list(_pairs(self.refused)), "; ")),
            ("unused, of pre-training", len(harmless), _shorten(_grouped(harmless))),
            ("unused, not in the model", len(strange), _shorten(_grouped(strange))),
        ]
        lines += [f"  {title:<24} {count:>5}  {text}" for title, count, text in rows if count]
        return "\n".join(lines)


def _pairs(notes: Mapping[str, str]) -> list[str]:
    return [f"{name} {note}" for name, note in notes.items()]


def _grouped(names: Sequence[str]) -> list[str]:
    """Names with a common first part as one: ``pred_head.* (4)``."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return [
        group[0] if len(group) == 1 else f"{first}.* ({len(group)})"
        for first, group in groups.items()
    ]


def _shorten(parts: Sequence[str], separator: str = ", ") -> str:
    more = [f"and {len(parts) - 4} more"] if len(parts) > 4 else []
    return separator.join([*parts[:4], *more])


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    min_coverage: float = 0.95,
    clear_names: Sequence[str] = (),
    inflate: str = "mean",
    complete: bool = False,
) -> LoadReport:
    """Fill a model from a checkpoint, as far as the two go together.

    Reads files of this package and of PySlowFast (``model_state``), other training codes'
    (``state_dict``, ``model``) and bare dicts of names and tensors; ``module.`` in front of names
    is dropped. Entries of the same name are copied, position tables and kernels of another size are
    brought to the model's (:func:`slowfast_maskfeat.checkpoints.reshape.reshape_weight`). An
    image's ``pos_embed`` fills a video's ``pos_embed_spatial`` and ``pos_embed_class``, and the
    other way round. What remains, such as a classifier of another size, keeps its initial values.

    Deviations from PySlowFast, which only logs them: too little coverage is an error; a joint
    ``pos_embed`` and an image's one are converted; kernels are converted without being asked to.

    Args:
        model: The bare model, on any device. A ``configured_grid`` attribute tells its token grid.
        path: The checkpoint. A ``token_grid`` entry in it, (t, h, w), tells its model's.
        min_coverage: Least share of the backbone that must be filled
            (:attr:`LoadReport.coverage`).
        clear_names: Patterns whose first occurrence is removed from every name in the file
            (``TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN``).
        inflate: ``mean`` or ``repeat``: see ``reshape_weight``.
        complete: Whether all entries, the head's too, must be filled, as testing needs. Of a run
            that averaged its weights, the average is then taken.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: If the file cannot be read, or fills too little; the model is then unchanged.
    """
    if inflate not in ("mean", "repeat"):
        raise ValueError(f"inflate is {inflate!r}; 'mean' or 'repeat' is right")
    path = Path(path)
    content = load_checkpoint(path)
    if complete and isinstance(content.get("average_state"), Mapping):
        # What validated is what is tested: the running average, where a run kept one.
        content = {**content, "model_state": content["average_state"]["weights"]}
    found = _clean_names(_find_weights(content, path), clear_names, path)
    state = model.state_dict()
    source = TokenLayout("cls_token" in found, _source_grid(content))
    target = TokenLayout("cls_token" in state, getattr(model, "configured_grid", None))
    available = {**found, **_derived_positions(found, state)}

    values: dict[str, Tensor] = {}
    reshaped: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, own in state.items():
        if name not in available:
            continue
        weight, shape = available[name], tuple(own.shape)
        if tuple(weight.shape) == shape:
            values[name] = weight
            continue
        shapes = f"{tuple(weight.shape)} -> {shape}"
        change = reshape_weight(name, weight, shape, source=source, target=target, inflate=inflate)
        if change is None:
            refused[name] = shapes
        else:
            assert tuple(change.value.shape) == shape, name
            values[name] = change.value
            reshaped[name] = f"{shapes}, {change.how}"
    for name in values.keys() - found.keys():
        reshaped.setdefault(name, "from the other form of position table")
    report = LoadReport(
        path=path,
        loaded=tuple(name for name in state if name in values),
        missing=tuple(name for name in state if name not in values),
        unexpected=tuple(name for name in found if name not in state),
        reshaped=reshaped,
        refused=refused,
        coverage=_coverage(state, values),
    )
    _check(report, values, min_coverage, complete)
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
    return report


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


def _clean_names(
    weights: Mapping[str, Tensor], clear_names: Sequence[str], path: Path
) -> dict[str, Tensor]:
    cleaned: dict[str, Tensor] = {}
    for name, value in weights.items():
        short = name
        for pattern in clear_names:
            short = short.replace(pattern, "", 1)
        while short.startswith(_WRAPPERS):
            short = short.partition(".")[2]
        if short in cleaned:
            raise ValueError(
                f"after removing {list(clear_names)} from the names in {path}, two are {short!r}; "
                "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN should say what all names to be used have in "
                "front"
            )
        cleaned[short] = value
    return cleaned


def _source_grid(content: Mapping[str, Any]) -> Grid | None:
    grid = content.get("token_grid")
    return None if grid is None else Grid(*grid)


def _derived_positions(
    found: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Position tables in the form the model has them, where only one of the two is of images."""
    derived: dict[str, Tensor] = {}
    if "pos_embed_spatial" in state and "pos_embed" in found and _is_of_images(found):
        front = int("cls_token" in found)
        derived["pos_embed_spatial"] = found["pos_embed"][:, front:]
        if front:
            derived["pos_embed_class"] = found["pos_embed"][:, :1]
    elif "pos_embed" in state and "pos_embed_spatial" in found and _is_of_images(state):
        parts = [found[n] for n in ("pos_embed_class", "pos_embed_spatial") if n in found]
        derived["pos_embed"] = torch.cat(parts, dim=1)
    return {name: table for name, table in derived.items() if name not in found}


def _is_of_images(weights: Mapping[str, Tensor]) -> bool:
    kernel = weights.get("patch_embed.proj.weight")
    return kernel is not None and kernel.ndim == 4


def _coverage(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> float:
    backbone = [name for name in state if not name.startswith(_HEAD_NAMES)]
    filled = [name for name in backbone if name in values]
    num_elements = sum(state[name].numel() for name in backbone)
    if not num_elements:
        return 1.0
    of_elements = sum(state[name].numel() for name in filled) / num_elements
    return min(of_elements, len(filled) / len(backbone))


def _check(
    report: LoadReport, values: Mapping[str, Tensor], min_coverage: float, complete: bool
) -> None:
    broken = [
        name
        for name, value in values.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise ValueError(
            f"{report.path} has weights that are not finite ({_shorten(broken)}); a checkpoint "
            "from before its training went wrong is right"
        )
    if report.coverage < min_coverage:
        raise ValueError(
            f"{report.path} fills {report.coverage:.1%} of the backbone, and {min_coverage:.1%} is "
            "the least allowed (TRAIN.CHECKPOINT_MIN_COVERAGE). Is it of this model? If its names "
            "only have something in front, TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN removes that.\n"
            f"{report}"
        )
    if complete and report.missing:
        raise ValueError(
            f"{report.path} does not fill the whole model, which testing needs; a checkpoint of "
            f"the same task and number of classes is right.\n{report}"
        )
