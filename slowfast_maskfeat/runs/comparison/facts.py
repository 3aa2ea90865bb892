"""Conditions of a comparison: settings that are equal, that differ, and limits of the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slowfast_maskfeat.config import key_value
from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.runs.comparison.methods import BASELINE, EQUAL_KEYS, METHODS, RATE_RULE
from slowfast_maskfeat.runs.comparison.plan import Plan, piece_name
from slowfast_maskfeat.runs.comparison.results import MethodResult

_COST_RATIO = 1.25  # of seconds, from which methods of equal epochs have unequal budgets
# Keys that differ without making another method.
_NOT_OF_A_METHOD = ("OUTPUT_DIR", "LOG_MODEL_INFO")


class Difference(NamedTuple):
    """A key of pre-training that a method has another value of than the baseline."""

    key: str
    value: Any
    baseline: Any


def equal_values(plan: Plan) -> dict[str, Any]:
    """Return the keys of pre-training that all methods share, with their values."""
    for method in plan.recipe.methods:
        piece = plan.pieces.get(piece_name(plan.recipe.seeds[0], method, "pretrain"))
        if piece is not None and not piece.problem:
            cfg = piece.config()
            return {key: key_value(cfg, key) for key in EQUAL_KEYS}
    return {}


def differences(plan: Plan) -> dict[str, list[Difference]]:
    """Return the keys in which the pre-training of each method differs from the baseline's."""
    values = {}
    for method in plan.recipe.methods:
        piece = plan.pieces.get(piece_name(plan.recipe.seeds[0], method, "pretrain"))
        if piece is not None and not piece.problem:
            values[method] = dict(flatten(piece.config()))
    baseline = values.pop(BASELINE, None)
    if baseline is None:
        return {}
    return {
        method: [
            Difference(key, value, baseline[key])
            for key, value in found.items()
            if value != baseline[key] and key not in _NOT_OF_A_METHOD
        ]
        for method, found in values.items()
    }


def tuning(plan: Plan) -> str:
    """Return a sentence that says what was tuned, and how."""
    grid = plan.recipe.grid
    tried = [
        f"the learning rate of {name} times {', '.join(f'{factor:g}' for factor in factors)}"
        for name, factors in (
            ("pre-training", grid.pretrain),
            ("fine-tuning", grid.finetune),
        )
        if factors
    ]
    if not tried:
        return (
            "No learning rate of pre-training or fine-tuning was tuned. Those of the linear and "
            "attentive probes are chosen on the validation split."
        )
    return (
        f"Tuned for each method: {' and '.join(tried)}, with seed {grid.seed} and "
        f"{grid.epochs:.0%} of the epochs, by the accuracy on the validation split. The test split "
        "was not used. The rates of the linear and attentive probes are chosen on the validation "
        "split, too. The cost of tuning is not in the table."
    )


def not_comparable(plan: Plan, results: Mapping[str, MethodResult]) -> list[str]:
    """Return what a reader must know before comparing two rows."""
    return [
        sentence
        for sentence in (
            *_seeds(plan, results),
            *_labels(plan, results),
            *_budgets(results),
            *_views(plan),
            _recipe_network(plan),
            "Seconds are wall-clock time of each run with its start, one after the other on this "
            "machine; other programs slow them down. Memory is the largest resident set of the "
            "processes of pre-training.",
            RATE_RULE,
        )
        if sentence
    ]


def _seeds(plan: Plan, results: Mapping[str, MethodResult]) -> list[str]:
    judge = plan.recipe.judges[0]
    numbers = {result.title: len(result.accuracy[judge].values) for result in results.values()}
    most = max(numbers.values(), default=0)
    missing = [title for title, number in numbers.items() if number == 0]
    fewer = [f"{title} ({number})" for title, number in numbers.items() if 0 < number < most]
    found = []
    if missing:
        found.append(f"Not measured yet: {', '.join(missing)}.")
    if fewer:
        found.append(f"Fewer than {most} seeds: {', '.join(fewer)}.")
    if most < 2:
        found.append("One seed: differences as large as those between seeds cannot be recognized.")
    return found


def _labels(plan: Plan, results: Mapping[str, MethodResult]) -> list[str]:
    found = []
    for result in results.values():
        if result.cost.labels:
            more = (
                f" In the column of few labels it has seen more than the {plan.recipe.few_labels} "
                "of a class, and in the probes more than its features alone."
                if "few" in plan.recipe.judges
                else ""
            )
            found.append(
                f"{result.title} saw {result.cost.labels:,} labels before fine-tuning, those that "
                f"fine-tuning has; the methods without a number saw none.{more}"
            )
    return found


def _budgets(results: Mapping[str, MethodResult]) -> list[str]:
    baseline = results.get(BASELINE)
    least = None if baseline is None else baseline.cost.seconds.mean
    if not least:
        return []
    ratios = {
        result.title: seconds / least
        for result in results.values()
        if (seconds := result.cost.seconds.mean) is not None and seconds / least > _COST_RATIO
    }
    if not ratios:
        return []
    listed = ", ".join(f"{title} {ratio:.1f}" for title, ratio in ratios.items())
    return [
        "Epochs are equal, time is not. Seconds relative to HOG, further networks included: "
        f"{listed}. At equal time HOG would have more epochs."
    ]


def _views(plan: Plan) -> list[str]:
    found = [
        METHODS[method].title
        for method in plan.recipe.methods
        if METHODS[method].keys.get("MODEL.MODEL_NAME") == "ContrastiveModel"
    ]
    if not found:
        return []
    return [f"These see several views of a sample in each step, not one: {', '.join(found)}."]


def _recipe_network(plan: Plan) -> str:
    return (
        "All have the backbone of the recipe, not that of each paper, and the recipe's budget: a "
        "ranking here says little about larger networks, longer trainings or other data."
    )
