"""Recipes of comparisons: what is compared, on which data, and how it is judged."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.config.shipped import find_shipped
from slowfast_maskfeat.config.yaml_file import read_yaml
from slowfast_maskfeat.runs.comparison.methods import (
    EQUAL_KEYS,
    METHODS,
    NETWORKS,
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
_DATA_KEYS = (
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
        data: folder that replaces `{data}` in the section `data`.
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
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path}: a section has a value of a wrong type: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(
    content: dict[str, Any], path: Path, data: str, methods: Sequence[str], seeds: Sequence[int]
) -> Recipe:
    if not isinstance(content.get("configs"), dict):
        raise ValueError("configs must name a YAML file for pretrain and finetune")
    configs = {stage: path.parent / str(file) for stage, file in content["configs"].items()}
    for stage in ("pretrain", "finetune"):
        if stage not in configs:
            raise ValueError(f"configs must name a YAML file for {stage}, got none")
    _check_names("configs", configs, STAGES)
    published = (content.get("published") or {}).items()
    recipe = Recipe(
        title=str(content.get("title") or path.stem),
        methods=check_methods(methods or content.get("methods") or ()),
        seeds=tuple(dict.fromkeys(int(seed) for seed in seeds or content.get("seeds") or (0,))),
        configs=configs,
        data=_data(content.get("data") or {}, data),
        keys={name: dict(flatten(of)) for name, of in (content.get("keys") or {}).items()},
        needs={name: dict(flatten(of)) for name, of in (content.get("needs") or {}).items()},
        judges=tuple(content.get("judges") or JUDGES),
        few_labels=int(content.get("few_labels", 10)),
        labels_per_class=int(content.get("labels_per_class", 0)),
        hold_out=float(content.get("hold_out", 0.0)),
        grid=_grid(content.get("grid") or {}),
        panel=int(content.get("panel", 4)),
        published={name: (float(of["top1"]), str(of["source"])) for name, of in published},
        notes=tuple(map(str, content.get("notes") or ())),
    )
    _check(recipe)
    return recipe


def _grid(content: Mapping[str, Any]) -> Grid:
    _check_names("grid", content, ("pretrain", "finetune", "epochs", "seed"))
    return Grid(
        pretrain=tuple(map(float, content.get("pretrain") or ())),
        finetune=tuple(map(float, content.get("finetune") or ())),
        epochs=float(content.get("epochs", 0.2)),
        seed=int(content.get("seed", 0)),
    )


def _data(content: Mapping[str, Any], folder: str) -> dict[str, Keys]:
    """Read the section `data` with its folder filled in."""
    found: dict[str, Keys] = {}
    for stage, keys in content.items():
        values = dict(flatten(keys))
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
    for name, value in (("few_labels", recipe.few_labels), ("panel", recipe.panel + 1)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if recipe.labels_per_class < 0 or not 0 <= recipe.hold_out < 1:
        raise ValueError(
            "labels_per_class must be at least 0 and hold_out in [0, 1), got "
            f"{recipe.labels_per_class} and {recipe.hold_out:g}"
        )
    if not 0 < recipe.grid.epochs <= 1:
        raise ValueError(f"grid.epochs must be in (0, 1], got {recipe.grid.epochs:g}")
    for name, keys in recipe.keys.items():
        for key in keys:
            if key in _DATA_KEYS:
                raise ValueError(
                    f"{key} must be in the section data, which all methods share, got it in {name}"
                )
            is_equal = key in EQUAL_KEYS or key == "SOLVER.BASE_LR"  # the rule says its factor
            if is_equal and name in METHODS and find_network(name).stage == "pretrain":
                raise ValueError(f"{key} must be the same for all methods, got it in {name}")


def _check_names(section: str, names: Any, known: tuple[str, ...]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{section} must be among {', '.join(known)}, got {name!r}{_nearest(name, known)}"
            )


def _nearest(name: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
