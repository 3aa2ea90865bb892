"""BYOL, DINO and iBOT: what moves, what does not, and what is equal."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fvcore.common.config import CfgNode
from helpers.tiny_views import (
    KINDS,
    in_float64,
    view_batch,
    view_config,
    view_options,
    view_settings,
    view_state,
)
from pytorchvideo.layers.drop_path import DropPath
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import BatchNorm
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.schedules import EpochWarmup
from slowfast_maskfeat.tasks.teacher import Center, entropies, relative_entropy

CPU = torch.device("cpu")
VIDEO = "pt_video_hog_nocls"


def run_steps(kind: str, batches: list[ClipBatch], *, parts: int = 1, **changes: Any) -> Any:
    """State after a step on each batch, with the losses; progress is that of one epoch a step."""
    cfg = view_config(kind, **changes)
    state = view_state(cfg, dtype=batches[0].clips.dtype)
    losses = []
    for number, batch in enumerate(batches):
        progress = number / cfg.SOLVER.MAX_EPOCH
        settings = view_settings(cfg, parts=parts)
        _, sums, result = train_step(state, batch, settings, CPU, progress=progress)
        assert bool(result.taken) == bool(torch.isfinite(sums[1]))
        losses.append(float(sums[1] / sums[0]))
    return state, losses


def copied(module: nn.Module) -> dict[str, Tensor]:
    tensors = {n: x for n, x in module.state_dict().items() if isinstance(x, Tensor)}
    return {name: value.clone() for name, value in tensors.items()}


@pytest.mark.parametrize("case", ["img_vit", VIDEO])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_student_and_then_the_teacher(kind, case):
    cfg = view_config(kind, case)
    state = view_state(cfg)
    before, start = copied(state.task), copied(state.model)
    _, sums, _ = train_step(state, view_batch(cfg, 3), view_settings(cfg), CPU, progress=0.0)
    assert torch.isfinite(sums).all()
    after = state.model.state_dict()
    moved = [name for name in after if not after[name].equal(start[name])]
    assert len(moved) > 0.8 * len(after)
    for name, old in before.items():
        if not name.startswith(state.task.teacher_prefix):
            continue
        own = name.removeprefix(state.task.teacher_prefix)
        if own in dict(state.model.named_parameters()):
            expected = 0.9 * old + 0.1 * after[own]  # the momentum at progress 0
            torch.testing.assert_close(state.task.state_dict()[name], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_the_teacher(kind):
    cfg = view_config(kind)
    state = view_state(cfg)
    state.task.step(state.model, view_batch(cfg, 3)).loss.backward()
    assert not any(p.requires_grad or p.grad is not None for p in state.task.parameters())
    gradients = [p.grad for p in state.model.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)


def test_the_target_of_byol_is_a_constant():
    """The student's gradient equals that of the loss with the target written out as numbers."""
    cfg = view_config("byol")
    state = view_state(cfg)
    views = state.task.clips_of_views([batch := view_batch(cfg, 3)])
    first, second = (x.detach() for x in state.task.teacher(views).views)
    state.task.step(state.model, batch).loss.backward()
    expected = {n: p.grad.clone() for n, p in state.model.named_parameters()}
    state.model.zero_grad()
    predictions = state.model(views).views
    cosines = [
        nn.functional.cosine_similarity(prediction, target).mean()
        for prediction, target in zip(predictions, (second, first), strict=True)
    ]
    (4 - 2 * sum(cosines)).backward()
    for name, parameter in state.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_ibot_without_its_patches_is_dino():
    of_dino, of_ibot = (view_state(view_config(kind)) for kind in ("dino", "ibot"))
    of_ibot.task.patch_weight = 0.0
    weights = of_dino.model.state_dict()
    of_ibot.model.load_state_dict(weights, strict=False)
    of_ibot.task.start(of_ibot.model)
    batch = view_batch(view_config("ibot"), 3)
    batch = replace(batch, mask=torch.zeros_like(batch.mask))
    for step in range(3):
        settings = view_settings(view_config("dino"))
        sums = [
            train_step(state, batch, settings, CPU, progress=step / 4)[1][1]
            for state in (of_dino, of_ibot)
        ]
        torch.testing.assert_close(sums[0], sums[1])
    for name, value in of_dino.model.state_dict().items():
        torch.testing.assert_close(of_ibot.model.state_dict()[name], value, msg=name)
    torch.testing.assert_close(of_ibot.task.center.center, of_dino.task.center.center)
    assert not of_ibot.model.backbone.masked_embed.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_with_a_nan_moves_nothing(kind):
    batch = view_batch(view_config(kind), 3)
    clips = batch.clips.clone()
    clips[0, 0, 0, 0, 0] = torch.nan
    cfg = view_config(kind)
    state = view_state(cfg)
    train_step(state, batch, view_settings(cfg), CPU, progress=0.0)
    before = copied(state.task) | copied(state.model)
    broken = replace(batch, clips=clips)
    _, _, result = train_step(state, broken, view_settings(cfg), CPU, progress=0.25)
    assert not bool(result.taken)
    after = copied(state.task) | copied(state.model)
    assert all(value.equal(after[name]) for name, value in before.items())
    # Nor is anything of it left for the next step.
    train_step(state, batch, view_settings(cfg), CPU, progress=0.25)
    expected, _ = run_steps(kind, [batch, batch])
    for part in ("model", "task"):
        own = copied(getattr(expected, part))
        for name, value in copied(getattr(state, part)).items():
            torch.testing.assert_close(value, own[name], msg=name)


