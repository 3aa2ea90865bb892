"""The distributions of the published generators: masks.json (3,000 masks) and masks.npz (200)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from slowfast_maskfeat.masks import block_mask, cube_mask, frame_mask, tube_mask
from slowfast_maskfeat.shapes import Grid

GOLDEN = Path(__file__).parents[1] / "golden"
STATISTICS = json.loads((GOLDEN / "masks.json").read_text())
NUM_MASKS = 1500

CASES = {
    **{
        f"cube_8x7x7_r{ratio}": (partial(cube_mask, Grid(8, 7, 7), ratio), Grid(8, 7, 7))
        for ratio in (0.2, 0.4, 0.6, 0.75, 0.9)
    },
    "tube_window_7x7_r0.4": (partial(tube_mask, Grid(8, 7, 7), 0.4), Grid(8, 7, 7)),
    "frames_8x7x7_r0.4": (partial(frame_mask, Grid(8, 7, 7), 0.4), Grid(8, 7, 7)),
    "image_block_14x14_r0.4": (partial(block_mask, Grid(1, 14, 14), 0.4), Grid(1, 14, 14)),
}


def _ours(name: str) -> np.ndarray:
    sample, _ = CASES[name]
    generator = np.random.default_rng(5)
    return np.stack([sample(generator).numpy() for _ in range(NUM_MASKS)])


def _published(name: str) -> np.ndarray:
    _, grid = CASES[name]
    packed = np.load(GOLDEN / "masks.npz")[name]
    return np.unpackbits(packed, axis=1)[:, : grid.num_tokens].reshape(-1, *grid).astype(bool)


@pytest.mark.parametrize("name", CASES)
def test_distribution_is_the_published_one(name):
    ours = _ours(name)
    expected = STATISTICS[name]["large_sample_3000"]
    count = ours.sum(axis=(1, 2, 3))
    # Standard errors of means of 1,500 and 3,000 samples, five of them.
    standard_error = expected["masked_std"] * np.sqrt(1 / NUM_MASKS + 1 / 3000)
    assert abs(count.mean() - expected["masked_mean"]) <= 5 * standard_error
    assert count.max() == expected["masked_max"]
    assert abs(count.std() - expected["masked_std"]) <= 0.15 * expected["masked_std"]
    assert np.quantile(count, 0.01) >= expected["masked_min"]  # the tail is long and thin
    frequency = ours.mean(axis=(0, 1))
    assert np.abs(frequency - expected["spatial_freq"]).max() < 0.06
    assert abs(np.abs(frequency - expected["spatial_freq"]).mean()) < 0.015
    if "per_frame_mean" in expected:
        per_frame = ours.sum(axis=(2, 3))
        standard_error = per_frame.std(axis=0).max() * np.sqrt(1 / NUM_MASKS + 1 / 3000)
        difference = per_frame.mean(axis=0) - expected["per_frame_mean"]
        assert np.abs(difference).max() < 5 * standard_error
        empty = (~ours.any(axis=(2, 3))).mean()
        full = ours.all(axis=(2, 3)).mean()
        assert abs(empty - expected["fraction_frames_empty"]) < 0.02
        assert abs(full - expected["fraction_frames_full"]) < 0.02
    across = (ours[..., 1:] == ours[..., :-1]).mean()
    down = (ours[..., 1:, :] == ours[..., :-1, :]).mean()
    assert across == pytest.approx(expected["horizontal_neighbour_agreement"], abs=0.01)
    assert down == pytest.approx(expected["vertical_neighbour_agreement"], abs=0.01)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_stored_masks(name):
    ours, published = _ours(name), _published(name)
    assert published.sum() / len(published) == pytest.approx(STATISTICS[name]["masked_mean"])
    # Standard error of a frequency from 200 masks is at most 0.035.
    assert np.abs(ours.mean(axis=0) - published.mean(axis=0)).max() < 5 * 0.035
    pair = [masks.mean(axis=(0, 2, 3)) for masks in (ours, published)]
    assert np.abs(pair[0] - pair[1]).max() < 0.1


def test_first_box_of_a_cube_mask_has_the_published_extents():
    # With a single try for each box, most masks end after the first.
    generator = np.random.default_rng(2)
    extents, sizes = [], []
    for _ in range(2000):
        mask = cube_mask(Grid(8, 7, 7), 0.4, generator, num_tries=1).numpy()
        extent = [np.ptp(axis) + 1 for axis in mask.nonzero()]
        if mask.sum() == np.prod(extent):
            assert extent[1] < 7
            assert extent[2] < 7
            extents.append(extent)
            sizes.append(mask.sum())
    assert len(extents) > 1200
    expected = STATISTICS["cube_8x7x7_r0.4"]["blocks"]
    assert np.mean(extents, axis=0) == pytest.approx(
        expected["first_block_extent_mean_thw"], abs=0.25
    )
    assert np.mean(sizes) == pytest.approx(expected["first_block_tokens_mean"], rel=0.06)


def test_boxes_reach_every_place():
    grid = Grid(3, 4, 5)
    generator = np.random.default_rng(0)
    seen = sum(cube_mask(grid, 0.4, generator).numpy().astype(int) for _ in range(2000))
    assert (seen > 0).all()
    # Uniform places: mirrored cells are hidden equally often.
    assert np.abs(seen - seen[::-1, ::-1, ::-1]).max() < 0.2 * seen.max()
