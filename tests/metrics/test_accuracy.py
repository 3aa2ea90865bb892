"""Top-k and video scores, against tests/golden/metrics.json."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_json, golden_randn
from torch import Tensor

from slowfast_maskfeat.metrics.accuracy import VideoScores, combine_views, mean_credit, topk_correct

GOLDEN = golden_json("metrics.json")


def test_published_topk() -> None:
    labels = torch.from_numpy(np.random.Generator(np.random.PCG64(52)).integers(0, 40, 64))
    scores = golden_randn(51, (64, 40))
    scores[torch.arange(64), labels] += 1
    correct = topk_correct(scores, labels, (1, 3, 5))
    assert correct.dtype == torch.int64
    assert correct.tolist() == [GOLDEN["topk"]["correct"][k] for k in ("1", "3", "5")]
    for index, k in ((0, 1), (2, 5)):
        accuracy = 100 * int(correct[index]) / 64
        assert accuracy == pytest.approx(GOLDEN["topk"]["acc"][0 if k == 1 else 1])


def test_topk_with_few_classes_and_with_nan() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.0], [math.nan, 0.2, 0.1], [0.5, 0.3, 0.2]])
    labels = torch.tensor([1, 0, 2])
    # Of three classes every row that is a number has its label among five.
    assert topk_correct(scores, labels, (1, 5)).tolist() == [1, 2]
    with pytest.raises(ValueError, match="top-k"):
        topk_correct(scores, labels, (0,))


def published_clips(case: dict[str, object]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of all clips, labels of all videos, and the order they are fed in."""
    num_videos, num_clips, classes = (case[k] for k in ("num_videos", "num_clips", "classes"))
    seeds = case["seeds"]
    scores = golden_randn(seeds["scores"], (num_videos * num_clips, classes))  # type: ignore
    if case["softmax"]:
        scores = scores.softmax(dim=1)
    labels = np.random.Generator(np.random.PCG64(seeds["labels"])).integers(0, classes, num_videos)  # type: ignore
    order = np.random.Generator(np.random.PCG64(seeds["order"])).permutation(len(scores))  # type: ignore
    return scores, torch.from_numpy(labels), torch.from_numpy(order)


@pytest.mark.parametrize("name", ["test_meter_sum", "test_meter_max", "test_meter_max_raw_scores"])
def test_published_test_meter(name: str) -> None:
    case = GOLDEN[name]
    scores, labels, order = published_clips(case)
    meter = VideoScores(40, 12, 6, ensemble=case["method"])
    for batch in order.split(5):
        meter.add(batch, scores[batch])
    result = meter.finalize(labels)
    assert f"{result.top1:.2f}" == case["stats"]["top1_acc"]
    assert f"{result.top5:.2f}" == case["stats"]["top5_acc"]
    assert meter.clip_counts.sum(dim=1).tolist() == case["clip_count"]
    # The published sums are ours before the division by the number of clips.
    scale = 6 if case["method"] == "sum" else 1
    got = meter.video_scores()[: len(case["video_preds"])] * scale
    torch.testing.assert_close(
        got, torch.tensor(case["video_preds"], dtype=torch.float64), rtol=1e-5, atol=1e-6
    )
    assert result.num_clips == result.num_clips_expected == 240
    assert result.num_videos_scored == result.num_videos
    assert result.num_videos_incomplete == 0
    assert result.loss is None


@pytest.mark.parametrize("ensemble", ["sum", "max"])
def test_processes_together_equal_one(ensemble: str) -> None:
    scores, labels, order = published_clips(GOLDEN["test_meter_sum"])
    losses = golden_randn(5, (240,)).abs()
    whole = VideoScores(40, 12, 6, ensemble=ensemble)
    whole.add(order, scores[order], losses[order])
    parts = [VideoScores(40, 12, 6, ensemble=ensemble) for _ in range(3)]
    for batch, part in zip(order.tensor_split(3), parts, strict=True):
        part.add(batch, scores[batch], losses[batch])

    fields = ("scores", "clip_counts", "loss_sum", "num_losses")

    def all_reduce(own: Tensor, operation: str) -> Tensor:
        name = next(name for name in fields if getattr(parts[0], name) is own)
        stacked = torch.stack([getattr(part, name) for part in parts])
        return stacked.sum(dim=0) if operation == "sum" else stacked.amax(dim=0)

    parts[0].reduce(all_reduce)
    torch.testing.assert_close(parts[0].video_scores(), whole.video_scores())
    got, expected = parts[0].finalize(labels), whole.finalize(labels)
    assert got.loss == pytest.approx(losses.mean().item(), rel=1e-6)
    assert got.loss == pytest.approx(expected.loss)
    assert got.top1 == expected.top1
    assert got.num_clips == 240


