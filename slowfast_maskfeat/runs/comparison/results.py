"""Results of a comparison, read from the logs of its pieces."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.comparison.execute import Outcome
from slowfast_maskfeat.runs.comparison.methods import (
    BASELINE,
    METHODS,
    NETWORKS,
    SCRATCH,
    find_network,
)
from slowfast_maskfeat.runs.comparison.pieces import Piece, Plan, piece_name
from slowfast_maskfeat.runs.comparison.recipe import PROBES

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """Values of a quantity by seed.

    Attributes:
        values: seed -> value.
    """

    values: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without any."""
        return statistics.mean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of several seeds; None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return all as numbers."""
        values = {str(seed): value for seed, value in self.values.items()}
        return {"mean": self.mean, "std": self.deviation, "values": values}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Differences from the baseline, seed by seed.

    Attributes:
        differences: seed -> method minus baseline.
    """

    differences: Mapping[int, float]

    @property
    def mean(self) -> float | None:
        """Mean difference; None without a common seed."""
        return Statistic(values=self.differences).mean

    @property
    def num_won(self) -> int:
        """Seeds in which the method is better."""
        return sum(difference > 0 for difference in self.differences.values())

    def as_dict(self) -> dict[str, Any]:
        """Return all as numbers."""
        found = Statistic(values=self.differences).as_dict()
        return {**found, "won": self.num_won, "seeds": len(self.differences)}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Accuracy while fine-tuning, of one seed: (epoch, top-1 in percent)."""

    training: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a method before fine-tuning.

    Attributes:
        seconds: of its pre-training and of all networks that it needs.
        own_seconds: of the pre-training alone.
        multiply_adds: of the forward pass of one sample in pre-training, in millions, without those
            of other networks.
        memory: peak resident set of the pre-training, in MiB.
        gpu_memory: peak of the GPU, in MiB.
        networks: title of each further network -> millions of parameters.
        labels: labels that any of these trainings saw.
        is_partial: some of the seconds are not known.
    """

    seconds: Statistic
    own_seconds: Statistic
    multiply_adds: Statistic
    memory: Statistic
    gpu_memory: Statistic
    networks: Mapping[str, float]
    labels: int
    is_partial: bool = False


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """Results of a method in a comparison.

    Attributes:
        name: of the method.
        title: for people.
        accuracy: judge -> top-1 on the test split, in percent.
        gap: training minus validation top-1 after the last epoch of fine-tuning.
        paired: judge -> differences from the baseline; empty for the baseline itself.
        curves: seed -> accuracy while fine-tuning.
        cost: before fine-tuning.
        rates: stage -> learning rate, where a grid chose it.
        failures: piece -> reason.
    """

    name: str
    title: str
    accuracy: Mapping[str, Statistic]
    gap: Statistic
    paired: Mapping[str, Paired]
    curves: Mapping[int, Curves]
    cost: Cost
    rates: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


def read_results(
    plan: Plan, output: Path, outcomes: Mapping[str, Outcome]
) -> dict[str, MethodResult]:
    """Read what is known so far.

    Args:
        plan: of the comparison.
        output: its folder.
        outcomes: how the pieces ended.

    Returns:
        Method -> result, in the order of the recipe.
    """
    reader = _Reader(plan, output, outcomes)
    accuracy = {
        method: {judge: reader.accuracy(method, judge) for judge in plan.recipe.judges}
        for method in plan.recipe.methods
    }
    return {
        method: MethodResult(
            name=method,
            title=METHODS[method].title,
            accuracy=accuracy[method],
            gap=reader.gap(method),
            paired=_paired(accuracy, method),
            curves=reader.curves(method),
            cost=reader.cost(method),
            rates=reader.rates(method),
            failures=reader.failures(method),
        )
        for method in plan.recipe.methods
    }


def _paired(accuracy: Mapping[str, Mapping[str, Statistic]], method: str) -> dict[str, Paired]:
    if method == BASELINE or BASELINE not in accuracy:
        return {}
    return {
        judge: Paired(
            differences={
                seed: value - accuracy[BASELINE][judge].values[seed]
                for seed, value in found.values.items()
                if seed in accuracy[BASELINE][judge].values
            }
        )
        for judge, found in accuracy[method].items()
    }


