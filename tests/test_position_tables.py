"""Position tables on another grid; golden values are in the tests of models and checkpoints."""

from __future__ import annotations

import torch

from slowfast_maskfeat.position_tables import joint_positions, separable_positions
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
