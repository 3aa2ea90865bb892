"""The runs of a comparison, in the order in which they can be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import yaml

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.config import check_pair, key_value
from slowfast_maskfeat.runs.comparison.methods import (
    EQUAL_KEYS,
    SCRATCH,
    ComparedNetwork,
    find_network,
    local_crop_size,
    rate_factor,
)
from slowfast_maskfeat.runs.comparison.pieces import Piece, Plan, piece_name, quiet_config
from slowfast_maskfeat.runs.comparison.recipe import DATA_KEYS, JUDGES, PROBES, Grid, Recipe
from slowfast_maskfeat.runs.shorter import shorter_schedule

_TASKS = {"pretrain": "ssl", "tokenizer": "tokenizer", "finetune": "ssl_eval"}
_OF_ONE_PIECE = ("RNG_SEED", "SOLVER.BASE_LR")
_START = "TRAIN.CHECKPOINT_FILE_PATH"
_OF_THE_COMPARISON = ("RNG_SEED", "TASK", "OUTPUT_DIR", "PROBE.KIND", _START)
# Keys that select a method: the others of a row are its settings, which a recipe may change.
_OF_A_METHOD = (
    "MODEL.MODEL_NAME",
    "MODEL.ARCH",
    "MASK.ENABLE",
    "MASK.TARGET",
    "MASK.MAE_ON",
    "CONTRASTIVE.TYPE",
    "TOKENIZER.TYPE",
)

DataKeys = Mapping[str, Mapping[str, Any]]
"""Part of the data -> the keys that name it: "pretrain", "finetune", "few"."""


def stage_keys(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return the keys of a recipe for a stage, whatever the method."""
    return {**recipe.keys.get("all", {}), **recipe.keys.get(stage, {})}


def make_plan(recipe: Recipe, data: DataKeys, pairs: Sequence[str] = ()) -> Plan:
    """Plan the pieces of a comparison.

    Args:
        recipe: what is compared.
        data: see `DataKeys`.
        pairs: `["KEY", "VALUE", ...]` over the keys of all pieces.

    Raises:
        ValueError: the configuration of fine-tuning or the baseline is not valid, networks need
            each other, or a key that must be the same for all methods is not.
    """
    if len(pairs) % 2:
        raise ValueError(f"--opts must be pairs KEY VALUE, but {pairs[-1]!r} has no value")
    for key in pairs[::2]:
        if key in DATA_KEYS:
            raise ValueError(f"{key} must be in the section data of the recipe, got it in --opts")
        if key in _OF_THE_COMPARISON:
            raise ValueError(f"{key} is set by the comparison, got it in --opts")
    _check_keys(recipe)
    planner = _Planner(recipe, data, dict(zip(pairs[::2], pairs[1::2], strict=True)))
    for method in recipe.methods:  # all methods of a seed before the next seed
        planner.tune(method)
    for seed in recipe.seeds:
        for method in recipe.methods:
            planner.judge(method, seed)
    plan = Plan(recipe=recipe, pieces=planner.pieces)
    _check_equal(plan)
    return plan


def _check_keys(recipe: Recipe) -> None:
    """Check that there are the keys that a recipe names, and that their values have their types."""
    for file in recipe.configs.values():
        with suppress(ValueError):  # the runs report it
            quiet_config([str(file)], [])  # imports what adds keys
    for section in ("data", "keys", "needs"):
        for name, keys in getattr(recipe, section).items():
            for key, value in keys.items():
                check_pair(key, value, source=f"{section}.{name}")


def _check_equal(plan: Plan) -> None:
    """Check that the pre-trainings of all methods agree in `EQUAL_KEYS`."""
    first: dict[str, tuple[str, Any]] = {}
    seed = plan.recipe.seeds[0]
    for method in plan.recipe.methods:
        piece = plan.pieces.get(piece_name(seed, method, "pretrain"))
        if piece is None or piece.problem:
            continue
        cfg = piece.config()
        for key in EQUAL_KEYS:
            other, value = first.setdefault(key, (method, key_value(cfg, key)))
            if value != key_value(cfg, key):
                raise ValueError(
                    f"{key} must be the same for all methods, got {value!r} for {other} and "
                    f"{key_value(cfg, key)!r} for {method}"
                )


