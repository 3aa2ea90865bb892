"""Position tables on another grid; golden values are in the tests of models and checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_json

from slowfast_maskfeat.position_tables import (
    joint_positions,
    resize_bias_table,
    separable_positions,
)
from slowfast_maskfeat.shapes import Grid


def test_positions_of_the_configured_grid_are_the_tables_themselves() -> None:
    grid = Grid(2, 3, 4)
    joint = torch.randn(1, 24, 8)
    assert joint_positions(joint, source=grid, target=grid) is joint
    spatial, temporal = torch.randn(1, 12, 8), torch.randn(1, 2, 8)
    result = separable_positions(spatial, temporal, source=grid, target=grid)
    assert torch.equal(result[0, 12 + 5], spatial[0, 5] + temporal[0, 1])


def test_constant_positions_stay_constant_on_any_grid() -> None:
    grid, other = Grid(2, 3, 4), Grid(5, 6, 7)
    joint = joint_positions(torch.full((1, 24, 8), 3.0), source=grid, target=other)
    torch.testing.assert_close(joint, torch.full((1, 210, 8), 3.0))
    both = separable_positions(
        torch.full((1, 12, 8), 1.0), torch.full((1, 2, 8), 2.0), source=grid, target=other
    )
    torch.testing.assert_close(both, torch.full((1, 210, 8), 3.0))


def test_the_joint_table_of_a_sum_is_resized_as_the_sum() -> None:
    """Both ways are linear in the table; along space alone and along time alone they agree."""
    source, target = Grid(2, 3, 4), Grid(5, 6, 8)
    spatial, temporal = torch.randn(1, 12, 8), torch.randn(1, 2, 8)
    joint = separable_positions(spatial, temporal, source=source, target=source)
    torch.testing.assert_close(
        joint_positions(joint, source=source, target=target),
        separable_positions(spatial, temporal, source=source, target=target),
    )


BIAS_TABLES = golden_json("bias_tables.json")["cases"]


@pytest.mark.parametrize("name", BIAS_TABLES)
def test_biases_of_squares_are_resized_as_published(name: str) -> None:
    golden = BIAS_TABLES[name]
    old, new = map(int, name.split(" to "))
    table = np.random.Generator(np.random.PCG64(77)).standard_normal(((2 * old - 1) ** 2 + 3, 2))
    resized = resize_bias_table(
        torch.from_numpy(table), source=(old, old), target=(new, new), has_cls=True
    ).numpy()
    assert resized.shape == ((2 * new - 1) ** 2 + 3, 2)
    assert np.linalg.norm(resized) == pytest.approx(golden["norm"], rel=1e-11)
    sample = resized.reshape(-1)[:: golden["stride"]]
    assert sample == pytest.approx(golden["sample"], rel=1e-9, abs=1e-10)
    assert (resized[-3:] == table[-3:]).all()  # of the class token


def test_biases_of_rows_and_columns_are_resized_apart() -> None:
    """What depends on columns alone is resized along them alone."""
    columns = torch.randn(9, 2, dtype=torch.float64)
    table = columns.expand(5, -1, -1).reshape(45, 2)
    resized = resize_bias_table(table, source=(3, 5), target=(4, 7), has_cls=False)
    square = columns.expand(9, -1, -1).reshape(81, 2)
    expected = resize_bias_table(square, source=(5, 5), target=(7, 7), has_cls=False)
    planes = resized.unflatten(0, (7, 13))
    torch.testing.assert_close(planes, expected.unflatten(0, (13, 13))[:7])
    assert resize_bias_table(table, source=(3, 5), target=(3, 5), has_cls=False) is table


@pytest.mark.parametrize("source", [(1, 1), (2, 2), (2, 14)])
@pytest.mark.parametrize("target", [(1, 1), (2, 3), (14, 20)])
def test_constant_biases_stay_constant(source: tuple[int, int], target: tuple[int, int]) -> None:
    num_offsets = [(2 * h - 1) * (2 * w - 1) for h, w in (source, target)]
    table = torch.full((num_offsets[0] + 3, 2), 2.0, dtype=torch.float64)
    resized = resize_bias_table(table, source=source, target=target, has_cls=True)
    torch.testing.assert_close(resized, torch.full((num_offsets[1] + 3, 2), 2.0).double())


def test_small_offsets_of_a_larger_grid_keep_their_bias() -> None:
    """The first distance of the progression is 1, and 0 stays in the middle."""
    table = torch.randn(27**2 + 3, 2, dtype=torch.float64)
    resized = resize_bias_table(table, source=(14, 14), target=(24, 24), has_cls=True)
    before, after = table[:-3].unflatten(0, (27, 27)), resized[:-3].unflatten(0, (47, 47))
    torch.testing.assert_close(after[22:25, 22:25], before[12:15, 12:15])
