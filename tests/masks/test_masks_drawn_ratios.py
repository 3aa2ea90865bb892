"""iBOT's masks, whose ratio is drawn, on images and clips; multi-block masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slowfast_maskfeat.masks import BlockKind, MultiblockSampler, ibot_mask
from slowfast_maskfeat.shapes import Grid

RANGES = [(0.0, 0.0), (0.1, 0.5)]
KINDS = [BlockKind(8, 0.15), BlockKind(2, 0.7)]
GRIDS = [Grid(8, 14, 14), Grid(8, 7, 7), Grid(1, 14, 14), Grid(2, 3, 5), Grid(1, 1, 2)]


def _draw(sample, number):
    generator = np.random.default_rng(5)
    return torch.stack([sample(generator) for _ in range(number)])


@pytest.mark.parametrize("shape", ["block", "random"])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_drawn_ratios_of_any_grid(grid: Grid, shape: str) -> None:
    masks = _draw(lambda generator: ibot_mask(grid, RANGES, generator, shape=shape), 300)
    assert masks.shape == (300, *grid)
    assert masks.dtype == torch.bool
    counts = masks.flatten(1).sum(1)
    # A cube mask rounds its quota, and has at least one token.
    assert int(counts.max()) <= max(1, round(0.5 * grid.num_tokens))
    if grid.num_tokens >= 196:
        empty = float((counts == 0).float().mean())
        assert empty == pytest.approx(0.5, abs=5 * 0.5 / 300**0.5)
        masked = counts[counts > 0].double() / grid.num_tokens
        assert float(masked.mean()) == pytest.approx(0.3, abs=0.04)
        assert float(masked.std()) == pytest.approx(0.4 / 12**0.5, abs=0.03)  # uniform in .1 .. .5


def test_cubes_of_clips_have_several_steps() -> None:
    masks = _draw(lambda generator: ibot_mask(Grid(8, 7, 7), [(0.4, 0.4)], generator), 50)
    steps = masks.flatten(2).any(-1).sum(1)
    assert int(steps.max()) == 8
    assert int(steps.min()) < 8


@pytest.mark.parametrize(
    "ranges", [[], [(0.5, 0.1)], [(0.0, 1.0)], [(-0.1, 0.5)], [(0.0, float("nan"))]]
)
def test_wrong_ranges(ranges: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"AUG\.MASK_RATIO_RANGES must be .* got \["):
        ibot_mask(Grid(1, 14, 14), ranges, np.random.default_rng(0))


@pytest.mark.parametrize("min_block", [0, -3])
def test_blocks_have_tokens(min_block: int) -> None:
    message = rf"AUG\.MIN_MASK_PATCHES_PER_BLOCK must be >= 1, or None, got {min_block}"
    with pytest.raises(ValueError, match=message):
        ibot_mask(Grid(1, 14, 14), RANGES, np.random.default_rng(0), min_block=min_block)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_multiblock_masks_have_fixed_counts_and_span_all_steps(grid: Grid) -> None:
    sampler = MultiblockSampler(grid, KINDS)
    masks = _draw(sampler, 40)
    assert masks.shape == (40, 2, *grid)
    assert masks.dtype == torch.bool
    counts = masks.flatten(2).sum(2)
    assert counts.unique(dim=0).tolist() == [list(sampler.counts)]
    assert all(0 < count < grid.num_tokens for count in sampler.counts)
    assert (masks == masks[:, :, :1]).all()
    if grid.h == 14:
        assert not (masks == masks[:1]).all()


def test_multiblock_counts_are_the_mean_coverage() -> None:
    """Against random blocks: 8 of 15 % and 2 of 70 % of 14 x 14, of aspects 0.75 to 1.5."""
    generator = np.random.default_rng(0)
    for kind, count in zip(KINDS, MultiblockSampler(Grid(1, 14, 14), KINDS).counts, strict=True):
        covered = []
        for _ in range(2000):
            aspect, area = generator.uniform(0.75, 1.5), int(196 * kind.scale)
            rows = min(14, round((area * aspect) ** 0.5))
            columns = min(14, round((area / aspect) ** 0.5))
            frame = np.zeros((14, 14), dtype=bool)
            for _ in range(kind.num_blocks):
                top = generator.integers(14 - rows + 1)
                left = generator.integers(14 - columns + 1)
                frame[top : top + rows, left : left + columns] = True
            covered.append(frame.sum())
        assert count == pytest.approx(np.mean(covered), abs=1.0)


def test_multiblock_masks_are_of_blocks() -> None:
    """Few edges between masked and visible tokens: many more neighbors are alike than by chance."""
    masks = _draw(MultiblockSampler(Grid(1, 14, 14), KINDS), 100)[:, :, 0]
    alike = (masks[..., 1:] == masks[..., :-1]).float().mean(dim=(0, 2, 3))
    for kind, share in enumerate(masks.float().mean(dim=(0, 2, 3)).tolist()):
        chance = share**2 + (1 - share) ** 2
        assert float(alike[kind]) > 1 - (1 - chance) / 2


@pytest.mark.parametrize("kinds", [[], [BlockKind(0, 0.5)], [BlockKind(2, 1.0)]])
def test_wrong_kinds_of_blocks(kinds: list[BlockKind]) -> None:
    with pytest.raises(ValueError, match=r"AUG\.MASK_BLOCKS must be .* got \["):
        MultiblockSampler(Grid(1, 14, 14), kinds)
    with pytest.raises(ValueError, match=r"at least 2 tokens in a step, got 4x1x1"):
        MultiblockSampler(Grid(4, 1, 1), KINDS)
