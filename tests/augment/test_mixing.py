"""Mixup and cutmix: published draws, pixels and targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_randn

from slowfast_maskfeat.augment.crop import CropBox
from slowfast_maskfeat.augment.mixing import Mix, MixDraw

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/metrics.json").read_text())["mixup"]
LABELS = torch.tensor([1, 3, 5, 3])


class LegacyDraws:
    """The draws of numpy's old generator, which the golden numbers came from."""

    def __init__(self, seed):
        self._state = np.random.RandomState(seed)  # not for new draws
        self.random = self._state.random_sample
        self.beta = self._state.beta
        self.integers = self._state.randint


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: str(row["np_seed"]))
def test_the_published_mixtures(row):
    mix = Mix(num_classes=10)
    clips = golden_randn(90, (4, 3, 2, 16, 16))
    draw = mix.draw(16, 16, LegacyDraws(row["np_seed"]))
    assert (draw.box is not None) == row["cutmix"]
    mixed, before = mix.clips(clips, draw), clips.clone()
    if draw.box is None:
        assert draw.share == pytest.approx(row["drawn_lam"])
    elif "changed_box_yxyx" in row:
        top, left, height, width = draw.box
        assert [top, left, top + height, left + width] == row["changed_box_yxyx"]
    golden = row["out"]
    assert float(mixed.double().norm()) == pytest.approx(golden["norm"], rel=1e-6)
    assert float(mixed.std(correction=0)) == pytest.approx(golden["std"], rel=1e-5)
    assert float(mixed.min()) == pytest.approx(golden["min"], rel=1e-5)
    assert float(mixed.max()) == pytest.approx(golden["max"], rel=1e-5)
    torch.testing.assert_close(mix.labels(LABELS, draw), torch.tensor(row["target"]))
    assert clips.equal(before)


def test_cutmix_takes_the_same_rectangle_of_all_frames_from_the_partner():
    clips = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 2, 4, 6, 6).clone()
    mixed = Mix(num_classes=4).clips(clips, MixDraw(0.5, CropBox(1, 2, 3, 4)))
    expected = clips.clone()
    expected[0, :, :, 1:4, 2:6] = 2
    expected[2, :, :, 1:4, 2:6] = 0
    assert mixed.equal(expected)


def test_the_share_of_a_cutmix_box_that_leaves_the_frame_is_that_of_what_is_inside():
    mix, generator = Mix(num_classes=2, mixup_alpha=0), np.random.default_rng(0)
    draws = [mix.draw(20, 30, generator) for _ in range(200)]
    for draw in draws:
        inside = draw.box.height * draw.box.width
        assert draw.share == pytest.approx(1 - inside / 600)
        assert draw.box.top >= 0
        assert draw.box.top + draw.box.height <= 20
        assert draw.box.left + draw.box.width <= 30


def test_frequency_of_mixup_and_cutmix():
    generator, mix = np.random.default_rng(0), Mix(num_classes=2, probability=0.6)
    draws = [mix.draw(20, 30, generator) for _ in range(4000)]
    mixed = [draw for draw in draws if draw != MixDraw(1.0)]
    assert len(mixed) / 4000 == pytest.approx(0.6, abs=0.03)
    with_box = [draw for draw in mixed if draw.box is not None]
    assert len(with_box) / len(mixed) == pytest.approx(0.5, abs=0.03)
    shares = np.array([draw.share for draw in mixed if draw.box is None])
    # Beta(0.8, 0.8): mean 1/2, variance 1 / (4 * 2.6).
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / 10.4, abs=0.01)


def test_without_mixing_labels_are_smoothed_alone():
    mix = Mix(num_classes=4, probability=0.0)
    draw = mix.draw(8, 8, np.random.default_rng(0))
    assert draw == MixDraw(1.0)
    clips = torch.randn(2, 3, 1, 8, 8)
    assert mix.clips(clips, draw) is clips
    expected = torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    torch.testing.assert_close(mix.labels(torch.tensor([2, 0]), draw), expected)


def test_the_clip_in_the_middle_of_an_odd_batch_meets_itself():
    mix, draw = Mix(num_classes=3, label_smoothing=0.0), MixDraw(0.3)
    clips = torch.randn(3, 3, 1, 4, 4)
    torch.testing.assert_close(mix.clips(clips, draw)[1], clips[1])
    assert mix.labels(torch.tensor([0, 1, 2]), draw).tolist()[1] == [0, 1, 0]
