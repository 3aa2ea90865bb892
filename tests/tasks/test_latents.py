"""Prediction of EMA latents: the loss by its definition, and the movement of the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import fill_with_golden_weights
from helpers.tiny_cases import tiny_options
from helpers.tiny_views import view_settings, view_state

from slowfast_maskfeat import distributed
from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import resize_mask
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.builders.latents import latent_masks
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.losses import koleo

MAE = "mae_sincos_decsep"
BLOCKS = [[2, 0.25], [1, 0.5], [3, 0.2]]
MULTIBLOCK = {
    "MASK__FEATURE_LOSS": "l1",
    "MASK__MAE_RND_MASK": False,
    "AUG__MASK_KIND": "multiblock",
    "AUG__MASK_BLOCKS": BLOCKS,
}


def _config(case=MAE, **changes):
    changes = {"AUG__MASK_RATIO": 0.4, **changes}
    options = tiny_options(case, MASK__TARGET="latents", **changes)
    return load_config([], [str(word) for pair in options.items() for word in pair])


def _built(cfg):
    model = fill_with_golden_weights(build_model(cfg))
    return model, build_task(cfg, model)


def _batch(cfg, num_clips=2):
    size = cfg.DATA.TRAIN_CROP_SIZE
    shape = (num_clips, 3, cfg.DATA.NUM_FRAMES, size, size)
    clips = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    (sampler,) = latent_masks(cfg)
    masks = [sampler(np.random.default_rng(number)) for number in range(num_clips)]
    return ClipBatch(clips.to(torch.uint8), mask=torch.stack(masks))


def test_several_masks_are_predicted_each_with_its_mask_token():
    cfg = _config(**MULTIBLOCK)
    model, _ = _built(cfg)
    batch = _batch(cfg)
    assert batch.mask.shape[1] == len(BLOCKS) == len(model.mask_token)
    clips = normalize(batch.clips, cfg.DATA.MEAN, cfg.DATA.STD)
    predictions = model(clips, batch.mask)
    one = build_model(_config(MASK__MAE_RND_MASK=True, AUG__MASK_RATIO=0.5))
    for number, prediction in enumerate(predictions):
        weights = dict(model.state_dict())
        weights["mask_token"] = weights["mask_token"][number : number + 1]
        one.load_state_dict(weights)
        (alone,) = one(clips, batch.mask[:, number])
        assert prediction.equal(alone)
    with pytest.raises(ValueError, match=r"each clip must have 3 masks, .* got 1"):
        model(clips, batch.mask[:, 0])


def test_the_loss_is_the_mean_over_masks_of_the_distance_to_normalized_features():
    cfg = _config(**MULTIBLOCK)
    model, task = _built(cfg)
    with torch.no_grad():  # the teacher is another network by now
        for parameter in task.teacher.network.parameters():
            parameter.mul_(1.5)
    batch = _batch(cfg)
    output = task.step(model, batch)
    clips = normalize(batch.clips, cfg.DATA.MEAN, cfg.DATA.STD)
    own = {name: w.clone() for name, w in model.state_dict().items()}
    with torch.no_grad():
        predictions = model(clips, batch.mask)
        model.load_state_dict({**own, **task.teacher.network.state_dict()})
        latent = model.tokens(clips)[:, int(model.has_cls) :]
    target = F.layer_norm(latent, latent.shape[-1:], eps=1e-5)
    (grid, *_) = model.prediction_grids(clips.shape[2:])
    expected = []
    for prediction, mask in zip(predictions, batch.mask.unbind(1), strict=True):
        masked = resize_mask(mask, grid).flatten(1)
        expected.append((prediction - target[masked]).abs().mean())
    assert float(output.loss.detach()) == pytest.approx(float(sum(expected) / 3), rel=1e-5)
    assert float(output.weight) == resize_mask(batch.mask[:, 0], grid).sum()


FORMS = [("pt_video_hog", {}), ("pt_image_hog", {}), (MAE, MULTIBLOCK)]
KOLEO = {"CONTRASTIVE__KOLEO_WEIGHT": 0.1}


@pytest.mark.parametrize(("case", "changes"), FORMS)
def test_koleo_keeps_the_encoder_s_features_of_the_masked_clips_apart(case, changes):
    model, task = _built(cfg := _config(case, **changes, **KOLEO))
    plain_model, plain = _built(_config(case, **changes))
    batch = _batch(cfg, 4)
    output = task.step(model, batch)
    assert tuple(output.scalars) == task.scalar_names
    expected = plain.step(plain_model, batch)
    assert "koleo" not in expected.scalars
    clips = normalize(batch.clips, cfg.DATA.MEAN, cfg.DATA.STD)
    pooled = []
    if case == MAE:
        tokens, grid = model.embed(clips)
        for mask in batch.mask.unbind(1):
            visible = (~resize_mask(mask, grid)).flatten(1).nonzero()[:, 1].view(4, -1)
            pooled.append(model.encode_visible(tokens, visible)[:, int(model.has_cls) :].mean(1))
    else:
        pooled.append(model.tokens(clips, batch.mask)[:, int(model.has_cls) :].mean(1))
    distances = sum(koleo(features).mean() for features in pooled) / len(pooled)
    torch.testing.assert_close(output.scalars["koleo"], distances.detach())
    torch.testing.assert_close(output.loss, expected.loss + 0.1 * distances)


@pytest.mark.parametrize(("case", "changes"), FORMS)
def test_validation_lacks_koleo(case, changes):
    results = []
    for options in ({}, KOLEO):
        model, task = _built(cfg := _config(case, **changes, **options))
        evaluation = task.eval().evaluation(range(4), 1)
        evaluation.add(model.eval(), _batch(cfg, 4))
        evaluation.merge(lambda tensor, operation: tensor)
        results.append(evaluation.results())
    assert results[0] == results[1]


def _train_own_half(folder):
    cfg = _config(**MULTIBLOCK, **KOLEO)
    state = view_state(cfg)
    if distributed.world_size() > 1:
        state.model = distributed.wrap(state.model)
    batch = _batch(cfg, 4)
    own = batch.split(4 // distributed.world_size())[distributed.rank()]
    losses = []
    for step in range(2):
        _, sums, _ = train_step(
            state, own, view_settings(cfg), torch.device("cpu"), progress=step / 4
        )
        means = dict(zip(("loss", *state.task.scalar_names), sums[1:] / sums[0], strict=True))
        del means["baseline"]  # of the constants of each process
        losses.append(means)
    result = {"losses": losses, "model": state.bare.state_dict(), "task": state.task.state_dict()}
    torch.save(result, Path(folder) / f"{distributed.rank()}.pt")


def test_two_processes_with_koleo_equal_one(tmp_path):
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    launch(_train_own_half, 2, (str(two),))
    _train_own_half(str(one))
    expected = torch.load(one / "0.pt", weights_only=True)
    for rank in (0, 1):
        got = torch.load(two / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("case", "changes"), FORMS)
def test_the_teacher_moves_linearly_and_only_with_a_step(case, changes):
    cfg = _config(case, MASK__TEACHER_MOMENTUM=[0.5, 0.9], **changes)
    model, task = _built(cfg)
    task.start(model)
    network = task.teacher.network
    assert {name for name, _ in network.named_parameters()} < set(model.state_dict())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    task.step(model.train(), _batch(cfg)).loss.backward()
    assert all(parameter.grad is None for parameter in network.parameters())
    task.train()
    assert not any(module.training for module in task.teacher.modules())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    student = {name: value + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(student)
    task.after_step(model, 0.25, torch.tensor(False))
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())
    task.after_step(model, 0.25, torch.tensor(True))  # momentum 0.6
    for name, value in network.named_parameters():
        assert torch.allclose(value, 0.6 * before[name] + 0.4 * student[name], atol=1e-6), name
    fixed = set(network.state_dict()) - {name for name, _ in network.named_parameters()}
    assert all(network.state_dict()[name].equal(before[name]) for name in fixed)


def test_a_step_with_weights_that_are_not_finite_moves_no_teacher():
    cfg = _config("pt_video_hog")
    model, task = _built(cfg)
    before = {name: value.clone() for name, value in task.teacher.network.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    task.after_step(model, 0.0, torch.tensor(False))
    assert all(v.equal(before[name]) for name, v in task.teacher.network.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASK__TEACHER_MOMENTUM": [0.9]}, r"MASK\.TEACHER_MOMENTUM must be two numbers"),
        ({"MASK__TEACHER_MOMENTUM": [0.9, 1.1]}, r"MASK\.TEACHER_MOMENTUM .* got \[0\.9, 1\.1\]"),
        ({"MASK__TEACHER_CHECKPOINT": "a.pyth"}, r"MASK\.TEACHER_CHECKPOINT must be '' with"),
        ({"MASK__PRETRAIN_DEPTH": [0]}, r"MASK\.PRETRAIN_DEPTH must be \[\d+\], the last block"),
        ({"MASK__TEACHER_NUM_LAYERS": 99}, r"MASK\.TEACHER_NUM_LAYERS must be in \[1, \d+\]"),
        (
            {**KOLEO, "TRAIN__BATCH_SIZE": 1},
            r"TRAIN\.BATCH_SIZE must give CONTRASTIVE\.KOLEO_WEIGHT at least 2 samples",
        ),
        ({"AUG__MASK_KIND": "multiblock"}, r"AUG\.MASK_KIND must be a kind with one mask"),
    ],
)
def test_keys_that_contradict_latents_are_refused(changes, message):
    cfg = _config("pt_video_hog", **changes)
    with pytest.raises(ValueError, match=message):
        _built(cfg)
