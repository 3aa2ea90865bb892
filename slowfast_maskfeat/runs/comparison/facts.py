"""Conditions of a comparison: settings that are equal, that differ, and limits of the result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slowfast_maskfeat.config import key_value
from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.runs.comparison.methods import (
    BASELINE,
    EQUAL_KEYS,
    METHODS,
    RATE_RULE,
    SCRATCH,
)
from slowfast_maskfeat.runs.comparison.pieces import Plan, piece_name
from slowfast_maskfeat.runs.comparison.recipe import JUDGES
from slowfast_maskfeat.runs.comparison.results import MethodResult

_COST_RATIO = 1.25  # of seconds, from which methods of equal epochs have unequal budgets
# Keys that differ without making another method.
_NOT_OF_A_METHOD = ("OUTPUT_DIR", "LOG_MODEL_INFO", "TRAIN.CHECKPOINT_FILE_PATH")


class Difference(NamedTuple):
    """A key that a method has another value of than the baseline."""

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
    """Return the keys in which each method differs from the baseline.

    They are those of pre-training, and those of fine-tuning for training from scratch.
    """
    return {
        method: [
            Difference(key, value, baseline[key])
            for key, value in found.items()
            if value != baseline[key] and key not in _NOT_OF_A_METHOD
        ]
        for method in plan.recipe.methods
        if method != BASELINE
        and (found := _keys(plan, method, kind := _kind_of(method)))
        and (baseline := _keys(plan, BASELINE, kind))
    }


def _kind_of(method: str) -> str:
    return "finetune" if method == SCRATCH else "pretrain"


def _keys(plan: Plan, method: str, kind: str) -> dict[str, Any]:
    """Return the keys of a piece of a method with the first seed; none if it can't be made."""
    piece = plan.pieces.get(piece_name(plan.recipe.seeds[0], method, kind))
    return {} if piece is None or piece.problem else dict(flatten(piece.config()))


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
            *_killed(results),
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
    """Say which results are missing, and which have fewer seeds."""
    numbers = {
        result.title: {judge: len(of.values) for judge, of in result.accuracy.items()}
        for result in results.values()
    }
    most = max((number for of in numbers.values() for number in of.values()), default=0)
    with_failures = {result.title for result in results.values() if result.failures}
    missing = [title for title, of in numbers.items() if not any(of.values())]
    fewer = [
        f"{title} ({_fewer(of, most)})"
        for title, of in numbers.items()
        if any(of.values()) and min(of.values()) < most
    ]
    waiting = [title for title in missing if title not in with_failures]
    failed = [title for title in missing if title in with_failures]
    found = []
    if waiting:
        found.append(f"Not measured yet: {', '.join(waiting)}.")
    if failed:
        found.append(f"Failed: {', '.join(failed)}.")
    if fewer:
        found.append(f"Fewer than {most} {_counted_seeds(most)}: {', '.join(fewer)}.")
    if most < 2:
        found.append("One seed: differences as large as those between seeds cannot be recognized.")
    return found


def _counted_seeds(number: int) -> str:
    return "seed" if number == 1 else "seeds"


def _fewer(numbers: Mapping[str, int], most: int) -> str:
    """Return the number of seeds of a method, or of those judges that have fewer."""
    if len(set(numbers.values())) == 1:
        return str(next(iter(numbers.values())))
    return ", ".join(
        f"{JUDGES[judge]} {number}" for judge, number in numbers.items() if number < most
    )


def _killed(results: Mapping[str, MethodResult]) -> list[str]:
    """Say whose cost lacks the time of attempts that were killed."""
    titles = [result.title for result in results.values() if result.cost.is_partial]
    if not titles:
        return []
    return [
        f"The seconds of {', '.join(titles)} are too low: a run was killed and went on later, and "
        "the time until then is not known."
    ]


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
