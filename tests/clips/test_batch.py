"""The batch: what it refuses, and that splitting and collating lose nothing."""

from __future__ import annotations

import pytest
import torch

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo, Sample, collate


def _sample(row, views, *, label=1, mask=True, lost=()):
    clips = torch.full((views, 2, 4, 4, 3), row, dtype=torch.uint8)
    masks = torch.ones(views, 2, 2, 2, dtype=torch.bool) if mask else None
    return Sample(clips, label, masks, row, lost)


def test_collated_clips_keep_their_rows_views_and_labels():
    lost = LostVideo(9, "x.mp4", "no such file")
    batch = collate([_sample(3, 2, label=5), _sample(7, 1, label=0, lost=(lost,))])
    assert batch.clips.shape == (3, 3, 2, 4, 4)
    assert batch.clips[:, 0, 0, 0, 0].tolist() == batch.index.tolist() == [3, 3, 7]
    assert batch.view.tolist() == [0, 1, 0]
    assert batch.labels.tolist() == [5, 5, 0]
    assert batch.mask.shape == (3, 2, 2, 2)
    assert batch.lost == (lost,)


def test_a_lost_video_gives_no_clip_but_is_told():
    lost = LostVideo(2, "x.mp4", "empty")
    batch = collate([_sample(2, 0, mask=False, lost=(lost,))])
    assert len(batch) == 0
    assert batch.lost == (lost,)


def test_samples_without_labels_give_a_batch_without():
    assert collate([_sample(0, 1, label=None)]).labels is None


def test_splitting_cuts_every_tensor_alike():
    batch = collate([_sample(row, 1) for row in range(5)])
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.cat([part.clips for part in parts]).equal(batch.clips)
    assert torch.cat([part.mask for part in parts]).equal(batch.mask)
    assert batch.split(5) == [batch]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clips": torch.zeros(2, 3, 4, 4)}, r"\(B, C, T, H, W\) is wanted"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels: 3 rows for 2 clips"),
        ({"mask": torch.zeros(2, 1, 2, 2)}, "mask: torch.float32"),
        ({"index": torch.zeros(1)}, "index: 1 rows for 2 clips"),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ClipBatch(**{"clips": torch.zeros(2, 3, 1, 4, 4), **fields})


def test_a_batch_with_boxes_is_not_split():
    batch = ClipBatch(torch.zeros(2, 3, 1, 4, 4), boxes=torch.zeros(1, 5))
    with pytest.raises(ValueError, match="boxes"):
        batch.split(1)
