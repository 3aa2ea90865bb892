"""Detection: the loss is the published one, boxes without a clip's share, scores per box."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers.golden_rule import (
    check_gradients,
    fill_with_golden_weights,
    golden_json,
    golden_npz,
    golden_randn,
)
from helpers.tiny_cases import config_of, tiny_options

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.clips import ClipBatch

CASES = ["ava_aligned", "ava_legacy"]


def case(name="ava_aligned", **changes):
    """Golden numbers, the model, the task and the batch."""
    golden, arrays = golden_json(f"tiny/{name}.json"), golden_npz(f"tiny/{name}.npz")
    options = tiny_options(name, **{"MODEL__LOSS_FUNC": "bce", **changes})
    cfg = config_of(options)
    model = fill_with_golden_weights(build_model(cfg)).eval()
    batch = ClipBatch(
        golden_randn(golden["input_seed"], golden["input_shape"]),
        boxes=torch.from_numpy(arrays["boxes"]),
        labels=torch.from_numpy(arrays["target"]),
    )
    return golden, arrays, model, build_task(cfg, model), batch


@pytest.mark.parametrize("name", CASES)
def test_the_loss_and_its_gradients_are_the_published_ones(name):
    golden, arrays, model, task, batch = case(name)
    output = task.step(model, batch)
    assert float(output.loss.detach()) == pytest.approx(golden["loss"], rel=1e-5)
    assert int(output.weight) == len(arrays["boxes"])
    output.loss.backward()
    check_gradients(model, golden, arrays, of_all=1e-4, of_each=1e-3)


@pytest.mark.parametrize("loss", ["bce", "bce_logit"])
def test_both_names_mean_the_loss_of_raw_scores(loss):
    golden, _, model, task, batch = case(MODEL__LOSS_FUNC=loss)
    assert float(task.step(model, batch).loss.detach()) == pytest.approx(golden["loss"], rel=1e-5)


def test_a_batch_without_boxes_weighs_nothing_and_reaches_every_parameter():
    _, arrays, model, task, batch = case()
    none = ClipBatch(
        batch.clips, boxes=torch.zeros(0, 5), labels=torch.zeros(0, arrays["target"].shape[1])
    )
    output = task.step(model, none)
    assert float(output.weight) == 0
    assert float(output.loss.detach()) == 0
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_parts_weighed_by_their_boxes_give_the_loss_of_the_batch():
    _, _, model, task, batch = case()
    with torch.no_grad():
        whole = task.step(model, batch)
        parts = [task.step(model, part) for part in batch.split(1)]
    assert len({int(part.weight) for part in parts}) == 2  # 3 boxes in one clip, 2 in the other
    total = sum(part.loss * part.weight for part in parts) / whole.weight
    torch.testing.assert_close(total, whole.loss)


def test_scores_that_saturate_in_16_bits_have_a_finite_loss():
    _, _, model, task, batch = case()
    model.head.projection.weight.data.mul_(1000)
    with torch.autocast("cpu", torch.bfloat16):
        output = task.step(model, batch)
    assert output.loss.dtype == torch.float32
    assert output.loss > 10
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_boxes_of_one_class_each_take_the_cross_entropy():
    options = {"MODEL__LOSS_FUNC": "cross_entropy", "AVA__MULTI_LABEL": False}
    _, arrays, model, task, batch = case(**options)
    labels = torch.tensor([3, 0, 19, 7, 7])
    with torch.no_grad():
        output = task.step(model, ClipBatch(batch.clips, boxes=batch.boxes, labels=labels))
    expected = F.cross_entropy(torch.from_numpy(arrays["logits"]), labels)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-5)


def test_a_loss_that_does_not_fit_the_labels_is_refused():
    with pytest.raises(ValueError, match=r"LOSS_FUNC must be .*MULTI_LABEL False, got 'bce'"):
        case(AVA__MULTI_LABEL=False)
    with pytest.raises(ValueError, match="got 'multi_mse'"):
        case(MODEL__LOSS_FUNC="multi_mse")


def test_the_default_loss_is_replaced_with_a_warning():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        golden, _, model, task, batch = case(MODEL__LOSS_FUNC="cross_entropy")
    assert ["using 'bce'" in str(warning.message) for warning in caught] == [True]
    assert float(task.step(model, batch).loss.detach()) == pytest.approx(golden["loss"], rel=1e-5)


def test_a_batch_without_labels_says_what_is_missing():
    _, _, model, task, batch = case()
    with pytest.raises(ValueError, match="needs boxes with labels"):
        task.step(model, ClipBatch(batch.clips, boxes=batch.boxes))
