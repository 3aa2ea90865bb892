"""Checks of numbers in a configuration: all are finite, and lists have the right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from slowfast_maskfeat.config.defaults import added_keys

_LAST_SEED = 2**63 - 1  # torch takes a little more, for the ranks of processes


class _Rule(NamedTuple):
    """Condition on each number of a list.

    Attributes:
        accepts: number -> whether it is accepted.
        accepted: the same, for messages.
        length: of the list; None for any.
    """

    accepts: Callable[[Any], bool]
    accepted: str
    length: int | None = None


_RULES = {
    "CONTRASTIVE.PATCH_TEACHER_T": _Rule(lambda x: x > 0, "two numbers > 0", 2),
    "CONTRASTIVE.PREDICTOR_DEPTHS": _Rule(lambda x: type(x) is int and x > 0, "integers > 0"),
    "CONTRASTIVE.TEACHER_T": _Rule(lambda x: x > 0, "two numbers > 0", 2),
    "DATA.INPUT_CHANNEL_NUM": _Rule(
        lambda x: type(x) is int and x == 3, "[3], the channels of decoded frames", 1
    ),
    "DATA.MEAN": _Rule(lambda x: True, "three values", 3),
    "DATA.SSL_BLUR_PROB": _Rule(lambda x: 0 <= x <= 1, "probabilities in [0, 1]"),
    "DATA.SSL_BLUR_SIGMA_MAX": _Rule(lambda x: 0 <= x <= 100, "two numbers in [0, 100]", 2),
    "DATA.SSL_BLUR_SIGMA_MIN": _Rule(lambda x: 0 <= x <= 100, "two numbers in [0, 100]", 2),
    "DATA.SSL_COLOR_BRI_CON_SAT": _Rule(lambda x: 0 <= x <= 1, "three numbers in [0, 1]", 3),
    "DATA.SSL_GLOBAL_SPAN": _Rule(lambda x: 0 < x <= 1, "fractions in (0, 1]"),
    "DATA.SSL_LOCAL_SCALES_RELATIVE": _Rule(lambda x: 0 < x <= 1, "two fractions in (0, 1]", 2),
    "DATA.SSL_LOCAL_SPAN": _Rule(lambda x: 0 < x <= 1, "fractions in (0, 1]"),
    "DATA.SSL_SOLARIZE_PROB": _Rule(lambda x: 0 <= x <= 1, "probabilities in [0, 1]"),
    "DATA.STD": _Rule(lambda x: x > 0, "three values > 0", 3),
    "DATA.TRAIN_JITTER_ASPECT_RELATIVE": _Rule(lambda x: x > 0, "numbers > 0"),
    "DATA.TRAIN_JITTER_SCALES": _Rule(lambda x: x > 0, "two numbers > 0", 2),
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": _Rule(lambda x: x > 0, "numbers > 0"),
    "MODEL.ACT_CHECKPOINT_BLOCKS": _Rule(lambda x: type(x) is int and x >= 0, "block numbers >= 0"),
    "SOLVER.BETAS": _Rule(lambda x: 0 <= x < 1, "two numbers in [0, 1)", 2),
    "SOLVER.LRS": _Rule(lambda x: x >= 0, "numbers >= 0"),
    "SOLVER.STEPS": _Rule(lambda x: x >= 0, "numbers >= 0"),
    "TEST.NUM_TEMPORAL_CLIPS": _Rule(lambda x: type(x) is int and x > 0, "integers > 0"),
}


def wrong_numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Find keys whose numbers cannot be meant.

    Args:
        values: dotted key -> value.

    Yields:
        Key, what is accepted, and the value.
    """
    for key, value in values.items():
        # A key of an extension may mean something by infinity.
        if key not in added_keys() and not all(map(math.isfinite, _numbers(value))):
            yield key, "finite", value
    for key, rule in _RULES.items():
        items = values[key]
        has_length = rule.length in (None, len(items))
        if not has_length or not all(_is_number(item) and rule.accepts(item) for item in items):
            yield key, rule.accepted, items
    if values["RNG_SEED"] > _LAST_SEED:
        yield "RNG_SEED", "below 2**63", values["RNG_SEED"]


def _numbers(value: Any) -> Iterator[float]:
    """Yield the floats in a value, at any depth of lists."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
