"""Recipes of comparisons: what is compared, on which data, and how it is judged."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.config.shipped import find_shipped
from slowfast_maskfeat.config.yaml_file import read_yaml
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.runs.comparison.methods import (
    EQUAL_KEYS,
    METHODS,
    NETWORKS,
    SCRATCH,
    check_methods,
    find_network,
)

STAGES = ("pretrain", "tokenizer", "finetune")
PROBES = ("linear", "attentive", "knn")
JUDGES: Mapping[str, str] = {
    "finetune": "fine-tuned",
    "few": "few labels",
    "linear": "linear probe",
    "attentive": "attentive probe",
    "knn": "kNN",
}
"""How a network is judged -> title of its column."""

# Sections of `keys` beside those of stages and networks.
_FURTHER = ("all", "few", *PROBES)
_SECTIONS = (
    *("title", "methods", "seeds", "configs", "data", "keys", "needs", "judges"),
    *("few_labels", "labels_per_class", "hold_out", "grid", "panel", "published", "notes"),
)
# Keys that name samples: only the section `data` sets them, so that no method sees others.
DATA_KEYS = (
    "DATA.PATH_TO_DATA_DIR",
    "DATA.PATH_PREFIX",
    "DATA.TRAIN_SHARDS",
    "DATA.VAL_SHARDS",
    "DATA.TEST_SHARDS",
    "TRAIN.DATASET",
    "TEST.DATASET",
)

Keys = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Learning rates that are tried before the comparison, the same for all methods.

    Attributes:
        pretrain: factors on the learning rate of pre-training; empty: it is not tuned.
        finetune: factors on that of fine-tuning.
        epochs: fraction of the epochs of each training of the grid.
        seed: of these trainings.
    """

    pretrain: tuple[float, ...] = ()
    finetune: tuple[float, ...] = ()
    epochs: float = 0.2
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A comparison.

    Attributes:
        title: of the page.
        methods: names of rows of `METHODS`.
        seeds: of weights, sample order, crops and masks.
        configs: stage -> YAML file that its trainings start from.
        data: stage -> keys that name its samples; tokenizers have those of pre-training.
        keys: stage, network, judge or "all" -> further keys.
        needs: method -> key -> network, where it is another than in its row.
        judges: names of `JUDGES`.
        few_labels: labels per class of the judge `few`.
        labels_per_class: labels per class of fine-tuning and probes; 0: all.
        hold_out: share of the training samples that are the validation split instead; 0: the data
            have one.
        grid: learning rates to try.
        panel: samples in the picture of predictions; 0: none.
        published: method -> (figure, source) that others have published for this setting.
        notes: sentences for the page.
    """

    title: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    configs: Mapping[str, Path]
    data: Mapping[str, Keys] = field(default_factory=dict)
    keys: Mapping[str, Keys] = field(default_factory=dict)
    needs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    judges: tuple[str, ...] = tuple(JUDGES)
    few_labels: int = 10
    labels_per_class: int = 0
    hold_out: float = 0.0
    grid: Grid = field(default_factory=Grid)
    panel: int = 4
    published: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_recipe(
    path: str | Path, *, data: str = "", methods: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file, or the name of one in `configs/`. Paths of configurations are relative to
            its folder.
        data: folder or address that replaces `{data}` in the section `data`.
        methods: instead of the recipe's.
        seeds: instead of the recipe's.

    Raises:
        ValueError: the file is missing or not YAML, or a section is unknown or has a wrong value.
    """
    path = find_shipped(str(path))
    content, twice = read_yaml(path)
    if twice:
        raise ValueError(twice[0])
    for name in content:
        if name not in _SECTIONS:
            raise ValueError(f"{path}: unknown section {name!r}{_nearest(name, _SECTIONS)}")
    try:
        return _parse(content, Path(path), data, methods, seeds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(
    content: dict[str, Any], path: Path, data: str, methods: Sequence[str], seeds: Sequence[int]
) -> Recipe:
    configs = {
        stage: Path(os.path.abspath(path.parent / str(file)))
        for stage, file in _mapping(content, "configs").items()
    }
    for stage in ("pretrain", "finetune"):
        if stage not in configs:
            raise ValueError(f"configs must name a YAML file for {stage}, got none")
    _check_names("configs", configs, STAGES)
    if data and not is_address(data):
        data = os.path.abspath(data)
    recipe = Recipe(
        title=str(content.get("title") or path.stem),
        methods=check_methods(methods or _list(content, "methods", str)),
        seeds=tuple(dict.fromkeys(seeds or _list(content, "seeds", int) or (0,))),
        configs=configs,
        data=_data(content, data),
        keys=_sections(content, "keys"),
        needs=_sections(content, "needs"),
        judges=tuple(dict.fromkeys(_list(content, "judges", str) or JUDGES)),
        few_labels=_number(content, "few_labels", int, 10),
        labels_per_class=_number(content, "labels_per_class", int, 0),
        hold_out=_number(content, "hold_out", float, 0.0),
        grid=_grid(_mapping(content, "grid")),
        panel=_number(content, "panel", int, 4),
        published=_published(content),
        notes=_list(content, "notes", str, may_be_empty=True),
    )
    _check(recipe)
    return recipe


Item = TypeVar("Item", int, float, str)
_KINDS = {int: "whole numbers", float: "numbers", str: "words"}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


def _is_of(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is float and isinstance(value, str):  # YAML reads 1e-3 as a word
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, (int, float) if kind is float else kind)


def _number(
    content: Mapping[str, Any], name: str, kind: type[Item], default: Item, *, within: str = ""
) -> Item:
    """Return a number of a section, which lies within another one."""
    value = content.get(name, default)
    if not _is_of(value, kind):
        a_kind = "a whole number" if kind is int else "a number"
        raise ValueError(f"{within}{name} must be {a_kind}, got {value!r}")
    return kind(value)


def _list(
    content: Mapping[str, Any],
    name: str,
    kind: type[Item],
    *,
    within: str = "",
    may_be_empty: bool = False,
) -> tuple[Item, ...]:
    """Return a list of a section, which lies within another one; none without the section."""
    value = content.get(name)
    values = [] if value is None else value
    if not isinstance(values, list) or not all(_is_of(item, kind) for item in values):
        raise ValueError(f"{within}{name} must be a list of {_KINDS[kind]}, got {value!r}")
    if name in content and not values and not may_be_empty:
        raise ValueError(f"{within}{name} must have at least one entry, got {value!r}")
    return tuple(kind(item) for item in values)


def _mapping(content: Mapping[str, Any], name: str, *, within: str = "") -> Mapping[str, Any]:
    """Return names and values of a section, which lies within another one; none without it."""
    value = content.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{within}{name} must be a section of names and values, got {value!r}")
    return value or {}


def _sections(content: Mapping[str, Any], name: str) -> dict[str, Keys]:
    """Return the keys of each part of a section."""
    section = _mapping(content, name)
    within = f"{name}."
    return {part: dict(flatten(_mapping(section, part, within=within))) for part in section}


def _published(content: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    section = _mapping(content, "published")
    for name in section:
        of = _mapping(section, name, within="published.")
        if not _is_of(of.get("top1"), float) or not of.get("source"):
            raise ValueError(f"published must have a number top1 and a source, got {of} in {name}")
    return {name: (float(of["top1"]), str(of["source"])) for name, of in section.items()}


def _grid(content: Mapping[str, Any]) -> Grid:
    _check_names("grid", content, ("pretrain", "finetune", "epochs", "seed"))
    grid = Grid(
        pretrain=_list(content, "pretrain", float, within="grid.", may_be_empty=True),
        finetune=_list(content, "finetune", float, within="grid.", may_be_empty=True),
        epochs=_number(content, "epochs", float, 0.2, within="grid."),
        seed=_number(content, "seed", int, 0, within="grid."),
    )
    if not all(0 < factor < math.inf for factor in (*grid.pretrain, *grid.finetune)):
        raise ValueError(f"grid must have factors > 0, got {content}")
    return grid


def _data(content: Mapping[str, Any], folder: str) -> dict[str, Keys]:
    """Read the section `data` with its folder filled in."""
    found: dict[str, Keys] = {}
    for stage, values in _sections(content, "data").items():
        if not folder and any("{data}" in str(value) for value in values.values()):
            raise ValueError("--data must be the folder of the data, got none")
        found[stage] = {
            key: value.replace("{data}", folder) if isinstance(value, str) else value
            for key, value in values.items()
        }
    return found


def _check(recipe: Recipe) -> None:
    """Check the names and numbers of a recipe, and that it is fair.

    Raises:
        ValueError: the message says which section must be what.
    """
    rows = (*METHODS, *NETWORKS)
    _check_names("data", recipe.data, ("pretrain", "finetune"))
    _check_names("keys", recipe.keys, (*STAGES, *_FURTHER, *rows))
    _check_names("needs", recipe.needs, rows)
    _check_names("judges", recipe.judges, tuple(JUDGES))
    _check_names("published", recipe.published, tuple(METHODS))
    for networks in recipe.needs.values():
        for network in networks.values():
            find_network(network)
    for name, value, least in (
        ("few_labels", recipe.few_labels, 1),
        ("panel", recipe.panel, 0),
        ("seeds", min(recipe.seeds), 0),
        ("grid.seed", recipe.grid.seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if recipe.labels_per_class < 0 or not 0 <= recipe.hold_out < 1:
        raise ValueError(
            "labels_per_class must be at least 0 and hold_out in [0, 1), got "
            f"{recipe.labels_per_class} and {recipe.hold_out:g}"
        )
    if not 0 < recipe.grid.epochs <= 1:
        raise ValueError(f"grid.epochs must be in (0, 1], got {recipe.grid.epochs:g}")
    for name, keys in recipe.keys.items():
        for key in keys:
            if key in DATA_KEYS:
                raise ValueError(
                    f"{key} must be in the section data, which all methods share, got it in {name}"
                )
            if key.startswith("TRAIN.CHECKPOINT_FILE"):
                raise ValueError(f"{key} is set by the comparison, got it in {name}")
            is_equal = key in EQUAL_KEYS or key == "SOLVER.BASE_LR"  # the rule says its factor
            if name == SCRATCH:  # its training is fine-tuning, whose optimizer may differ
                is_equal = key in EQUAL_KEYS and not key.startswith("SOLVER.")
            if is_equal and name in METHODS:
                raise ValueError(f"{key} must be the same for all methods, got it in {name}")
    for section in ("keys", "needs"):
        if "classifier" in getattr(recipe, section):
            raise ValueError(
                f"{section} must not have classifier, which is the training from scratch; use "
                f"{SCRATCH}"
            )
    if SCRATCH in recipe.needs:
        raise ValueError(f"needs must not have {SCRATCH}, which needs no network")


def _check_names(section: str, names: Any, known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{section} must be among {', '.join(known)}, got {name!r}{_nearest(name, known)}"
            )


def _nearest(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
