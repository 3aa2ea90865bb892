"""What holds for masks of any grid and ratio, and the errors for those that cannot be."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from slowfast_maskfeat.masks import (
    bevt_mask,
    block_mask,
    cube_mask,
    frame_mask,
    random_mask,
    tube_mask,
)
from slowfast_maskfeat.shapes import Grid

SAMPLERS = [bevt_mask, block_mask, cube_mask, frame_mask, random_mask, tube_mask]
GRIDS = [
    Grid(8, 7, 7),
    Grid(4, 3, 3),
    Grid(2, 2, 2),
    Grid(20, 10, 13),
    Grid(2, 1, 9),
    Grid(3, 1, 1),
]


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("ratio", [1e-6, 0.05, 0.4, 0.9, 0.999])
def test_any_grid_and_ratio(sample, grid, ratio):
    mask = sample(grid, ratio, np.random.default_rng(3))
    assert mask.dtype == torch.bool
    assert mask.device.type == "cpu"
    assert mask.shape == tuple(grid)
    assert mask.any()
    assert mask.is_contiguous()


@pytest.mark.parametrize("sample", SAMPLERS)
def test_same_generator_same_mask(sample):
    grid = Grid(8, 14, 14)
    first, again = (sample(grid, 0.4, np.random.default_rng(11)) for _ in range(2))
    other = sample(grid, 0.4, np.random.default_rng(12))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sample", SAMPLERS)
@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 40, float("nan")])
def test_ratio_outside_is_an_error(sample, ratio):
    with pytest.raises(ValueError, match=rf"AUG\.MASK_RATIO .*{ratio}\b"):
        sample(Grid(8, 7, 7), ratio, np.random.default_rng(0))


@pytest.mark.parametrize("sample", SAMPLERS)
def test_grid_without_cells_is_an_error(sample):
    with pytest.raises(ValueError, match="8x0x7"):
        sample(Grid(8, 0, 7), 0.4, np.random.default_rng(0))


def test_cube_never_exceeds_the_quota_on_other_grids():
    for grid, ratio in ((Grid(4, 6, 6), 0.4), (Grid(8, 14, 14), 0.75), (Grid(20, 10, 10), 0.1)):
        generator = np.random.default_rng(0)
        counts = [int(cube_mask(grid, ratio, generator).sum()) for _ in range(50)]
        assert max(counts) <= round(grid.num_tokens * ratio)
        assert np.mean(counts) > 0.9 * grid.num_tokens * ratio


def test_tube_is_the_same_at_every_step():
    mask = tube_mask(Grid(8, 7, 7), 0.4, np.random.default_rng(0))
    assert (mask == mask[:1]).all()
    assert mask[0].sum() <= 20


def test_frames_are_whole():
    mask = frame_mask(Grid(8, 7, 7), 0.4, np.random.default_rng(0))
    assert torch.equal(mask.any(dim=1), mask.all(dim=1))
    assert mask[:, 0, 0].sum() == 3


def test_frame_mask_of_an_image_is_an_error():
    with pytest.raises(ValueError, match="MASK_FRAMES"):
        frame_mask(Grid(1, 14, 14), 0.4, np.random.default_rng(0))


def test_blocks_of_an_image_differ_by_frame():
    mask = block_mask(Grid(4, 14, 14), 0.4, np.random.default_rng(0))
    assert not torch.equal(mask[0], mask[1])
    assert (mask.sum(dim=(1, 2)) <= 78).all()


@pytest.mark.parametrize("max_block", [1, 20, 40])
def test_largest_block_bounds_each_rectangle(max_block):
    # With a single try for each rectangle, many masks end after the first.
    areas = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        mask = block_mask(Grid(1, 14, 14), 0.4, generator, max_block=max_block, num_tries=1)
        num_rows, num_columns = (np.ptp(axis) + 1 for axis in mask[0].numpy().nonzero())
        if mask.sum() == num_rows * num_columns:
            areas.append(num_rows * num_columns)
    assert len(areas) >= 10
    assert 0.7 * max_block <= max(areas) <= max_block


def test_largest_block_bounds_what_later_rectangles_add():
    """The smaller the parts of a mask, the less neighboring cells agree."""
    agreement = {}
    for max_block in (1, 20, None):
        generator = np.random.default_rng(0)
        masks = [
            block_mask(Grid(1, 14, 14), 0.4, generator, max_block=max_block, num_tries=1000)
            for _ in range(50)
        ]
        assert all(mask.sum() == 78 for mask in masks)  # with so many tries, the whole quota
        cells = torch.stack(masks)
        agreement[max_block] = (cells[..., 1:] == cells[..., :-1]).float().mean()
    # 0.52 where cells are independent.
    assert agreement[1] < 0.75 < 0.8 < agreement[20] < agreement[None]


def test_largest_block_below_one_is_an_error():
    with pytest.raises(ValueError, match=r"AUG\.MAX_MASK_PATCHES_PER_BLOCK .*\b0\b"):
        block_mask(Grid(1, 14, 14), 0.4, np.random.default_rng(0), max_block=0)


@pytest.mark.parametrize("ratio", [0.4, 0.75, 0.9])
def test_random_count_is_exact(ratio):
    grid = Grid(8, 14, 14)
    for seed in range(3):
        mask = random_mask(grid, ratio, np.random.default_rng(seed))
        assert (~mask).sum() == int(grid.num_tokens * (1 - ratio))


def test_random_tube_and_per_frame():
    grid = Grid(8, 7, 7)
    visible = int(49 * (1 - 0.4))
    tube = random_mask(grid, 0.4, np.random.default_rng(0), tube=True)
    assert (tube == tube[:1]).all()
    assert (~tube[0]).sum() == visible
    per_frame = random_mask(grid, 0.4, np.random.default_rng(0), per_frame=True)
    assert ((~per_frame).sum(dim=(1, 2)) == visible).all()
    assert not torch.equal(per_frame[0], per_frame[1])
    with pytest.raises(ValueError, match=r"MASK_TUBE and MASK\.PER_FRAME_MASKING"):
        random_mask(grid, 0.4, np.random.default_rng(0), tube=True, per_frame=True)


def test_random_is_uniform():
    generator = np.random.default_rng(0)
    frequency = sum(random_mask(Grid(4, 3, 3), 0.5, generator).float() for _ in range(2000)) / 2000
    assert (frequency - 0.5).abs().max() < 5 * 0.5 / np.sqrt(2000)


def test_a_cube_mask_takes_less_than_half_a_millisecond():
    def seconds_per_mask() -> float:
        # Of this thread's own work, so that other processes do not count.
        start = time.thread_time()
        for _ in range(100):
            cube_mask(Grid(8, 7, 7), 0.4, generator)
        return (time.thread_time() - start) / 100

    generator = np.random.default_rng(0)
    assert min(seconds_per_mask() for _ in range(20)) < 0.5e-3


@pytest.mark.parametrize("tube", [False, True])
def test_random_blocks_are_whole_and_their_number_exact(tube):
    mask = random_mask(
        Grid(4, 6, 8), 0.6, np.random.default_rng(0), tube=tube, block=(1, 2, 2)
    ).numpy()
    blocks = mask.reshape(4, 3, 2, 4, 2)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    visible = (~blocks[:, :, 0, :, 0]).sum()
    assert visible == (4 * int(12 * 0.4) if tube else int(48 * 0.4))
    single = random_mask(Grid(4, 3, 4), 0.6, np.random.default_rng(0), tube=tube).numpy()
    assert (blocks[:, :, 0, :, 0] == single).all()


@pytest.mark.parametrize("block", [(3, 1, 1), (1, 4, 2), (1, 0, 2)])
def test_blocks_that_do_not_divide_the_grid_are_an_error(block):
    with pytest.raises(ValueError, match=r"MASK\.RANDOM_BLOCK .*4x6x8"):
        random_mask(Grid(4, 6, 8), 0.5, np.random.default_rng(0), block=block)


def test_the_least_block_is_a_fifth_of_the_quota_by_default():
    """75 of 196 tokens: a fifth is 15."""
    grid, ratio = Grid(1, 14, 14), 75 / 196
    for seed in range(30):
        default, fifteen, sixteen = (
            block_mask(grid, ratio, np.random.default_rng(seed), min_block=least)
            for least in (None, 15, 16)
        )
        assert torch.equal(default, fifteen)
        if not torch.equal(fifteen, sixteen):
            break
    else:
        pytest.fail("another least block makes no difference")


def test_larger_least_blocks_leave_more_of_the_quota():
    """A block that is too large for the rest of the quota ends the mask."""
    grid = Grid(1, 14, 14)
    means = []
    for least in (1, 16, 40):
        generator = np.random.default_rng(0)
        masks = [block_mask(grid, 0.4, generator, min_block=least) for _ in range(200)]
        assert max(int(mask.sum()) for mask in masks) <= 78
        means.append(np.mean([int(mask.sum()) for mask in masks]))
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("grid", [Grid(1, 2, 2), Grid(1, 1, 9), Grid(1, 3, 3)], ids=str)
def test_a_least_block_that_does_not_fit(grid):
    mask = block_mask(grid, 0.5, np.random.default_rng(0), min_block=100)
    assert mask.any()


@pytest.mark.parametrize(("least", "most"), [(0, None), (-3, None), (17, 16)])
def test_a_least_block_outside_is_an_error(least, most):
    with pytest.raises(ValueError, match=rf"AUG\.MIN_MASK_PATCHES_PER_BLOCK .*got {least}"):
        block_mask(Grid(1, 14, 14), 0.4, np.random.default_rng(0), min_block=least, max_block=most)
