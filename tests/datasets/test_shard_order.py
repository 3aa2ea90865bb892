"""Which shards a pattern names, and the order that a shuffle buffer gives their rows."""

from __future__ import annotations

import numpy as np
import pytest

from slowfast_maskfeat.datasets.shard_names import expand_braces
from slowfast_maskfeat.datasets.webdataset import buffer_order


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("{0..4..2}", ["0", "2", "4"]),
        ("{x,y}/{0..1}.tar", ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]),
    ],
)
def test_braces_name_shards_as_in_a_shell(pattern, names):
    assert expand_braces(pattern) == names


@pytest.mark.parametrize("pattern", ["a{0..1.tar", "a}.tar", "{x}", "{3..1}", "{0..99999999}"])
def test_malformed_braces_are_an_error(pattern):
    with pytest.raises(ValueError, match=r"brace|ascending|at most 1000000"):
        expand_braces(pattern)


@pytest.mark.parametrize(
    ("num_rows", "buffer"), [(0, 5), (1, 1), (10, 1), (10, 3), (97, 16), (40, 40), (5, 100)]
)
def test_the_buffer_is_that_of_a_loop(num_rows, buffer):
    order = buffer_order(num_rows, buffer, np.random.default_rng(3))
    assert sorted(order.tolist()) == list(range(num_rows))
    slots = min(buffer, num_rows)
    held, left = list(range(slots)), []
    draws = np.random.default_rng(3).integers(max(slots, 1), size=num_rows - slots)
    for step, slot in enumerate(draws):
        left.append(held[slot])
        held[slot] = slots + step
    assert order[: len(left)].tolist() == left
    assert sorted(order[len(left) :].tolist()) == sorted(held)


def test_a_buffer_of_all_rows_gives_every_order_alike():
    generator = np.random.default_rng(0)
    counts = np.zeros((4, 4))
    for _ in range(4000):
        counts[np.arange(4), buffer_order(4, 9, generator)] += 1
    assert np.abs(counts / 4000 - 0.25).max() < 0.03  # 4 standard deviations
