"""Transforms of a whole batch: normalize, erase, mix; one draw for all processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from slowfast_maskfeat.augment import Mix, normalize
from slowfast_maskfeat.augment.random_erasing import erase
from slowfast_maskfeat.clips import BatchTransform, ClipBatch

MEAN, STD = (0.45, 0.4, 0.5), (0.225, 0.2, 0.25)
CPU = torch.device("cpu")


def _batch(size=4):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (size, 3, 2, 8, 8), generator=generator, dtype=torch.uint8)
    boxes = torch.zeros(size, 1, 5, dtype=torch.int64)
    boxes[1, 0] = torch.tensor([2, 1, 4, 5, 99])
    return ClipBatch(clips, labels=torch.arange(size), erase=boxes, index=torch.arange(size))


def _transform(**options):
    return BatchTransform(mean=MEAN, std=STD, **options)


def test_without_mixing_clips_are_normalized_and_erased():
    batch = _batch()
    result = _transform()(batch, CPU, epoch=0, step=0)
    expected = erase(normalize(batch.clips, MEAN, STD), batch.erase)
    assert result.clips.equal(expected)
    assert result.clips.dtype == torch.float32
    assert result.labels.equal(batch.labels)
    assert result.erase is None
    assert result.index.equal(batch.index)
    assert not result.clips[1].equal(normalize(batch.clips, MEAN, STD)[1])


def test_the_draw_comes_from_seed_epoch_and_step():
    batch, transform = _batch(), _transform(mix=Mix(num_classes=4), seed=3)
    first = transform(batch, CPU, epoch=1, step=2)
    again = _transform(mix=Mix(num_classes=4), seed=3)(batch, CPU, epoch=1, step=2)
    assert first.clips.equal(again.clips)
    assert first.labels.shape == (4, 4)
    assert first.labels.sum(1).tolist() == pytest.approx([1.0] * 4)
    for options in ({"epoch": 1, "step": 3}, {"epoch": 2, "step": 2}):
        assert not transform(batch, CPU, **options).labels.equal(first.labels)
    other = _transform(mix=Mix(num_classes=4), seed=4)(batch, CPU, epoch=1, step=2)
    assert not other.labels.equal(first.labels)


def test_processes_that_hold_pairs_of_the_batch_make_what_one_makes():
    batch, transform = _batch(8), _transform(mix=Mix(num_classes=8))
    whole = transform(batch, CPU, epoch=0, step=1)
    for rows in ([0, 2, 5, 7], [1, 3, 4, 6]):  # as the loader shares them
        part = ClipBatch(batch.clips[rows], labels=batch.labels[rows], erase=batch.erase[rows])
        mine = transform(part, CPU, epoch=0, step=1)
        assert mine.clips.equal(whole.clips[rows])
        assert mine.labels.equal(whole.labels[rows])


def test_mixing_needs_labels():
    batch = ClipBatch(_batch().clips)
    with pytest.raises(ValueError, match=r"MIXUP\.ENABLE must be False .* got True"):
        _transform(mix=Mix(num_classes=4))(batch, CPU, epoch=0, step=0)


def test_several_views_of_a_sample_are_left_as_they_are():
    """Mixup is of batches with one view a sample; the others reach the task in uint8."""
    plain = _batch()
    small = replace(plain, clips=plain.clips[..., :4, :4], erase=None)
    batch = replace(plain, erase=None, further=(small,))
    result = _transform(mix=Mix(num_classes=4))(batch, CPU, epoch=0, step=0)
    for kind, expected in zip(result.views, (batch, small), strict=True):
        assert kind.clips.equal(expected.clips)
        assert kind.clips.dtype == torch.uint8
        assert kind.labels.equal(plain.labels)
