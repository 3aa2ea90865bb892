"""The sampler that a configuration asks for: equal counts for the autoencoder, grids that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.tiny_cases import tiny_options

from slowfast_maskfeat.builders import build_mask_sampler
from slowfast_maskfeat.config import load_config

ROOT = Path(__file__).parents[2]
CUBES = {"MASK__MAE_RND_MASK": False}


def sampler(case="mae_sincos_decsep", **changes):
    """Of the golden model with 4x4x4 tokens, 75 % of them masked at random."""
    pairs = tiny_options(case, **changes).items()
    return build_mask_sampler(load_config([], [str(word) for pair in pairs for word in pair]))


def draw(sample, number=8):
    generator = np.random.default_rng(0)
    return [sample(generator) for _ in range(number)]


@pytest.mark.parametrize(
    ("changes", "visible"),
    [
        ({}, int(64 * 0.25)),
        ({"AUG__MASK_RATIO": 0.9}, int(64 * (1 - 0.9))),
        ({"AUG__MASK_RATIO": 0.9, "AUG__MASK_TUBE": True}, 4 * int(16 * (1 - 0.9))),
        ({"AUG__MASK_RATIO": 0.7, "MASK__PER_FRAME_MASKING": True}, 4 * int(16 * (1 - 0.7))),
        ({**CUBES, "AUG__MASK_FRAMES": True}, 16),
    ],
)
def test_masks_of_the_autoencoder_leave_as_many_tokens_of_every_clip(changes, visible):
    masks = draw(sampler(**changes))
    assert [int((~mask).sum()) for mask in masks] == [visible] * 8
    assert not all(mask.equal(masks[0]) for mask in masks)
    if "MASK__PER_FRAME_MASKING" in changes:
        assert {int(frame.sum()) for mask in masks for frame in mask} == {16 - visible // 4}


@pytest.mark.parametrize(
    "changes",
    [
        CUBES,
        {**CUBES, "AUG__MASK_TUBE": True},
        {
            **CUBES,
            "DATA__NUM_FRAMES": 1,
            "MVIT__PATCH_2D": True,
            "MVIT__PATCH_KERNEL": [16, 16],
            "MVIT__PATCH_STRIDE": [16, 16],
            "MVIT__PATCH_PADDING": [0, 0],
        },
    ],
)
def test_masks_of_boxes_are_refused_before_the_first_step(changes):
    with pytest.raises(ValueError, match=r"MASK\.MAE_ON.*MASK\.MAE_RND_MASK True"):
        sampler(**changes)
    assert draw(sampler(**changes, MASK__MAE_ON=False))


@pytest.mark.parametrize("case", ["mae_sincos_decsep", "pt_video_hog"])
def test_a_ratio_is_checked_before_the_first_mask(case):
    with pytest.raises(ValueError, match=r"AUG\.MASK_RATIO .*0\.0"):
        sampler(case, AUG__MASK_RATIO=0.0)


def test_a_ratio_that_leaves_nothing_to_encode_is_refused():
    with pytest.raises(ValueError, match=r"AUG\.MASK_RATIO must .* got 0\.99 of 4x4x4 tokens"):
        sampler(AUG__MASK_RATIO=0.99)
    # A model that puts mask tokens in their places has no need of visible ones.
    assert draw(sampler(AUG__MASK_RATIO=0.99, MASK__MAE_ON=False))[0].all()


@pytest.mark.parametrize("window", [[4, 3, 4], [8, 4, 4], [3, 2, 2], [4, 7, 7]])
@pytest.mark.parametrize("case", ["mae_sincos_decsep", "pt_video_hog", "pt_video_vit_hog_rnd"])
def test_a_window_that_does_not_divide_the_tokens_is_refused(case, window):
    with pytest.raises(ValueError, match=r"AUG\.MASK_WINDOW_SIZE .* 4x4x4 tokens .* got"):
        sampler(case, AUG__MASK_WINDOW_SIZE=window, AUG__MASK_RATIO=0.4)


@pytest.mark.parametrize("window", [[4, 4], [0, 2, 2], [2]])
def test_a_window_is_three_numbers_or_two(window):
    changes = {"AUG__MASK_WINDOW_SIZE": window, "AUG__MASK_RATIO": 0.4}
    if window == [4, 4]:
        assert draw(sampler("pt_video_hog", **changes))[0].shape == (4, 4, 4)
        return
    with pytest.raises(ValueError, match=r"AUG\.MASK_WINDOW_SIZE.*\(t, h, w\)"):
        sampler("pt_video_hog", **changes)


def test_random_masks_are_of_single_tokens_whatever_the_window():
    mask = draw(sampler(AUG__MASK_WINDOW_SIZE=[4, 2, 2]), 1)[0]
    assert mask.shape == (4, 4, 4)
    assert int((~mask).sum()) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"DATA__TRAIN_CROP_SIZE": 72},  # 18x18 patches, pooled to 5x5 tokens of 16 pixels
        {"DATA__NUM_FRAMES": 9},
        {"MVIT__PATCH_PADDING": [2, 4, 4]},  # 5x17x17 patches
    ],
)
def test_clips_that_are_not_whole_tokens_are_refused(changes):
    """Their targets could not be made: that would fail in the first step."""
    with pytest.raises(ValueError, match=r"must be (a multiple of|below half of) "):
        sampler("pt_video_hog", AUG__MASK_RATIO=0.4, **changes)


@pytest.mark.parametrize("kind", ["ibot", "ibot_random"])
def test_ratios_drawn_for_each_mask(kind):
    ranges = {"AUG__MASK_KIND": kind, "AUG__MASK_RATIO_RANGES": [[0.0, 0.0], [0.5, 0.5]]}
    window = {"AUG__MASK_WINDOW_SIZE": [4, 2, 2]}
    sample = sampler(**CUBES, **ranges, **window, MASK__MAE_ON=False)
    masks = draw(sample, 40)
    size = 64 if kind == "ibot_random" else 16  # single tokens are masked whatever the window
    assert {mask.numel() for mask in masks} == {size}
    counts = {int(mask.sum()) for mask in masks}
    assert 0 in counts
    assert max(counts) == size // 2
    with pytest.raises(ValueError, match=r"MASK\.MAE_ON requires masks of a fixed size"):
        sampler(**CUBES, **ranges, **window)


def test_several_masks_of_a_clip_are_for_methods_that_take_them():
    changes = {**CUBES, "AUG__MASK_KIND": "multiblock", "AUG__MASK_BLOCKS": [[2, 0.4], [1, 0.5]]}
    with pytest.raises(ValueError, match=r"AUG\.MASK_KIND must be .* got 'multiblock'"):
        sampler(**changes)
    masks = draw(sampler(**changes, MASK__TARGET="latents"))
    assert {tuple(mask.shape) for mask in masks} == {(2, 4, 4, 4)}
    assert len({tuple(mask.flatten(1).sum(1).tolist()) for mask in masks}) == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("AUG__MASK_RATIO_RANGES", [[0.1]], r"RANGES must be a list of lists of two .* got \[\["),
        ("AUG__MASK_BLOCKS", [[8]], r"AUG\.MASK_BLOCKS must be a list of lists of two .* got"),
        ("AUG__MASK_BLOCKS", [[8.5, 0.1]], r"AUG\.MASK_BLOCKS must have whole numbers .* got"),
    ],
)
def test_pairs_that_are_none(key, value, message):
    kind = "ibot" if "RANGES" in key else "multiblock"
    changes = {**CUBES, "AUG__MASK_KIND": kind, key: value}
    with pytest.raises(ValueError, match=message):
        sampler(**changes, MASK__TARGET="latents")


def test_simmim_masks_blocks_of_32_pixels():
    (mask,) = draw(simmim(), 1)
    assert tuple(mask.shape) == (1, 14, 14)
    blocks = mask.reshape(1, 7, 2, 7, 2)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert int((~mask).sum()) == 4 * int(49 * 0.4)


def test_bevt_masks_of_a_video_have_the_least_block_of_the_key():
    files = [str(ROOT / "configs/masked_ssl/k400_VIT_B_16x4_SimMIM_PT.yaml")]
    keys = ["MASK.MAE_RND_MASK", "False", "MASK.RANDOM_BLOCK", "[]", "AUG.MASK_KIND", "bevt"]
    keys += ["AUG.MASK_RATIO", "0.5", "AUG.MIN_MASK_PATCHES_PER_BLOCK"]
    small, large = (
        draw(build_mask_sampler(load_config(files, [*keys, least]))) for least in ("1", "60")
    )
    for mask in (*small, *large):
        assert mask.shape == (8, 14, 14)
        assert {int(n) for n in mask.sum(dim=(1, 2))} <= {0, int(mask.any(dim=0).sum())}
    assert not all(a.equal(b) for a, b in zip(small, large, strict=True))


def simmim(*pairs):
    return build_mask_sampler(
        load_config([str(ROOT / "configs/masked_ssl/in1k_VIT_B_SimMIM_PT.yaml")], pairs)
    )


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["MASK.RANDOM_BLOCK", "[1, 3, 2]"], r"1x14x14.*\(1, 3, 2\)"),
        (["MASK.RANDOM_BLOCK", "[2, 2]"], r"\(t, h, w\) in tokens, got"),
        (["MASK.MAE_RND_MASK", "False"], "'block'"),
    ],
)
def test_blocks_that_can_not_be_drawn_are_named_with_their_key(pairs, message):
    with pytest.raises(ValueError, match=f"MASK.RANDOM_BLOCK.*{message}"):
        simmim(*pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AUG__MASK_FRAMES": True}, r"AUG\.MASK_FRAMES .*MASK\.MAE_RND_MASK True"),
        (
            {**CUBES, "AUG__MASK_FRAMES": True, "AUG__MASK_TUBE": True},
            r"AUG\.MASK_TUBE .*AUG\.MASK_FRAMES True",
        ),
        (
            {"AUG__MASK_TUBE": True, "MASK__PER_FRAME_MASKING": True},
            r"AUG\.MASK_TUBE and MASK\.PER_FRAME_MASKING .*True",
        ),
        (
            {**CUBES, "MASK__PER_FRAME_MASKING": True},
            r"MASK\.PER_FRAME_MASKING .*MASK\.MAE_RND_MASK",
        ),
    ],
)
@pytest.mark.parametrize("visible_only", [True, False])
def test_two_kinds_of_masks_at_once_are_refused(changes, message, visible_only):
    with pytest.raises(ValueError, match=message):
        sampler(**changes, MASK__MAE_ON=visible_only)


def test_an_image_has_no_frames_to_hide():
    with pytest.raises(ValueError, match=r"AUG\.MASK_FRAMES .*1x4x4"):
        sampler("pt_image_hog", AUG__MASK_RATIO=0.4, AUG__MASK_FRAMES=True)


def test_a_clip_of_one_step_has_the_window_of_videos():
    """Two frames that one token covers are no image: the window counts."""
    changes = {"DATA__NUM_FRAMES": 2, "AUG__MASK_RATIO": 0.4}
    mask = draw(sampler("pt_video_hog", AUG__MASK_WINDOW_SIZE=[1, 2, 2], **changes), 1)[0]
    assert mask.shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"AUG\.MASK_WINDOW_SIZE .*got 8x7x7"):
        sampler("pt_video_hog", AUG__MASK_WINDOW_SIZE=[8, 7, 7], **changes)