def test_lost_clips_and_videos_are_told() -> None:
    meter = VideoScores(4, 3, 2)
    # Video 0 whole and right, 1 lost, 2 with one view and wrong, 3 whole, right on the mean.
    meter.add(
        torch.tensor([0, 1, 4, 6, 7]),
        torch.tensor(
            [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.4, 0.6, 0.0], [0.9, 0.1, 0.0]]
        ),
    )
    result = meter.finalize(torch.tensor([0, 0, 2, 0]))
    assert result.num_videos_incomplete == 1
    assert (result.num_videos, result.num_videos_scored) == (4, 3)
    assert (result.num_clips, result.num_clips_expected) == (5, 8)
    assert result.top1 == pytest.approx(100 * 2 / 3)
    assert result.top5 == 100.0
    torch.testing.assert_close(
        meter.video_scores()[2], torch.tensor([0.1, 0.8, 0.1]).double(), rtol=1e-6, atol=1e-6
    )
    assert not meter.video_scores()[1].any()
    assert result.as_dict()["num_videos_incomplete"] == 1


def test_nothing_scored_is_not_a_number() -> None:
    result = VideoScores(2, 3, 1).finalize(torch.tensor([0, 1]))
    assert math.isnan(result.top1)
    assert result.num_videos_scored == 0


def test_a_clip_twice_is_an_error() -> None:
    meter = VideoScores(2, 3, 1)
    meter.add(torch.tensor([0, 0]), torch.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"\b1 were scored more than once"):
        meter.finalize(torch.tensor([0, 1]))


def test_credit_of_class_numbers_is_the_share_of_right_answers() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, float("nan"), 0.0]])
    assert float(mean_credit(scores, torch.tensor([0, 2, 1]))) == pytest.approx(1 / 3)


def test_credit_of_mixed_labels_is_the_share_of_the_answered_class() -> None:
    smoothed = 0.1 / 4 + 0.9 * torch.tensor([[0.7, 0.3, 0.0, 0.0]] * 3)
    scores = torch.eye(4)[:3]  # the answers are class 0, 1 and 2
    assert float(mean_credit(scores[:1], smoothed[:1], label_smoothing=0.1)) == pytest.approx(0.7)
    assert float(mean_credit(scores[1:2], smoothed[1:2], label_smoothing=0.1)) == pytest.approx(0.3)
    assert float(mean_credit(scores, smoothed, label_smoothing=0.1)) == pytest.approx(1 / 3)
    assert float(mean_credit(scores[:1] * float("nan"), smoothed[:1], label_smoothing=0.1)) == 0


def test_credit_of_a_class_mixed_with_itself_is_whole() -> None:
    target = torch.tensor([[0.025, 0.925, 0.025, 0.025]])
    credit = mean_credit(torch.tensor([[0.0, 3.0, 1.0, 1.0]]), target, label_smoothing=0.1)
    assert float(credit) == pytest.approx(1)


@pytest.mark.parametrize("share", [0.7, 0.5])
def test_credit_of_two_mixed_classes(share: float) -> None:
    label = 0.1 / 2 + 0.9 * torch.tensor([[share, 1 - share]])
    for answer, credit in ((0, share), (1, 1 - share)):
        found = mean_credit(torch.eye(2)[answer : answer + 1], label, label_smoothing=0.1)
        assert float(found) == pytest.approx(credit)


@pytest.mark.parametrize("ensemble", ["sum", "max"])
def test_views_are_combined_as_those_of_a_test(ensemble: str) -> None:
    """Of scores that may be negative, too (MODEL.HEAD_ACT none)."""
    views = torch.tensor([[-1.0, 2.0, -0.5], [-3.0, -1.0, 0.25]], dtype=torch.float64)
    scores = VideoScores(1, 3, 2, ensemble=ensemble)
    scores.add(torch.arange(2), views)
    assert combine_views(views, ensemble).equal(scores.video_scores()[0])