def read_environment(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Return what the trainings ran on: torch, device and processes, each once."""
    found: dict[str, dict[str, None]] = {}
    for name, outcome in outcomes.items():
        path = event_log_path(output / plan.pieces[name].folder)
        if outcome.is_done and path.is_file():
            start = next((e for e in read_events(path) if e["event"] == "start"), {})
            for title, of_start in (
                ("torch", "torch"),
                ("device", "device"),
                ("processes", "num_processes"),
            ):
                if of_start in start:
                    found.setdefault(title, {})[str(start[of_start])] = None
    return {name: ", ".join(values) for name, values in found.items()}


def read_chance(plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> float | None:
    """Return the share of the most frequent class in the test, in percent; None before a test."""
    for name, outcome in outcomes.items():
        path = output / plan.pieces[name].folder / "report.json"
        if outcome.is_done and plan.pieces[name].kind == "finetune" and path.is_file():
            try:
                classes = json.loads(path.read_text(encoding="utf-8"))["classes"]
                supports = [of_class["support"] for of_class in classes]
                return 100 * float(max(supports) / sum(supports))
            except (ValueError, KeyError, TypeError, ZeroDivisionError):  # not one of a test
                continue
    return None


class _Reader:
    """Reads logs of pieces that are done."""

    def __init__(self, plan: Plan, output: Path, outcomes: Mapping[str, Outcome]) -> None:
        self._plan = plan
        self._output = output
        self._outcomes = outcomes
        self._logs: dict[str, list[dict[str, Any]]] = {}

    def _is_done(self, name: str) -> bool:
        return name in self._outcomes and self._outcomes[name].is_done

    def _events(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind in the log of a piece; none if the piece is not done."""
        if not self._is_done(name):
            return []
        folder = self._plan.pieces[name].folder
        if folder not in self._logs:
            self._logs[folder] = read_events(event_log_path(self._output / folder))
        return [event for event in self._logs[folder] if event["event"] == kind]

    def _by_seed(self, values: Mapping[int, float | None]) -> Statistic:
        return Statistic(values={seed: x for seed, x in values.items() if x is not None})

    def accuracy(self, method: str, judge: str) -> Statistic:
        """Return top-1 on the test split."""
        found: dict[int, float | None] = {}
        for seed in self._plan.recipe.seeds:
            name = piece_name(seed, method, judge)
            events = self._events(name, "probe" if judge in PROBES else "test")
            found[seed] = next(
                (e["top1"] for e in reversed(events) if e.get("kind", judge) == judge), None
            )
        return self._by_seed(found)

    def curves(self, method: str) -> dict[int, Curves]:
        """Return the accuracy while fine-tuning; a resumed epoch counts once."""
        found = {}
        for seed in self._plan.recipe.seeds:
            name = piece_name(seed, method, "finetune")
            training, validation = (
                sorted(
                    {e["epoch"]: e["top1"] for e in self._events(name, kind) if "top1" in e}.items()
                )
                for kind in ("epoch", "validation")
            )
            if validation:
                found[seed] = Curves(training=training, validation=validation)
        return found

    def gap(self, method: str) -> Statistic:
        """Return training minus validation top-1 after the last epoch of fine-tuning."""
        return self._by_seed(
            {
                seed: curves.training[-1][1] - curves.validation[-1][1]
                for seed, curves in self.curves(method).items()
                if curves.training
            }
        )

    def cost(self, method: str) -> Cost:
        """Return the cost of a method before fine-tuning."""
        names = {
            seed: piece_name(seed, method, "pretrain")
            for seed in self._plan.recipe.seeds
            if self._is_done(piece_name(seed, method, "pretrain"))
        }
        if method == SCRATCH:
            names = {}
        makers = {seed: self._plan.makers(name) for seed, name in names.items()}
        first = next(iter(makers.values()), ())
        own = {seed: self._outcomes[name] for seed, name in names.items()}
        return Cost(
            own_seconds=Statistic(values={seed: end.seconds for seed, end in own.items()}),
            seconds=Statistic(
                values={
                    seed: own[seed].seconds + sum(self._outcomes[n].seconds for n in makers[seed])
                    for seed in names
                }
            ),
            multiply_adds=self._by_seed(
                {seed: self._started(name, "multiply_adds", 1e6) for seed, name in names.items()}
            ),
            memory=Statistic(
                values={s: end.peak_memory / 2**20 for s, end in own.items() if end.peak_memory}
            ),
            gpu_memory=self._by_seed(
                {seed: self._gpu_memory(name) for seed, name in names.items()}
            ),
            networks={
                self._network_title(name): self._started(name, "num_parameters", 1e6) or 0.0
                for name in first
            },
            labels=max((self._labels(name) for name in first), default=0),
            is_partial=any(
                self._outcomes[name].is_partial
                for seed, own_name in names.items()
                for name in (own_name, *makers[seed])
            ),
        )

    def _started(self, name: str, field_name: str, unit: float) -> float | None:
        """Return a number of the first `start` event that has it, in a unit."""
        found = (event.get(field_name) for event in self._events(name, "start"))
        value = next((value for value in found if value is not None), None)
        return None if value is None else value / unit

    def _gpu_memory(self, name: str) -> float | None:
        peaks = [e["memory_gib"] * 1024 for e in self._events(name, "train") if "memory_gib" in e]
        return max(peaks, default=None)

    def _labels(self, name: str) -> int:
        """Return how many labels a training saw: all of its samples', if it classifies them."""
        if self._plan.pieces[name].kind != "finetune":
            return 0
        return max((event["num_expected"] for event in self._events(name, "epoch")), default=0)

    def _network_title(self, name: str) -> str:
        network = name.split("/")[1]
        if self._plan.pieces[name].kind == "finetune":
            return NETWORKS["classifier"].title
        return find_network(network).title

    def rates(self, method: str) -> dict[str, float]:
        """Return the learning rates that the grid chose."""
        found = {}
        for stage in ("pretrain", "finetune"):
            outcome = self._outcomes.get(piece_name(self._plan.recipe.seeds[0], method, stage))
            if outcome is not None and outcome.rate is not None:
                found[stage] = outcome.rate
        return found

    def failures(self, method: str) -> dict[str, str]:
        """Return the pieces of a method that failed, with the reason."""
        return {
            name: outcome.reason
            for name, outcome in self._outcomes.items()
            if outcome.reason and self._is_of(self._plan.pieces[name], method)
        }

    def _is_of(self, piece: Piece, method: str) -> bool:
        return piece.name.split("/")[1] == method
