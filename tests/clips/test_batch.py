"""The batch: what it refuses, and that splitting and collating lose nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo, Sample, SampleBoxes, collate


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


def test_several_masks_of_a_clip_stay_with_it():
    masks = torch.rand(4, 3, 2, 2, 2) < 0.5
    batch = ClipBatch(torch.zeros(4, 3, 2, 4, 4), mask=masks)
    assert torch.equal(torch.cat([part.mask for part in batch.split(3)]), masks)
    with pytest.raises(ValueError, match=r"\(B, m, t, h, w\) with m masks of each clip, .* got"):
        ClipBatch(torch.zeros(4, 3, 2, 4, 4), mask=masks[:, 0, 0])


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


def test_a_batch_is_pinned_whole_and_copied_without_waiting(monkeypatch):
    """Of all views, and of every field that goes to the device."""
    further = collate([_sample(row, 1) for row in range(2)])
    batch = replace(collate([_sample(row, 2) for row in range(2)]), views_per_sample=2)
    batch = replace(batch, further=(further,))
    pinned, copied = [], []

    def pin(tensor):
        pinned.append(tensor)
        return tensor.clone()

    def copy(tensor, device, *, non_blocking=False):
        copied.append((tensor, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", copy)
    in_pinned_memory = batch.pin_memory()
    expected = [x for view in batch.views for x in view._tensors().values()]
    assert sorted(map(id, pinned)) == sorted(map(id, expected))
    assert in_pinned_memory.further[0].mask.equal(further.mask)
    in_pinned_memory.to(torch.device("cuda"))
    on_host = {"mask", "index", "view"}
    moved = [
        x
        for view in in_pinned_memory.views
        for name, x in view._tensors().items()
        if name not in on_host
    ]
    assert sorted(id(x) for x, _ in copied) == sorted(map(id, moved))
    assert all(non_blocking for _, non_blocking in copied)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"clips": torch.zeros(2, 3, 4, 4)}, r"must be \(B, C, T, H, W\), got \(2, 3, 4, 4\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "labels must have 2 rows.* got 3"),
        ({"mask": torch.zeros(2, 1, 2, 2)}, "mask must be bool .* got torch.float32"),
        ({"index": torch.zeros(1)}, "index must have 2 rows.* got 1"),
    ],
)
def test_a_batch_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ClipBatch(**{"clips": torch.zeros(2, 3, 1, 4, 4), **fields})


BOXES = torch.tensor([[0, 1, 1, 2, 2], [2, 0, 0, 3, 3], [2, 1, 0, 2, 1], [4, 0, 1, 3, 2.0]])


def _boxed_batch(**fields):
    clips = torch.arange(5.0).view(5, 1, 1, 1, 1).expand(5, 3, 1, 4, 4)
    labels = torch.tensor([3, 1, 4, 2])
    numbers = torch.tensor([10, 11, 12, 13])
    return ClipBatch(
        clips, labels=labels, boxes=BOXES, box_index=numbers, index=torch.arange(5), **fields
    )


def test_boxes_go_with_their_clips_when_a_batch_is_split():
    parts = _boxed_batch().split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [part.boxes[:, 0].tolist() for part in parts] == [[0], [0, 0], [0]]
    assert torch.cat([part.boxes[:, 1:] for part in parts]).equal(BOXES[:, 1:])
    assert [part.labels.tolist() for part in parts] == [[3], [1, 4], [2]]
    assert [part.box_index.tolist() for part in parts] == [[10], [11, 12], [13]]


def test_boxes_in_any_order_stay_with_their_clips():
    order = torch.tensor([3, 1, 0, 2])
    batch = _boxed_batch()
    mixed = ClipBatch(batch.clips, labels=batch.labels[order], boxes=BOXES[order])
    for part, expected in zip(mixed.split(3), batch.split(3), strict=True):
        own = part.boxes[:, 0].argsort(stable=True)
        assert sorted(part.labels.tolist()) == sorted(expected.labels.tolist())
        assert part.boxes[own, 0].equal(expected.boxes[:, 0])


def test_clips_of_several_sizes_come_apart_without_padding():
    sizes = torch.tensor([[4, 4], [2, 3], [4, 4], [2, 3], [2, 3]])
    parts = _boxed_batch(sizes=sizes).split(2)
    assert sorted(part.index.tolist() for part in parts) == [[0, 2], [1, 3], [4]]
    for part in parts:
        assert list(part.clips.shape[-2:]) == sizes[part.index[0]].tolist()
        assert part.sizes is None
        assert part.clips[:, 0, 0, 0, 0].long().equal(part.index)
    (first,) = (part for part in parts if part.index.tolist() == [0, 2])
    assert first.boxes[:, 0].tolist() == [0, 1, 1]
    assert first.labels.tolist() == [3, 1, 4]
    (alone,) = _boxed_batch(sizes=torch.tensor([[2, 3]] * 5)).split(9)
    assert alone.clips.shape == (5, 3, 1, 2, 3)


def _boxed_sample(row, height, width, num_boxes, lost=()):
    shape = (0 if lost else 1, 2, height, width, 3)
    boxes = torch.zeros(num_boxes, 5)
    boxes[:, 1:] = row
    numbers = torch.arange(num_boxes) + 100 * row
    of_sample = SampleBoxes(boxes, torch.zeros(num_boxes, 4), numbers)
    return Sample(
        torch.full(shape, row + 1, dtype=torch.uint8), None, None, row, lost, None, boxes=of_sample
    )


def test_samples_of_several_sizes_are_padded_and_boxes_count_clips():
    lost = (LostVideo(1, "x.mp4", "empty"),)
    samples = [_boxed_sample(0, 4, 6, 2), _boxed_sample(1, 9, 9, 0, lost)]
    samples += [_boxed_sample(2, 5, 4, 0), _boxed_sample(3, 4, 6, 1)]
    batch = collate(samples)
    assert batch.clips.shape == (3, 3, 2, 5, 6)
    assert batch.sizes.tolist() == [[4, 6], [5, 4], [4, 6]]
    assert batch.boxes[:, 0].tolist() == [0, 0, 2]
    assert batch.box_index.tolist() == [0, 1, 300]
    assert batch.labels.shape == (3, 4)
    assert batch.index.tolist() == [0, 2, 3]
    for part in batch.split(2):
        assert bool((part.clips > 0).all())  # no padding is left


def test_a_batch_of_no_clip_and_no_box_is_legal():
    batch = collate([_boxed_sample(1, 9, 9, 0, (LostVideo(1, "x.mp4", "empty"),))])
    assert (len(batch), len(batch.boxes), len(batch.labels)) == (0, 0, 0)
    assert batch.split(1) == [batch]
    none = ClipBatch(torch.zeros(2, 3, 1, 4, 4), boxes=torch.zeros(0, 5), labels=torch.zeros(0, 7))
    assert [part.labels.shape for part in none.split(1)] == [(0, 7), (0, 7)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boxes": torch.zeros(1, 4)}, r"boxes must be \(R, 5\), .* got \(1, 4\)"),
        ({"boxes": BOXES, "labels": torch.zeros(5, 2)}, "labels must have 4 .* boxes, got 5"),
        ({"boxes": BOXES, "box_index": torch.zeros(3)}, "box_index must have 4 .* boxes, got 3"),
        ({"boxes": BOXES, "index": torch.zeros(4)}, "index must have 5 rows, .* clips, got 4"),
    ],
)
def test_boxes_that_contradict_the_batch_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ClipBatch(torch.zeros(5, 3, 1, 4, 4), **fields)


def _views(num_samples=4, **first):
    """Two kinds of different sizes, two views and three of a sample, with masks and labels."""

    def kind(views, side, grid):
        index = torch.arange(num_samples).repeat_interleave(views)
        number = torch.arange(num_samples * views)
        clips = number.to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 3, 2, side, side)
        masks = torch.zeros(len(number), *grid, dtype=torch.bool)
        masks[:, 0, 0, 0] = number % 2 == 0
        return {"clips": clips, "labels": index + 5, "mask": masks, "index": index}

    further = ClipBatch(**kind(3, 4, (1, 2, 2)), views_per_sample=3)
    lost = (LostVideo(9, "x.mp4", "empty"),)
    fields = {**kind(2, 8, (2, 2, 2)), "lost": lost, "further": (further,), "views_per_sample": 2}
    return ClipBatch(**{**fields, **first})


def test_one_kind_is_its_own_view():
    batch = collate([_sample(0, 2), _sample(1, 2)])
    assert batch.views == (batch,)
    assert not batch.has_several_views
    assert len(batch) == 4


def test_samples_are_split_with_all_their_views():
    batch = _views(5)
    assert len(batch) == 5
    assert batch.split(5) == [batch]
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [part.lost for part in parts] == [batch.lost, (), ()]
    for number, kind in enumerate(batch.views):
        split = [part.views[number] for part in parts]
        assert [part.views_per_sample for part in split] == [kind.views_per_sample] * 3
        for name in ("clips", "labels", "mask", "index"):
            joined = torch.cat([getattr(part, name) for part in split])
            assert joined.equal(getattr(kind, name)), name
    for part in parts:
        first, second = part.views
        assert first.index[::2].equal(second.index[::3])


def test_all_kinds_are_moved_but_the_masks():
    batch = _views()
    moved = batch.to(torch.device("meta"))
    assert [kind.clips.device.type for kind in moved.views] == ["meta", "meta"]
    assert [kind.mask.device.type for kind in moved.views] == ["cpu", "cpu"]
    assert [kind.views_per_sample for kind in moved.views] == [2, 3]
    assert moved.lost == batch.lost


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")
def test_all_kinds_are_pinned():
    batch = _views()
    pinned = batch.pin_memory()
    for kind, original in zip(pinned.views, batch.views, strict=True):
        assert kind.clips.is_pinned()
        assert kind.mask.is_pinned()
        assert kind.clips.equal(original.clips)
        assert kind.views_per_sample == original.views_per_sample
    assert pinned.lost == batch.lost


def test_samples_of_several_kinds_are_collated_kind_by_kind():
    def sample(row):
        small = torch.full((3, 1, 4, 4, 3), 10 * row, dtype=torch.uint8)
        further = Sample(small, row, None, row, (), views_per_sample=3)
        return _sample(row, 2, label=row)._replace(further=(further,), views_per_sample=2)

    batch = collate([sample(4), sample(6)])
    first, second = batch.views
    assert len(batch) == len(second) == 2
    assert (first.clips.shape, second.clips.shape) == ((4, 3, 2, 4, 4), (6, 3, 1, 4, 4))
    assert first.clips[:, 0, 0, 0, 0].tolist() == [4, 4, 6, 6]
    assert second.clips[:, 0, 0, 0, 0].tolist() == [40] * 3 + [60] * 3
    assert second.labels.tolist() == [4] * 3 + [6] * 3
    assert second.view.tolist() == [0, 1, 2] * 2
    assert (first.mask is None, second.mask is None) == (False, True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"views_per_sample": 3}, "views_per_sample must divide the 8 clips, got 3"),
        ({"views_per_sample": 0}, "views_per_sample must divide the 8 clips, got 0"),
        ({"views_per_sample": 4}, "further must hold .* with 2 samples each, got .* 4 samples"),
        (
            {"further": (_views(),)},
            "further must hold batches of one kind .* got a batch of 2 kinds",
        ),
        ({"boxes": torch.zeros(8, 5)}, r"boxes must be None .* views_per_sample \[2, 3\]"),
        ({"further": (), "sizes": torch.full((8, 2), 8)}, r"sizes must be None .* \[2\]"),
        ({"erase": torch.zeros(8, 1, 5)}, r"erase must be None .* \[2, 3\]"),
    ],
)
def test_views_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        _views(**fields)