@pytest.mark.parametrize("kind", ["dino", "ibot"])
def test_parts_of_a_batch_equal_the_batch(kind):
    batches = [view_batch(view_config(kind), 4, seed=seed) for seed in range(3)]
    whole, losses = run_steps(kind, batches)
    split, losses_of_parts = run_steps(kind, batches, parts=2)
    assert losses_of_parts == pytest.approx(losses, rel=1e-5)
    for part in ("model", "task"):
        expected = copied(getattr(whole, part))
        for name, value in copied(getattr(split, part)).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_entropy_of_masked_tokens_is_that_of_the_batch_whatever_its_parts():
    """Parts without a masked token, here all but one, do not count."""
    cfg = view_config("ibot")
    batch = view_batch(cfg, 4)
    batch.mask[2:] = False
    batch.mask[0, 0, :2] = True
    found = []
    for parts in (1, 2, 4):
        settings = view_settings(cfg, parts=parts)
        names, sums, _ = train_step(view_state(cfg), batch, settings, CPU)
        found.append(dict(zip(names, (sums[1:] / sums[0]).tolist(), strict=True)))
    for of_parts in found[1:]:
        for name in ("loss", "patches", "teacher_entropy", "patch_entropy", "patch_mean_entropy"):
            assert of_parts[name] == pytest.approx(found[0][name], rel=1e-5), name


def test_parts_of_a_batch_warn_of_batch_norm():
    cfg = view_config("byol", TRAIN__ACCUMULATION_STEPS=2)
    with pytest.warns(UserWarning, match=r"ACCUMULATION_STEPS 2 changes .* CONTRASTIVE\.BN_MLP"):
        build_task(cfg, build_model(cfg))


def _batches(kind: str) -> list[ClipBatch]:
    return [in_float64(view_batch(view_config(kind), 4, seed=seed)) for seed in range(2)]


