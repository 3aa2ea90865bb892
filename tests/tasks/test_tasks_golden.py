"""The tasks' losses are the published ones, on the tiny golden models."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from helpers.golden_rule import (
    fill_with_golden_weights,
    golden_json,
    golden_mask,
    golden_npz,
    golden_randn,
)

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets.row_collector import RowCollector
from slowfast_maskfeat.losses import soft_cross_entropy

PRETRAINING = [
    "pt_video_hog",
    "pt_video_hog_abspos",
    "pt_video_hog_nocls",
    "pt_video_hog_truncated",
    "pt_video_hog_xformer",
    "pt_video_pixel",
    "pt_image_hog",
    "pt_video_vit_hog_rnd",
    "mae_sincos_decsep",
]
CLASSIFICATION = ["v1_sep", "v2_ft", "v2_k400", "img_vit_ft"]


def _config(golden):
    words = [str(word) for pair in golden["options"].items() for word in pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config([], words)


def _case(name):
    golden = golden_json(f"tiny/{name}.json")
    cfg = _config(golden)
    model = fill_with_golden_weights(build_model(cfg)).eval()
    clips = golden_randn(golden["input_seed"], golden["input_shape"])
    if clips.ndim == 4:
        clips = clips[:, :, None]  # an image is a clip with T = 1
    return golden, golden_npz(f"tiny/{name}.npz"), model, build_task(cfg, model), clips


@pytest.mark.parametrize("name", PRETRAINING)
def test_pre_training_gives_the_published_loss(name):
    golden, arrays, model, task, clips = _case(name)
    ratio = golden["options"].get("AUG.MASK_RATIO", 0.0)
    mask = golden_mask(golden, ratio=ratio, grid=(4, 4, 4))
    output = task.step(model, ClipBatch(clips, mask=mask))
    assert float(output.loss.detach()) == pytest.approx(golden["loss"], rel=1e-5)
    assert int(output.weight) == golden["pred0"]["shape"][0]
    output.loss.backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    total = torch.stack(norms).norm()
    assert float(total) == pytest.approx(golden["grad_total_norm"], rel=1e-4)
    label = torch.from_numpy(arrays["label0"])
    baseline = float(((label - label.mean(0)) ** 2).mean())
    assert float(output.scalars["baseline"]) == pytest.approx(baseline, rel=1e-5)


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_step_of_pre_training_reads_nothing_back(name):
    """Of a device without values nothing can be read: all sizes follow from masks on the CPU."""
    golden, device = golden_json(f"tiny/{name}.json"), torch.device("meta")
    cfg = _config(golden)
    with device:
        model = build_model(cfg)
    task = build_task(cfg, model)
    task.to(device)
    grid = model.prediction_grids(model.options.clip_size)[-1]
    mask = golden_mask(golden, ratio=cfg.AUG.MASK_RATIO, grid=grid)
    size = (len(mask), 3, *model.options.clip_size)
    batch = ClipBatch(torch.zeros(size, dtype=torch.uint8), mask=mask).to(device)
    assert (batch.clips.device.type, batch.mask.device.type) == ("meta", "cpu")
    output = task.step(model, batch)
    output.loss.backward()
    assert {p.grad.device.type for p in model.parameters() if p.requires_grad} == {"meta"}


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classification_gives_the_published_loss(name):
    golden, arrays, model, task, clips = _case(name)
    num_classes = arrays["logits"].shape[1]
    target = np.full(arrays["logits"].shape, 0.1 / num_classes, dtype=np.float32)
    for row in range(len(target)):
        target[row, (3 + 11 * row) % num_classes] += np.float32(0.63)
        target[row, (7 + 13 * row) % num_classes] += np.float32(0.27)
    task.loss = soft_cross_entropy
    output = task.step(model, ClipBatch(clips, labels=torch.from_numpy(target)))
    assert float(output.loss.detach()) == pytest.approx(golden["loss"], rel=1e-5)
    assert int(output.weight) == 2


def test_the_scalar_top1_is_the_percentage_of_right_answers():
    _, arrays, model, task, clips = _case("v1_sep")
    right = torch.from_numpy(arrays["logits"].argmax(1))
    wrong = (right + torch.tensor([0, 1])) % 20
    assert task.step(model, ClipBatch(clips, labels=right)).scalars["top1"].item() == 100
    assert float(task.step(model, ClipBatch(clips, labels=wrong)).scalars["top1"]) == 50


def test_uint8_clips_and_their_normalized_form_have_the_same_hog_target():
    _, arrays, model, task, _ = _case("pt_video_hog")
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(
        torch.rand(2, 3, 8, 8, 8, generator=generator), size=(8, 64, 64), mode="trilinear"
    )
    pixels = (smooth * 255).round().to(torch.uint8)
    mask = torch.from_numpy(arrays["mask"].astype(bool))
    as_float = (pixels.float() / 255 - 0.45) / 0.225
    first = task.step(model, ClipBatch(pixels, mask=mask))
    second = task.step(model, ClipBatch(as_float, mask=mask))
    # Integer gradients have exact ties where floats fall to either side, so not to the last digit.
    assert first.loss.item() == pytest.approx(second.loss.item(), rel=1e-2)


def _videos(count):
    """A list of so many rows."""
    rows = RowCollector("list", None)
    for number in range(count):
        rows.add(number, f"{number}.mp4", None)
    return rows.finish("")


def test_every_clip_of_a_video_counts_once_in_its_score():
    _, _, model, task, clips = _case("v1_sep")
    evaluation = task.evaluation(_videos(3), num_views=2)
    index, view = torch.tensor([0, 0]), torch.tensor([0, 1])
    labels = torch.tensor([4, 4])
    batch = ClipBatch(clips, labels=labels, index=index, view=view)
    with torch.no_grad():
        evaluation.add(model, batch)
        expected = model(clips).softmax(1).double().mean(0)
    evaluation.merge(lambda tensor, operation: tensor)
    results = evaluation.results()
    assert results["num_videos"] == 3
    assert results["num_videos_scored"] == 1
    assert results["num_clips"] == 2
    assert results["top1"] == 100.0 * float(expected.argmax() == 4)


def test_a_list_without_labels_can_not_be_classified():
    _, _, model, task, clips = _case("v1_sep")
    with pytest.raises(ValueError, match="needs labels"):
        task.step(model, ClipBatch(clips))
