"""Sizes of pooled grids: queries and their shortcut must agree."""

from __future__ import annotations

import pytest

from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.shapes import Grid


def _geometry(kernel, stride) -> BlockGeometry:
    return BlockGeometry(8, 8, 8, 1, stride, None, kernel, None, 0.0)


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3, 3), (1, 2, 2)), ((1, 5, 5), (1, 2, 1)), ((1, 2, 2), (1, 2, 2)), (None, None)],
)
def test_a_shortcut_that_has_the_tokens_of_the_queries(kernel, stride):
    _geometry(kernel, stride).check_shortcut(Grid(4, 7, 7))


@pytest.mark.parametrize("stride", [(1, 2, 2), (1, 1, 1)])
def test_a_kernel_that_leaves_other_tokens_names_its_key(stride):
    with pytest.raises(ValueError, match=r"MVIT\.POOL_KVQ_KERNEL must .* got .* of \(4, 8, 8\)"):
        _geometry((1, 2, 2), stride).check_shortcut(Grid(4, 8, 8))