def _train_own_half(folder: str) -> None:
    rank = distributed.rank()
    for kind in KINDS:
        cfg = view_config(kind)
        state = view_state(cfg, dtype=torch.float64)
        state.model = distributed.wrap(state.model)
        losses = []
        for number, batch in enumerate(_batches(kind)):
            own = batch.split(2)[rank]
            progress = number / cfg.SOLVER.MAX_EPOCH
            _, sums, _ = train_step(state, own, view_settings(cfg), CPU, progress=progress)
            losses.append(float(sums[1] / sums[0]))
        results = {"losses": losses, "model": copied(state.bare), "task": copied(state.task)}
        torch.save(results, Path(folder) / f"{kind}{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    """Losses, weights, teacher, centers and running statistics, in float64: in float32 batch norm
    of nearly equal features enlarges rounding errors."""
    launch(_train_own_half, 2, (str(tmp_path),))
    for kind in KINDS:
        state, losses = run_steps(kind, _batches(kind))
        for rank in (0, 1):
            got = torch.load(tmp_path / f"{kind}{rank}.pt", weights_only=True)
            assert got["losses"] == pytest.approx(losses, rel=1e-9), kind
            for part in ("model", "task"):
                for name, value in copied(getattr(state, part)).items():
                    torch.testing.assert_close(
                        got[part][name], value, rtol=1e-7, atol=1e-9, msg=f"{kind} {name}"
                    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_training_goes_on_bit_for_bit(kind):
    cfg = view_config(kind)
    batches = [view_batch(cfg, 3, seed=seed) for seed in range(3)]
    whole, losses = run_steps(kind, batches)
    half, _ = run_steps(kind, batches[:2])
    payload = {**half.payload(), "epoch": 1, "step": 0}
    again = view_state(cfg, seed=5)  # other first weights
    again.restore(payload, "file")
    assert again.task.get_extra_state() == {"progress": 0.25}
    _, sums, _ = train_step(again, batches[2], view_settings(cfg), CPU, progress=0.5)
    assert float(sums[1] / sums[0]) == losses[2]
    for part in ("model", "task"):
        expected = copied(getattr(whole, part))
        own = copied(getattr(again, part))
        assert all(value.equal(expected[name]) for name, value in own.items())


def test_prototypes_are_frozen_in_the_first_epochs():
    batch = view_batch(view_config("ibot"), 3)
    changes = {"FREEZE_LAST_LAYER_EPOCHS": 2, "NORM_LAST_LAYER": False}
    start = copied(view_state(view_config("ibot", **changes)).model)
    for num_steps in (2, 3):
        state, _ = run_steps("ibot", [batch] * num_steps, **changes)
        now = state.model.state_dict()
        last = [name for name in now if "last_layer" in name]
        assert len(last) == 4
        assert all(now[name].equal(start[name]) for name in last) == (num_steps == 2)
        assert not now["head.mlp.0.weight"].equal(start["head.mlp.0.weight"])


def test_the_teacher_has_no_drop_path():
    cfg = view_config("dino", MVIT__DROPPATH_RATE=0.5)
    state = view_state(cfg)
    rates = [
        [module.drop_prob for module in network.modules() if isinstance(module, DropPath)]
        for network in (state.model, state.task.teacher)
    ]
    assert max(rates[0]) == 0.5
    assert max(rates[1]) == 0.0
    assert state.task.teacher.network.training


def test_evaluation_changes_nothing():
    for kind in KINDS:
        cfg = view_config(kind)
        state, _ = run_steps(kind, [view_batch(cfg, 3)])
        state.model.eval()
        state.task.eval()
        before = copied(state.task) | copied(state.model)
        output = state.task.step(state.model, view_batch(cfg, 3, seed=4))
        assert torch.isfinite(output.loss)
        state.task.after_step(state.model, 0.5, torch.tensor(False))
        after = copied(state.task) | copied(state.model)
        assert all(value.equal(after[name]) for name, value in before.items())


def test_the_center_follows_its_formula():
    center = Center(3, momentum=0.9, temperature=EpochWarmup(0.5, 1.0, 0))
    outputs = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 2.0, 8.0]])
    center.add_outputs(outputs[:2])
    center.add(outputs[2], 1)
    center.add_outputs(outputs[:0])  # of no outputs
    center.move(torch.tensor(True))
    torch.testing.assert_close(center.center, 0.1 * outputs.mean(dim=0))
    before = center.center.clone()
    center.move(torch.tensor(True))  # without outputs
    assert center.center.equal(before)
    expected = (outputs - before).softmax(dim=1)
    torch.testing.assert_close(center.distribution(outputs, 0), expected)


def test_temperatures_rise_by_epoch():
    rise = EpochWarmup(0.04, 0.07, 4)
    assert [rise(epoch) for epoch in range(5)] == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])
    assert EpochWarmup(0.04, 0.07, 0)(0) == 0.07
    assert [EpochWarmup(0.04, 0.07, 1)(epoch) for epoch in (0, 1)] == [0.04, 0.07]
    state, _ = run_steps("dino", [view_batch(view_config("dino"), 3)] * 3)
    assert state.task.epoch == 2


def test_entropy_is_relative_to_the_uniform_distribution():
    assert relative_entropy(torch.full((5, 7), 1 / 7)).tolist() == pytest.approx([100] * 5)
    assert relative_entropy(torch.eye(7)).tolist() == [0] * 7
    half = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert float(relative_entropy(half)) == pytest.approx(50)


@pytest.mark.parametrize(
    ("distributions", "single", "of_mean"),
    [
        (torch.eye(4).reshape(2, 2, 4), 0, 100),  # sharp, and all prototypes are in use
        (torch.eye(4)[[2, 2, 2]], 0, 0),  # all the same
        (torch.full((3, 4), 0.25), 100, 100),  # the same, too
        (torch.empty(0, 4), 0, 0),
    ],
)
def test_equal_entropies_are_a_collapse(distributions, single, of_mean):
    found = entropies("patch", distributions)
    assert float(found["patch_entropy"]) == pytest.approx(single)
    assert float(found["patch_mean_entropy"]) == pytest.approx(of_mean, abs=1e-5)


@pytest.mark.parametrize("kind", ["dino", "ibot"])
def test_a_step_has_the_entropies_of_its_distributions(kind):
    cfg = view_config(kind)
    state = view_state(cfg)
    scalars = state.task.step(state.model, view_batch(cfg, 3)).scalars
    assert tuple(scalars) == state.task.scalar_names
    for part in ("teacher", "patch") if kind == "ibot" else ("teacher",):
        assert 0 < scalars[f"{part}_entropy"] < scalars[f"{part}_mean_entropy"] < 100


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("byol", {"PREDICTOR_DEPTHS": []}, r"PREDICTOR_DEPTHS must be .* got \[\]"),
        ("byol", {"PREDICTOR_DEPTHS": [2, 3]}, r"PREDICTOR_DEPTHS must be .* got \[2, 3\]"),
        ("byol", {"TRAIN__BATCH_SIZE": 1}, r"TRAIN\.BATCH_SIZE must give CONTRASTIVE\.BN_MLP"),
        ("byol", {"MODEL__ARCH": "slow"}, r"MODEL\.ARCH must be 'mvit'.*got 'slow'"),
        ("byol", {"TYPE": "moco"}, r"TYPE must be one of 'byol', 'dino', 'ibot' .* got 'moco'"),
        ("byol", {"DATA__SSL_LOCAL_VIEWS": 4}, r"SSL_LOCAL_VIEWS must be 0 .*'byol', got 4"),
        ("ibot", {"AUG__MASK_KIND": ""}, r"AUG\.MASK_KIND must be set with .*'ibot'"),
        ("dino", {"MODEL__ARCH": "maskmvit"}, r"MODEL\.ARCH must be 'mvit' with MODEL\.MODEL_NAME"),
        ("dino", {"TEACHER_T": [0.1]}, r"CONTRASTIVE\.TEACHER_T must be two numbers > 0"),
        ("dino", {"T": 0.0}, r"CONTRASTIVE\.T must be > 0"),
        ("dino", {"DIM": 1}, r"CONTRASTIVE\.DIM must be at least 2 prototypes .* 'dino', got 1"),
        ("ibot", {"PATCH_DIM": 1}, r"CONTRASTIVE\.PATCH_DIM must be at least 2 .* 'ibot', got 1"),
        ("ibot", {"PATCH_CENTER": "none"}, r"PATCH_CENTER must be one of 'all', 'masked'"),
        (
            "dino",
            {"DATA__SSL_LOCAL_VIEWS": 2, "DATA__SSL_LOCAL_CROP_SIZE": 18},
            r"DATA\.SSL_LOCAL_CROP_SIZE must be a multiple of MVIT\.PATCH_STRIDE .*, got 18$",
        ),
        (
            "ibot",
            {"VIEW_WEIGHT": 0.0, "PATCH_WEIGHT": 0.0},
            r"CONTRASTIVE\.VIEW_WEIGHT or CONTRASTIVE\.PATCH_WEIGHT must be > 0, got 0 for both",
        ),
        (
            "ibot",
            {"VIEW_WEIGHT": 0.0, "AUG__MASK_RATIO_RANGES": [[0.0, 0.0]]},
            r"MASK_RATIO_RANGES must have a ratio > 0, got \[\[0\.0, 0\.0\]\]: no token is masked",
        ),
        *((kind, {"MASK__MAE_ON": True}, r"MASK\.MAE_ON must be False with .*") for kind in KINDS),
    ],
)
def test_keys_that_do_not_fit(kind, changes, message):
    options = {**view_options(kind), **view_options(kind, **changes)}
    words = [str(word) for pair in options.items() for word in pair]
    with pytest.raises(ValueError, match=message):
        _check(words)


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0)])
def test_one_of_the_losses_of_ibot_may_have_no_weight(weights):
    options = view_options("ibot", VIEW_WEIGHT=weights[0], PATCH_WEIGHT=weights[1])
    _check([str(word) for pair in options.items() for word in pair])


def test_masks_that_hide_nothing_are_one_warning():
    """Wherever the configuration is checked."""
    cfg = view_config("ibot", AUG__MASK_RATIO_RANGES=[[0.0, 0.0]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        find_method(cfg).check(cfg)
        build_task(cfg, build_model(cfg))
    (only,) = caught
    assert "no token is masked, and CONTRASTIVE.PATCH_WEIGHT 1 " in str(only.message)


def test_blocks_that_no_quota_holds_are_an_error():
    cfg = view_config(
        "ibot", AUG__MASK_RATIO_RANGES=[[0.1, 0.5]], AUG__MIN_MASK_PATCHES_PER_BLOCK=9
    )
    with pytest.raises(ValueError, match=r"PER_BLOCK must be at most 8, or None, got 9: .* of 16 "):
        build_mask_sampler(cfg)


def test_the_size_of_local_views_is_checked_only_if_there_are_any():
    options = view_options("dino", DATA__SSL_LOCAL_VIEWS=0, DATA__SSL_LOCAL_CROP_SIZE=18)
    _check([str(word) for pair in options.items() for word in pair])


@pytest.mark.parametrize(
    ("kind", "num_epochs", "count"),
    [("dino", 5, 1), ("ibot", 5, 1), ("dino", 4, 0), ("byol", 0, 0)],
)
def test_a_temperature_that_does_not_reach_its_end_is_one_warning(kind, num_epochs, count):
    found = _warnings(view_config(kind, TEACHER_T_EPOCHS=num_epochs))
    message = "CONTRASTIVE.TEACHER_T_EPOCHS should be at most SOLVER.MAX_EPOCH 4, got 5"
    assert [message in warning for warning in found] == [True] * count


@pytest.mark.parametrize(
    ("kind", "num_epochs", "count"),
    [("dino", 4, 1), ("ibot", 9, 1), ("dino", 3, 0), ("byol", 4, 0)],
)
def test_prototypes_that_are_never_trained_are_one_warning(kind, num_epochs, count):
    found = _warnings(view_config(kind, FREEZE_LAST_LAYER_EPOCHS=num_epochs))
    message = f"FREEZE_LAST_LAYER_EPOCHS should be below SOLVER.MAX_EPOCH 4, got {num_epochs}"
    assert [message in warning for warning in found] == [True] * count


def _warnings(cfg: CfgNode) -> Sequence[str]:
    return find_method(cfg).warnings(cfg)


def _check(words: list[str]) -> None:
    cfg = load_config([], words)
    find_method(cfg).check(cfg)
    build_model(cfg)


def test_centers_of_masked_tokens_alone():
    batch = view_batch(view_config("ibot"), 3)
    centers = [
        run_steps("ibot", [batch], PATCH_CENTER=kind)[0].task.patch_center.center
        for kind in ("all", "masked")
    ]
    assert not torch.allclose(*centers)


def test_separate_prototypes_of_patches():
    state, _ = run_steps("ibot", [view_batch(view_config("ibot"), 3)], PATCH_DIM=12)
    assert len(state.model.head.last_layer2.weight_v) == 12
    assert len(state.task.patch_center.center) == 12
    assert len(state.task.center.center) == 24


def test_batch_norm_moves_with_taken_steps_alone():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    for step, taken in enumerate((True, False, True)):
        rows = torch.randn(2, 6, 4) + step
        if taken:
            expected = [theirs(part) for part in rows]
            for part, value in zip(rows, expected, strict=True):
                torch.testing.assert_close(ours(part), value)
        else:
            ours(rows[0] * torch.nan)
        ours.move(torch.tensor(taken))
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(rows[0]), theirs(rows[0]))


def test_batch_norm_of_tokens_is_that_of_their_rows():
    torch.manual_seed(0)
    of_tokens, of_rows = BatchNorm(4), BatchNorm(4)
    tokens = torch.randn(3, 5, 4)
    torch.testing.assert_close(of_tokens(tokens), of_rows(tokens.flatten(0, 1)).view(3, 5, 4))
    before = copied(of_tokens)
    assert of_tokens(tokens[:0]).shape == (0, 5, 4)
    for norm in (of_tokens, of_rows):
        norm.move(torch.tensor(True))
    assert not torch.equal(of_tokens.running_mean, before["running_mean"])
    for name, value in copied(of_rows).items():
        assert torch.equal(copied(of_tokens)[name], value), name


@pytest.mark.parametrize("kind", ["dino", "ibot"])
@pytest.mark.parametrize("has_masks", [True, False])
def test_prototypes_behind_batch_norm_learn(kind, has_masks):
    batch = view_batch(view_config(kind), 6)
    if batch.mask is not None and not has_masks:
        batch = replace(batch, mask=torch.zeros_like(batch.mask))
    state, losses = run_steps(kind, [batch] * 4, BN_MLP=True)
    assert losses == sorted(losses, reverse=True)
    for name, value in copied(state.bare).items():
        assert value.isfinite().all(), name