class _Planner:
    """Adds pieces, each after those that it needs."""

    def __init__(self, recipe: Recipe, data: DataKeys, own: Mapping[str, str]) -> None:
        self.pieces: dict[str, Piece] = {}
        self._recipe = recipe
        self._data = data
        self._own = own
        self._problems: dict[tuple[object, ...], str] = {}  # of the configurations that are known
        self._open: list[str] = []  # networks that are being planned, to find cycles
        finetune = quiet_config(*self._words("finetune", self._keys("finetune", "finetune")))
        pretrain = quiet_config(*self._words("pretrain", self._keys("pretrain", "pretrain")))
        self._configs = {"finetune": finetune, "pretrain": pretrain}
        self._is_video = pretrain.DATA.NUM_FRAMES > 1

    def tune(self, method: str) -> None:
        """Plan the grid of a method: short trainings with each learning rate."""
        grid = self._recipe.grid
        for factor in grid.pretrain if method != SCRATCH else ():
            name = _grid_name(method, "pretrain", factor)
            rate = self._rate(method, "pretrain") * factor
            self._train(method, grid.seed, name=f"{name}/pretrain", short=True, rate=rate)
            self._finetune(method, grid.seed, f"{name}/finetune", start=f"{name}/pretrain")
        start = "" if method == SCRATCH or not grid.finetune else self.network(method, grid.seed)
        for factor in grid.finetune:
            name = _grid_name(method, "finetune", factor)
            rate = self._rate(method, "finetune") * factor
            self._finetune(method, grid.seed, name, start=start, rate=rate)

    def judge(self, method: str, seed: int) -> None:
        """Plan the pre-training of a method with a seed, and all that judges it."""
        start = "" if method == SCRATCH else self.network(method, seed)
        for judge in JUDGES:
            if judge in self._recipe.judges or (method == SCRATCH and judge == "finetune"):
                self._judge(method, seed, judge, start)

    def network(self, name: str, seed: int) -> str:
        """Plan the training of a network with those that it needs; return the piece."""
        if name in ("classifier", SCRATCH):
            return self._judge(SCRATCH, seed, "finetune", "")
        piece = piece_name(seed, name, "pretrain")
        if piece not in self.pieces:
            self._train(name, seed, name=piece)
        return piece

    def _train(
        self, name_of: str, seed: int, *, name: str, short: bool = False, rate: float | None = None
    ) -> None:
        """Plan one training of a network.

        Args:
            name_of: the network.
            seed: of the training.
            name: of the piece.
            short: of the grid, with fewer epochs.
            rate: learning rate of the grid; None: the chosen one, or that of the rule.
        """
        if name_of in self._open:
            cycle = " -> ".join((*self._open, name_of))
            raise ValueError(f"needs: networks must not need each other, got {cycle}")
        self._open.append(name_of)
        row = find_network(name_of)
        needs = {**row.needs, **self._recipe.needs.get(name_of, {})}
        checkpoints = {key: self.network(needed, seed) for key, needed in needs.items()}
        self._open.pop()
        own = self._own_keys(row)
        keys = self._keys(row.stage, "pretrain", own, name_of)
        for key in _OF_A_METHOD:
            if key in own and yaml.safe_load(keys[key]) != own[key]:
                raise ValueError(
                    f"{key} must be {own[key]!r} for {name_of}, which it defines, got "
                    f"{keys[key]!r} in the recipe or --opts"
                )
        keys |= {"TEST.ENABLE": "False", "RNG_SEED": str(seed)}
        rates = {}
        if row.stage == "pretrain":
            keys["SOLVER.BASE_LR"] = _text(
                self._rate(name_of, "pretrain") if rate is None else rate
            )
            if rate is None and name_of in self._recipe.methods:
                rates = self._rates(name_of, "pretrain")
        words = self._words(row.stage, keys)
        keys |= self._shortened(words) if short else {}
        self._add(
            row.stage,
            name,
            f"{row.title}: {'grid, ' if short else ''}training, seed {seed}",
            keys,
            checkpoints=checkpoints,
            rates=rates,
        )

    def _own_keys(self, row: ComparedNetwork) -> dict[str, Any]:
        """Return what a row sets for the recipe's kind of data and size of clips."""
        keys = {**row.keys, **(row.video_keys if self._is_video else row.image_keys)}
        if "DATA.SSL_LOCAL_VIEWS" in keys:
            cfg = self._configs["pretrain"]
            size = local_crop_size(cfg.DATA.TRAIN_CROP_SIZE, max(cfg.MVIT.PATCH_STRIDE[1:]))
            keys["DATA.SSL_LOCAL_CROP_SIZE"] = size
        return keys

    def _judge(self, method: str, seed: int, judge: str, start: str) -> str:
        name = piece_name(seed, method, judge)
        if name in self.pieces:
            return name
        if judge in PROBES:
            keys = self._keys("finetune", "finetune", self._recipe.keys.get(judge, {}))
            keys |= {"RNG_SEED": str(seed), "PROBE.KIND": judge}
            title = f"{find_network(method).title}: {JUDGES[judge]}, seed {seed}"
            folder = piece_name(seed, method, "probes")
            self._add("finetune", name, title, keys, kind=judge, folder=folder, start=start)
        else:
            self._finetune(method, seed, name, start=start, judge=judge)
        return name

    def _finetune(
        self,
        method: str,
        seed: int,
        name: str,
        *,
        start: str,
        judge: str = "",
        rate: float | None = None,
    ) -> None:
        """Plan a fine-tuning; without a judge it is one of the grid, short and without a test."""
        part = judge if judge == "few" else "finetune"
        more = self._recipe.keys.get(SCRATCH, {}) if method == SCRATCH else {}
        if judge == "few":
            more = {**more, **self._recipe.keys.get("few", {})}
        keys = self._keys("finetune", part, more)
        # Counting multiply-adds takes seconds; those of a classifier are a cost of pseudo-labels.
        is_counted = method == SCRATCH and judge == "finetune"
        keys |= {"RNG_SEED": str(seed), "LOG_MODEL_INFO": str(is_counted)}
        keys["TRAIN.CHECKPOINT_EPOCH_RESET"] = "True"
        keys["TEST.ENABLE"] = str(bool(judge))
        is_given = judge == "few" and "SOLVER.BASE_LR" in self._recipe.keys.get("few", {})
        rates = self._rates(method, "finetune") if judge and not is_given else {}
        if rate is not None:
            keys["SOLVER.BASE_LR"] = _text(rate)
        if not judge:
            keys |= self._shortened(self._words("finetune", keys))
        text = JUDGES[judge] if judge else "grid, fine-tuned"
        title = f"{find_network(method).title}: {text}, seed {seed}"
        self._add("finetune", name, title, keys, kind=judge or "grid", start=start, rates=rates)

    def _add(
        self,
        stage: str,
        name: str,
        title: str,
        keys: Mapping[str, str],
        *,
        kind: str = "",
        folder: str = "",
        start: str = "",
        checkpoints: Mapping[str, str] | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        file = self._recipe.configs.get(stage)
        problem = "" if file else f"configs must name a YAML file for {stage}, got none"
        piece = Piece(
            name=name,
            title=title,
            kind=kind or stage,
            folder=folder or name,
            task=_TASKS[stage],
            file=str(file or ""),
            keys=keys,
            checkpoints={_START: start} if start else dict(checkpoints or {}),
            rates=dict(rates or {}),
        )
        self.pieces[name] = replace(piece, problem=problem or self._problem(piece))

    def _problem(self, piece: Piece) -> str:
        """Return why a piece cannot run; its seed and rate do not matter."""
        keys = {key: x for key, x in piece.keys.items() if key not in _OF_ONE_PIECE}
        known = (piece.file, *keys.items())
        if known not in self._problems:
            try:
                _check_piece(piece)
                self._problems[known] = ""
            except ValueError as error:
                self._problems[known] = str(error)
        return self._problems[known]

    def _keys(
        self, stage: str, part: str, more: Mapping[str, Any] | None = None, name: str = ""
    ) -> dict[str, str]:
        """Merge the keys of a piece: stage, method, recipe's method, data, command line."""
        keys = {
            **stage_keys(self._recipe, stage),
            **(more or {}),
            **self._recipe.keys.get(name, {}),
            **self._data.get(part, {}),
            **self._own,
            "TASK": _TASKS[stage],
        }
        return {key: _text(value) for key, value in keys.items()}

    def _words(self, stage: str, keys: Mapping[str, str]) -> tuple[list[str], list[str]]:
        file = self._recipe.configs.get(stage)
        return [str(file)] if file else [], [word for pair in keys.items() for word in pair]

    def _shortened(self, words: tuple[list[str], list[str]]) -> dict[str, str]:
        try:
            pairs = shorter_schedule(quiet_config(*words), self._recipe.grid.epochs)
        except ValueError:  # the piece itself reports it
            return {}
        return dict(zip(pairs[::2], pairs[1::2], strict=True))

    def _rate(self, method: str, stage: str) -> float:
        """Return the learning rate of a method without tuning."""
        if stage == "pretrain":
            row: ComparedNetwork = find_network(method)
            return float(self._configs[stage].SOLVER.BASE_LR) * rate_factor(row)
        keys = {**(self._recipe.keys.get(SCRATCH, {}) if method == SCRATCH else {}), **self._own}
        return float(keys.get("SOLVER.BASE_LR", self._configs[stage].SOLVER.BASE_LR))

    def _rates(self, method: str, stage: str) -> dict[str, float]:
        """Return the pieces of the grid of a stage with the rates that they stand for."""
        grid: Grid = self._recipe.grid
        if stage == "pretrain":
            return {
                f"{_grid_name(method, stage, factor)}/finetune": self._rate(method, stage) * factor
                for factor in grid.pretrain
            }
        if method not in self._recipe.methods:
            return {}
        return {
            _grid_name(method, stage, factor): self._rate(method, stage) * factor
            for factor in grid.finetune
        }


def _check_piece(piece: Piece) -> None:
    """Check the configuration of a piece, its views and masks, and that its network can be built.

    Those of other networks, which are not there yet, and of classes, whose names the data have, are
    built when the piece runs.

    Raises:
        ValueError: it cannot run.
    """
    cfg = piece.config()
    method = find_method(cfg)
    method.views(cfg)
    method.masks(cfg)
    if piece.task != _TASKS["finetune"] and not piece.checkpoints:
        with torch.device("meta"):  # no memory, and no initial values
            build_model(cfg)


def _grid_name(method: str, stage: str, factor: float) -> str:
    return f"grid/{method}/{stage}_x{factor:g}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
