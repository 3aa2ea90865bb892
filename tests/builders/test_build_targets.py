"""MASK.TARGET: one table of targets, one order of pixels, every mask with every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from helpers.golden_rule import fill_with_golden_weights, golden_randn
from helpers.tiny_cases import tiny_options
from helpers.tiny_teachers import IMAGE_CLASSIFIER, save_teacher, save_tokenizer

from slowfast_maskfeat.backbones import resize_mask
from slowfast_maskfeat.builders import build_mask_sampler, build_model, build_task
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.builders.targets import TARGETS
from slowfast_maskfeat.builders.task import build_targets
from slowfast_maskfeat.builders.weights import model_facts
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.shapes import Grid

IMAGE = "pt_image_hog"
VIDEO = "pt_video_vit_hog_rnd"


def config(case: str, **changes: Any) -> CfgNode:
    pairs = tiny_options(case, **changes).items()
    return load_config([], [str(word) for pair in pairs for word in pair])


def pixels(case: str, **changes: Any) -> Any:
    (target,) = build_targets(config(case, MASK__PRED_HOG=False, **changes))
    return target


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("all_frames", [True, False])
def test_pixels_of_an_image_and_of_a_still_clip_have_one_order(norm: bool, all_frames: bool):
    changes = {"MASK__TARGET": "pixels", "MASK__NORM_PRED_PIXEL": norm}
    picture = golden_randn(1, (2, 3, 1, 64, 64))
    of_image = pixels(IMAGE, **changes).encode(picture, Grid(1, 4, 4))
    video = pixels(VIDEO, **changes, MASK__TIME_STRIDE_LOSS=not all_frames)
    of_video = video.encode(picture.expand(-1, -1, 8, -1, -1), Grid(4, 4, 4))
    frames = 2 if all_frames else 1
    expected = of_image.repeat(1, 4, frames)  # (B, t * h * w, frame * row * column * color)
    torch.testing.assert_close(of_video, expected, rtol=1e-3 if norm else 0, atol=1e-3 * norm)


@pytest.mark.parametrize(
    ("case", "changes", "color_first"),
    [
        (IMAGE, {}, True),  # what a published file means
        (IMAGE, {"MASK__TARGET": "pixels"}, False),
        (VIDEO, {}, False),
        (VIDEO, {"MASK__TARGET": "pixels"}, False),
    ],
)
def test_the_published_order_of_images_stands_behind_published_files(case, changes, color_first):
    cfg = config(case, MASK__PRED_HOG=False, **changes)
    # What converts weights of other libraries must know the same.
    assert model_facts(cfg, build_model(cfg)).color_first == color_first
    target = pixels(case, MASK__NORM_PRED_PIXEL=False, **changes)
    steps, frames = (1, 1) if case == IMAGE else (4, 8)
    clip = golden_randn(1, (1, 3, frames, 64, 64))
    token = target.encode(clip, Grid(steps, 4, 4))[0, 5]  # second row, second column
    patch = clip[0, :, 0, 16:32, 16:32]
    assert torch.equal(token, (patch if color_first else patch.permute(1, 2, 0)).flatten())


def test_the_loss_of_pixels_is_what_the_key_says():
    prediction, described = golden_randn(1, (9, 768)), golden_randn(2, (9, 768)).exp()
    difference = prediction - described
    for loss, expected in (("l2", difference.square()), ("l1", difference.abs())):
        target = pixels(IMAGE, MASK__PIXEL_LOSS=loss)
        torch.testing.assert_close(target.loss(prediction, described), expected.mean(1))


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_no_other_constant_is_better_than_the_baseline(loss: str):
    target = pixels(IMAGE, MASK__PIXEL_LOSS=loss)
    described = golden_randn(2, (50, 768)).exp()  # skewed: mean and median differ
    baseline = target.baseline_loss(described)
    best = target.constant_prediction(described)
    for other in (best + 0.05, best - 0.05, described[0]):
        assert target.loss(other.expand(50, -1), described).mean() > baseline


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """Checkpoint of a classifier of images, for the targets that need a network."""
    return str(save_teacher(tmp_path_factory.mktemp("teacher"), IMAGE_CLASSIFIER))


@pytest.fixture(scope="module")
def networks(teacher, tmp_path_factory) -> dict[str, str]:
    """The keys of the networks that targets need, with their checkpoints."""
    tokenizer = save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return {"MASK__TEACHER_CHECKPOINT": teacher, "TOKENIZER__CHECKPOINT": str(tokenizer)}


@pytest.mark.parametrize("case", [IMAGE, VIDEO, "pt_video_hog", "mae_sincos_decsep"])
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_is_as_wide_as_the_model_predicts(case: str, name: str, networks):
    cfg = config(case, MASK__TARGET=name, **networks)
    assert prediction_dims(cfg) == [target.dim for target in build_targets(cfg)]


def test_an_unknown_target_is_one_clear_error():
    cfg = config(IMAGE, MASK__TARGET="edges")
    message = r"MASK\.TARGET must be one of 'hog', 'pixels', .* got 'edges'"
    for build in (find_method(cfg).check, build_model):
        with pytest.raises(ValueError, match=message):
            build(cfg)


@pytest.mark.parametrize("hog", [{"MASK__TARGET": "hog"}, {"MASK__PRED_HOG": True}])
def test_the_loss_of_pixels_is_not_one_of_hog(hog: dict[str, Any]):
    cfg = config(IMAGE, MASK__PIXEL_LOSS="l1", **hog)
    for build in (find_method(cfg).check, build_model):
        with pytest.raises(ValueError, match=r"MASK\.PIXEL_LOSS must be 'l2' .* got 'l1'"):
            build(cfg)


def test_fixed_positions_of_a_decoder_need_one():
    cfg = config(IMAGE, MASK__DECODER_FIXED_SINCOS_POS=True)
    with pytest.raises(ValueError, match=r"DECODER_FIXED_SINCOS_POS requires MASK\.MAE_ON True"):
        build_model(cfg)


MASKS = {
    "random": {},
    "tube": {"AUG__MASK_TUBE": True},
    "per frame": {"MASK__PER_FRAME_MASKING": True},
    "whole frames": {"MASK__MAE_RND_MASK": False, "AUG__MASK_FRAMES": True},
    "blocks": {"MASK__RANDOM_BLOCK": [1, 2, 2]},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("visible_only", [True, False])
def test_every_mask_goes_with_every_target_and_both_encoders(mask, target, visible_only, networks):
    changes = {**MASKS[mask], "MASK__TARGET": target, "MASK__MAE_ON": visible_only}
    cfg = config("mae_sincos_decsep", **networks, **changes)
    model = fill_with_golden_weights(build_model(cfg))
    task = build_task(cfg, model)
    generator, sample = np.random.default_rng(0), build_mask_sampler(cfg)
    masks = torch.stack([sample(generator) for _ in range(2)])
    clips = torch.from_numpy(generator.integers(0, 256, (2, 3, 8, 64, 64), dtype=np.uint8))
    output = task.step(model, ClipBatch(clips, mask=masks))
    (grid,) = model.prediction_grids(clips.shape[2:])
    assert int(output.weight) == int(resize_mask(masks, grid).sum())
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
