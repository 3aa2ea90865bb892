"""Distributions of masks against goldens of other implementations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from helpers.mask_statistics import mask_statistics
from helpers.method_goldens import MethodGolden

from slowfast_maskfeat.masks import block_mask, ibot_mask
from slowfast_maskfeat.shapes import Grid

# Number of masks in the published goldens, for which these tolerances hold.
_NUM_MASKS = 4000
# README of the goldens: mean count, frequency of a cell, and probability of a neighbor. The others
# are several times the noise of so many draws.
MASK_TOLERANCES = {
    "count_mean": 0.1,
    "count_std": 0.1,
    "count_max": 0,
    "frequency_map": 0.03,
    "p_right_neighbour_given_masked": 0.01,
    "p_lower_neighbour_given_masked": 0.01,
    "components_mean": 0.05,
    "components_std": 0.05,
}


def check_mask_beit(golden: MethodGolden) -> None:
    given = {"input_size", "num_masking_patches", "min_num_patches", "max_num_patches", "n"}
    for case, facts in golden.settings.items():
        golden.require({f"{case}/{name}": facts[name] for name in facts.keys() - given})
        size = facts["input_size"]
        grid = Grid(1, *((size, size) if isinstance(size, int) else size))
        draw = partial(
            block_mask,
            grid,
            facts["num_masking_patches"] / grid.num_tokens,
            np.random.default_rng(0),
            max_block=facts.get("max_num_patches"),
            min_block=facts["min_num_patches"],
        )
        masks = np.stack([draw()[0].numpy() for _ in range(3 * facts["n"])])
        found = mask_statistics(masks)
        noise = max(1.0, (_NUM_MASKS / facts["n"]) ** 0.5)
        error = 5 * (1 / facts["n"] + 1 / len(masks)) ** 0.5
        for name, tolerance in MASK_TOLERANCES.items():
            # Counts and parts vary more on larger grids.
            of_mean = error * facts.get(f"{name.partition('_')[0]}_std", 0)
            allowed = 0 if name == "count_max" else max(tolerance * noise, of_mean)
            golden.compare_absolutely(f"{case}/{name}", found[name], tolerance=allowed)
        # The least of a few thousand counts is an outlier.
        outlier = max(6.0, 0.15 * facts["num_masking_patches"])
        golden.compare_absolutely(f"{case}/count_min", found["count_min"], tolerance=outlier)
        histogram = {int(count): times for count, times in facts["count_hist"].items()}
        shares = np.array([histogram.get(n, 0) for n in range(grid.num_tokens + 1)]) / facts["n"]
        assert np.abs(shares - found["count_shares"]).max() <= 0.03 * noise
        golden.accept(f"{case}/count_hist")
        _check_samples(golden, case, grid, found)


def _check_samples(
    golden: MethodGolden, case: str, grid: Grid, found: Mapping[str, np.ndarray]
) -> None:
    """Compares the few masks of a golden with the distribution of ours, by their standard error."""
    bits = np.unpackbits(golden.raw(case), axis=1, count=grid.num_tokens)
    samples = bits.reshape(-1, grid.h, grid.w)
    frequency = found["frequency_map"]
    error = np.sqrt(frequency * (1 - frequency) / len(samples))
    assert (np.abs(samples.mean(axis=0) - frequency) <= 5 * error + 0.02).all()
    counts = samples.sum(axis=(1, 2))
    error = found["count_std"] / len(samples) ** 0.5
    assert abs(counts.mean() - found["count_mean"]) <= 5 * error
    assert counts.max() <= found["count_max"]
    golden.accept(case)


def check_mask_ibot(golden: MethodGolden) -> None:
    """Compare the masks of iBOT's loader, whose ratio is drawn for each mask.

    Half of them are empty, so that most statistics of the few thousand masks of a golden have more
    noise than the tolerances of other masks: those are compared by their standard errors.
    """
    given = {"pred_ratio", "pred_ratio_var", "pred_shape", "n"}
    for case, facts in golden.settings.items():
        golden.require({f"{case}/{name}": facts[name] for name in facts.keys() - given})
        grid = Grid(1, *np.shape(facts["frequency_map"]))
        ratios = zip(*(np.ravel(facts[n]) for n in ("pred_ratio", "pred_ratio_var")), strict=True)
        draw = partial(
            ibot_mask,
            grid,
            [(float(mean - half), float(mean + half)) for mean, half in ratios],
            np.random.default_rng(0),
            shape={"block": "block", "rand": "random"}[facts["pred_shape"]],
        )
        masks = np.stack([draw()[0].numpy() for _ in range(3 * facts["n"])])
        found = mask_statistics(masks)
        found["share_without_mask"] = (~masks.any(axis=(1, 2))).mean()
        error = (1 / facts["n"] + 1 / len(masks)) ** 0.5  # of a mean, in standard deviations
        noise = max(1.0, (_NUM_MASKS / facts["n"]) ** 0.5)
        tolerances = {
            "count_mean": 5 * error * facts["count_std"],
            "count_std": 5 * error * facts["count_std"],
            # The least count is an outlier, unless some masks are empty.
            "count_min": 0 if not facts["count_min"] else max(6.0, 0.15 * facts["count_mean"]),
            "count_max": 2 * noise,
            "frequency_map": 0.03 * noise,
            "p_right_neighbour_given_masked": 0.01 * noise,
            "p_lower_neighbour_given_masked": 0.01 * noise,
            "components_mean": 5 * error * facts["components_std"],
            "components_std": 5 * error * facts["components_std"],
            "share_without_mask": 5 * error * 0.5,
        }
        for name, tolerance in tolerances.items():
            golden.compare_absolutely(f"{case}/{name}", found[name], tolerance=tolerance)
        histogram = {int(count): times for count, times in facts["count_hist"].items()}
        shares = np.array([histogram.get(n, 0) for n in range(grid.num_tokens + 1)]) / facts["n"]
        assert np.abs(np.cumsum(shares) - np.cumsum(found["count_shares"])).max() <= 2 * error
        golden.accept(f"{case}/count_hist")
        _check_samples(golden, case, grid, found)
