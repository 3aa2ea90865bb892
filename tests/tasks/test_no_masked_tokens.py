"""Batches, micro-batches and rows of targets without masked tokens."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_cases import tiny_options
from helpers.tiny_views import view_settings, view_state
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.engine.train_step import train_step
from slowfast_maskfeat.losses import mean_or_zero
from slowfast_maskfeat.targets import (
    FeatureTarget,
    HOGTarget,
    PixelTarget,
    StoredLabelTarget,
    TokenTarget,
)
from slowfast_maskfeat.tasks.base import LossEvaluation

TARGETS = ("pixels", "hog", "latents")
CPU = torch.device("cpu")


def _config(target):
    changes = {"MASK__TARGET": target, "MVIT__DROPPATH_RATE": 0.0, "AUG__MASK_RATIO": 0.4}
    options = tiny_options("pt_image_hog", **changes)
    return load_config([], [str(word) for pair in options.items() for word in pair])


def _batch(cfg, *counts):
    """Clips with so many masked tokens each."""
    side = cfg.DATA.TRAIN_CROP_SIZE
    shape = (len(counts), 3, 1, side, side)
    clips = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(len(counts), 16, dtype=torch.bool)
    for row, count in zip(mask, counts, strict=True):
        row[:count] = True
    return ClipBatch(clips, mask=mask.unflatten(1, (1, 4, 4)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("counts", [(0, 0, 5, 3), (5, 3, 0, 0)])
def test_a_part_without_masked_tokens_changes_no_step(target, counts):
    cfg = _config(target)
    batch, weights = _batch(cfg, *counts), []
    losses = []
    for parts in (1, 2):
        state = view_state(cfg)
        state.task.start(state.bare)
        before = copy.deepcopy(state.bare.state_dict())
        _, sums, result = train_step(state, batch, view_settings(cfg, parts=parts), CPU)
        assert bool(result.taken)
        assert float(sums[0]) == 8
        losses.append(sums[1])
        weights.append(state.bare.state_dict())
        assert any(not value.equal(before[name]) for name, value in weights[-1].items())
    assert torch.allclose(*losses, rtol=1e-5)
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_without_masked_tokens_has_gradients_of_zero(target):
    cfg = _config(target)
    state = view_state(cfg)
    gradients = []
    for count in (0, 4):
        output = state.task.step(state.model, _batch(cfg, count, count))
        (output.loss * output.weight).backward()
        gradients.append(
            {n: p.grad for n, p in state.bare.named_parameters() if p.grad is not None}
        )
        state.bare.zero_grad(set_to_none=True)
        if not count:
            assert [float(output.loss.detach()), float(output.weight)] == [0, 0]
            assert all(float(scalar) == 0 for scalar in output.scalars.values())
    empty, full = gradients
    assert empty.keys() == full.keys()  # DDP waits for each of them
    assert not any(gradient.any() for gradient in empty.values())


@pytest.mark.parametrize("target", TARGETS)
def test_a_validation_batch_without_masked_tokens_changes_no_mean(target):
    cfg = _config(target)
    state = view_state(cfg)
    state.model.eval()
    state.task.eval()
    one, both = LossEvaluation(4, state.task), LossEvaluation(4, state.task)
    with torch.no_grad():
        one.add(state.model, _batch(cfg, 4, 2))
        both.add(state.model, _batch(cfg, 4, 2))
        both.add(state.model, _batch(cfg, 0, 0))
    assert both.results() == one.results()
    assert one.results()["loss"] > 0
    none = LossEvaluation(4, state.task)
    none.add(state.model, _batch(cfg, 0, 0))
    with pytest.raises(ValueError, match=r"validation split .* masked token"):
        none.results()


_NETWORK = nn.Identity()
EMPTY_TARGETS = {
    "hog": HOGTarget((2, 16, 16)),
    "pixels": PixelTarget((2, 16, 16)),
    "absolute_pixels": PixelTarget((2, 16, 16), absolute=True),
    **{
        loss: FeatureTarget(_NETWORK, num_features=6, num_frames=2, loss=loss)
        for loss in ("l2", "l1", "smooth_l1", "cosine")
    },
    "classes": StoredLabelTarget(num_classes=5),
    "hard_classes": StoredLabelTarget(num_classes=5, is_hard=True),
    "tokens": TokenTarget(
        _NETWORK, num_codes=7, codes_per_side=2, crop_size=8, clip_mean=(0.5,), clip_std=(0.5,)
    ),
}


@pytest.mark.parametrize("name", EMPTY_TARGETS)
def test_targets_without_rows_have_means_of_zero(name):
    target = EMPTY_TARGETS[name]
    prediction = torch.zeros(0, target.dim, requires_grad=True)
    is_discrete = isinstance(target, TokenTarget)
    rows = torch.zeros(0, 4, dtype=torch.int64) if is_discrete else torch.zeros(0, target.dim)
    loss = target.loss(prediction, rows)
    assert loss.shape == (0,)
    mean_or_zero(loss).backward()
    assert prediction.grad is not None
    scalars = target.scalars(prediction.detach(), rows)
    assert set(scalars) == set(target.scalar_names)
    for value in (mean_or_zero(loss).detach(), target.baseline_loss(rows), *scalars.values()):
        assert value.shape == ()
        assert float(value) == 0


def test_the_frequencies_of_codes_are_not_waited_for():
    target = EMPTY_TARGETS["tokens"]
    codes = torch.tensor([[0, 6, 6, 2]])
    logits = target.constant_prediction(codes).view(4, 7)
    assert logits[0].exp().tolist() == pytest.approx([0.25, 0, 0.25, 0, 0, 0, 0.5], abs=1e-6)
    assert logits.equal(logits[:1].expand(4, -1))
    with FakeTensorMode():  # raises an error where values are needed
        assert target.constant_prediction(torch.zeros(3, 4, dtype=torch.int64)).shape == (28,)


def test_a_mean_over_terms_is_that_of_torch():
    terms = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert mean_or_zero(terms).equal(terms.mean())
