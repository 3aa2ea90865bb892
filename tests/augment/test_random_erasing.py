"""Random erasing: published rectangles and frequencies, noise that depends on its seed alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.python_draws import PythonDraws

from slowfast_maskfeat.augment.random_erasing import EraseSampler, erase

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/data_spatial.json").read_text())[
    "random_erasing"
]


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=lambda row: str(row["seed"]))
def test_the_published_rectangles(row):
    boxes = EraseSampler(size=(56, 56), probability=0.25)(PythonDraws(row["seed"]))
    assert boxes.shape == (1, 5)
    top, left, height, width, _ = boxes[0].tolist()
    if not row["erased"]:
        assert (height, width) == (0, 0)
    else:
        assert [top, left, top + height, left + width] == row["box_yxyx"]


def test_rectangles_are_distributed_as_published():
    sampler, generator = EraseSampler(size=(224, 224), probability=0.25), np.random.default_rng(0)
    boxes = torch.stack([sampler(generator)[0] for _ in range(8000)])
    erased = boxes[boxes[:, 2] > 0].double()
    assert len(erased) / 8000 == pytest.approx(0.25, abs=0.02)
    top, left, height, width, _ = erased.T
    share = height * width / 224**2
    assert float(share.min()) > 0.019
    assert float(share.max()) < 1 / 3 + 0.005
    assert float(share.mean()) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert float((height / width).log().mean()) == pytest.approx(0, abs=0.06)
    assert float((height / width).log().abs().max()) < math.log(1 / 0.3) + 0.1
    assert bool(((top + height <= 224) & (left + width <= 224)).all())


def test_several_rectangles_share_the_area():
    sampler = EraseSampler(size=(100, 100), probability=1.0, max_count=3)
    generator = np.random.default_rng(0)
    boxes = torch.stack([sampler(generator) for _ in range(600)])
    assert boxes.shape == (600, 3, 5)
    counts = (boxes[..., 2] > 0).sum(1)
    assert torch.bincount(counts, minlength=4)[1:].tolist() == pytest.approx([200] * 3, abs=50)
    assert float((boxes[..., 2] * boxes[..., 3]).sum(1).max()) < 100 * 100 * 0.36


def test_the_place_is_that_of_all_frames_and_the_noise_is_not():
    clips = torch.zeros(2, 3, 4, 20, 30)
    boxes = torch.zeros(2, 1, 5, dtype=torch.int64)
    boxes[1, 0] = torch.tensor([3, 5, 10, 20, 77])
    erased = erase(clips.clone(), boxes)
    assert erased[0].equal(clips[0])
    inside = torch.zeros(20, 30, dtype=torch.bool)
    inside[3:13, 5:25] = True
    assert ((erased[1] != 0).sum((0, 1)) > 0).equal(inside)
    noise = erased[1][..., inside]
    assert float(noise.mean()) == pytest.approx(0, abs=0.1)
    assert float(noise.std()) == pytest.approx(1, abs=0.1)
    assert not noise[:, 0].equal(noise[:, 1])


def test_the_noise_depends_on_its_seed_alone():
    boxes = torch.zeros(3, 2, 5, dtype=torch.int64)
    boxes[:, 0] = torch.tensor([[1, 1, 4, 5, 11], [0, 2, 6, 6, 12], [2, 0, 5, 5, 11]])
    together = erase(torch.zeros(3, 3, 2, 8, 8), boxes)
    alone = erase(torch.zeros(1, 3, 2, 8, 8), boxes[1:2])
    assert together[1].equal(alone[0])
    assert not together[0, :, :, 1:5, 1:6].equal(together[1, :, :, 1:5, 2:7])


def test_the_other_fillings():
    boxes = torch.tensor([[[1, 1, 4, 5, 11]]])
    flat = erase(torch.ones(1, 3, 2, 8, 8), boxes, "rand")[0, :, :, 1:5, 1:6]
    assert (flat == flat[:, :1, :1, :1]).all()
    assert flat[:, 0, 0, 0].unique().numel() == 3
    black = erase(torch.ones(1, 3, 2, 8, 8), boxes, "const")
    assert black.sum() == 3 * 2 * (64 - 20)
