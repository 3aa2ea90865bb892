"""The batch type: clips with their labels, masks, boxes and other fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from slowfast_maskfeat.augment.crop_plan import CropPlan, pad_together
from slowfast_maskfeat.clips.stage_times import StageTimes


class LostVideo(NamedTuple):
    """A video that could not be decoded: its row in the annotation file, its path and the reason.

    `is_missing` is True if the file does not exist.
    """

    row: int
    path: str
    reason: str
    is_missing: bool = False


# Fields that are supported only with one view per sample.
_SINGLE_VIEW_FIELDS = ("boxes", "box_index", "sizes", "erase")


@dataclass(frozen=True)
class ClipBatch:
    """A batch of clips; an image is a clip with T = 1.

    A sample may have several views. Views of one kind share a batch, sample-major: view v of
    sample b is row b * views_per_sample + v. Further kinds, whose clips may have other sizes, are
    separate batches in `further`; `views` holds all kinds.

    With boxes, labels belong to the boxes: each box has a row in `labels` and in `box_index`. Clips
    without boxes are allowed, and so is a batch without any box (R = 0).

    Attributes:
        clips: (B, C, T, H, W) uint8, or float already normalized.
        labels: (B,) int64 class numbers, or (B, K) float soft labels or multi-label targets; with
            boxes (R,) int64, -1 where the label is unknown, or (R, K) float multi-label targets,
            all zero for none.
        mask: (B, t, h, w) bool on any grid that divides the token grid; True means masked. Always
            on the CPU. (B, m, t, h, w) if each clip has m masks (AUG.MASK_KIND multiblock).
        boxes: (R, 5) float: batch index, x1, y1, x2, y2 in input pixels.
        box_index: (R,) int64, the index of each box in the split's box table.
        sizes: (B, 2) int64, height and width of each clip if they differ; pixels to the right and
            below are padding, which `split` removes. None if all clips fill H x W.
        erase: (B, n, 5) int64, rectangles of `augment.random_erasing`.
        plans: crop of each clip, to be applied on the device (`clips.device_crop`); `clips` then
            holds the padded source pixels. None if clips are already cropped.
        index: (B,) int64, the row in the annotation file that each clip comes from.
        view: (B,) int64, the index of each clip among the clips of its row.
        times: (B, 2) float64, timestamps of each clip's first and last frame in seconds; None for
            randomly sampled clips.
        crops: (B, 4) float32: top, left, height and width of each clip's crop, as fractions of its
            frames; None for clips with boxes. Operations that move pixels do not count.
        flips: (B,) bool, whether the crop was flipped horizontally; None as `crops`.
        label_maps: (B, 2, 5, h, w) float32, the stored label map of each clip's image, whole and
            not flipped (`clips.label_maps`); None without stored maps.
        lost: videos that could not be decoded while building this batch.
        stages: seconds that the stages of its loading took.
        further: the views of further kinds of the same samples, one batch per kind.
        views_per_sample: V of this kind; kinds may differ. Clips of repeated augmentation count as
            separate samples.
    """

    clips: Tensor
    labels: Tensor | None = None
    mask: Tensor | None = None
    boxes: Tensor | None = None
    box_index: Tensor | None = None
    sizes: Tensor | None = None
    erase: Tensor | None = None
    plans: tuple[CropPlan, ...] | None = None
    index: Tensor | None = None
    view: Tensor | None = None
    times: Tensor | None = None
    crops: Tensor | None = None
    flips: Tensor | None = None
    label_maps: Tensor | None = None
    lost: tuple[LostVideo, ...] = ()
    stages: StageTimes = field(default=StageTimes(), compare=False)
    further: tuple[ClipBatch, ...] = ()
    views_per_sample: int = 1

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_lengths()
        self._check_views()

    def _check_shapes(self) -> None:
        if self.clips.ndim != 5:
            raise ValueError(
                f"ClipBatch.clips must be (B, C, T, H, W), got {tuple(self.clips.shape)}; "
                "an image has T = 1"
            )
        if self.boxes is not None and (self.boxes.ndim != 2 or self.boxes.shape[1] != 5):
            raise ValueError(
                "ClipBatch.boxes must be (R, 5), rows of batch index, x1, y1, x2, y2, got "
                f"{tuple(self.boxes.shape)}"
            )
        if self.mask is not None and (
            self.mask.dtype != torch.bool or self.mask.ndim not in (4, 5)
        ):
            raise ValueError(
                "ClipBatch.mask must be bool (B, t, h, w), or (B, m, t, h, w) with m masks of each "
                "clip, True where masked, got "
                f"{self.mask.dtype} {tuple(self.mask.shape)}"
            )

    def _check_lengths(self) -> None:
        lengths = {name: len(value) for name, value in self._tensors().items()}
        if self.plans is not None:
            lengths["plans"] = len(self.plans)
        for name, length in lengths.items():
            what = "boxes" if name in self._box_fields else "clips"
            if name != "boxes" and length != lengths[what]:
                raise ValueError(
                    f"ClipBatch.{name} must have {lengths[what]} rows, one per entry of {what}, "
                    f"got {length}"
                )

    def _check_views(self) -> None:
        if self.views_per_sample < 1 or len(self.clips) % self.views_per_sample:
            raise ValueError(
                f"ClipBatch.views_per_sample must divide the {len(self.clips)} clips, got "
                f"{self.views_per_sample}"
            )
        for kind in self.further:
            if len(kind) != len(self) or kind.further:
                raise ValueError(
                    f"ClipBatch.further must hold batches of one kind with {len(self)} samples "
                    f"each, got a batch of {len(kind.views)} kinds with {len(kind)} samples"
                )
        for part in self.views if self.has_several_views else ():
            for name in _SINGLE_VIEW_FIELDS:
                if getattr(part, name) is not None:
                    raise ValueError(
                        f"ClipBatch.{name} must be None with several views per sample, got a value "
                        f"and views_per_sample {[kind.views_per_sample for kind in self.views]}"
                    )

    def __len__(self) -> int:
        """Number of samples; a sample counts once, whatever its number of views and kinds."""
        return len(self.clips) // self.views_per_sample

    @property
    def views(self) -> tuple[ClipBatch, ...]:
        """All kinds of views: this batch, then those in `further`."""
        return (self, *self.further)

    @property
    def has_several_views(self) -> bool:
        """Whether a sample has several views, of one kind or of several kinds."""
        return bool(self.further) or self.views_per_sample > 1

    @property
    def _box_fields(self) -> tuple[str, ...]:
        """Names of the fields with one row per box; the others have one row per clip."""
        return () if self.boxes is None else ("boxes", "labels", "box_index")

    def _tensors(self) -> dict[str, Tensor]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> ClipBatch:
        """Copy the batch to another device, asynchronously if it is in pinned memory.

        Masks, `index` and `view` stay on the CPU: the number of masked tokens is a shape in the
        model, samples are numbered on the CPU, and reading these from the device would wait for
        all queued work.
        """
        moved = {
            name: x.to(device, non_blocking=True)
            for name, x in self._tensors().items()
            if name not in ("mask", "index", "view")
        }
        further = tuple(kind.to(device) for kind in self.further)
        return replace(self, **moved, further=further)  # type: ignore[arg-type]

    def pin_memory(self) -> ClipBatch:
        """Copy what is on the CPU to page-locked memory; the data loader calls this."""
        on_cpu = {name: x for name, x in self._tensors().items() if x.device.type == "cpu"}
        pinned = {name: x.pin_memory() for name, x in on_cpu.items()}
        further = tuple(kind.pin_memory() for kind in self.further)
        return replace(self, **pinned, further=further)  # type: ignore[arg-type]

    def split(self, size: int) -> list[ClipBatch]:
        """Split into batches of at most `size` samples, with all their views and boxes.

        If the clips differ in size, clips of equal size are grouped and their padding is removed.
        The first part keeps `lost`.
        """
        assert all(kind.plans is None for kind in self.views), "the clips are not cropped yet"
        if self.sizes is None:
            groups = [torch.arange(len(self))] if len(self) > size else []
        else:
            kinds, of_clip = self.sizes.cpu().unique(dim=0, return_inverse=True)
            groups = [torch.nonzero(of_clip == kind)[:, 0] for kind in range(len(kinds))]
        if not groups:
            return [self]
        chosen = [part for group in groups for part in group.split(size)]
        return [
            self._select_samples(part, self.lost if not i else ()) for i, part in enumerate(chosen)
        ]

    def _select_samples(self, samples: Tensor, lost: tuple[LostVideo, ...]) -> ClipBatch:
        """Select samples by ascending index, with all their views; their clips have one size."""
        views = torch.arange(self.views_per_sample)
        rows = (samples[:, None] * self.views_per_sample + views).flatten()
        further = tuple(kind._select_samples(samples, ()) for kind in self.further)
        return replace(self._select_clips(rows), lost=lost, further=further)

    def _select_clips(self, rows: Tensor) -> ClipBatch:
        """Select clips by ascending index, with their other fields; the clips have one size."""
        tensors = self._tensors()
        sizes = tensors.pop("sizes", None)
        begin, end = int(rows[0]), int(rows[-1]) + 1
        in_a_row = end - begin == len(rows)
        of_clips: Tensor | slice = slice(begin, end) if in_a_row else rows.to(self.clips.device)
        taken = {name: x[of_clips] for name, x in tensors.items() if name not in self._box_fields}
        if sizes is not None:
            height, width = sizes[begin].tolist()
            taken["clips"] = taken["clips"][..., :height, :width]
        if self.boxes is not None:
            place = torch.full((len(self),), -1, device=self.boxes.device)
            place[rows.to(place.device)] = torch.arange(len(rows), device=place.device)
            new = place[self.boxes[:, 0].long()]
            taken |= {name: tensors[name][new >= 0] for name in self._box_fields if name in tensors}
            taken["boxes"] = torch.cat([new[new >= 0, None].float(), taken["boxes"][:, 1:]], dim=1)
        return ClipBatch(**taken, views_per_sample=self.views_per_sample)  # type: ignore[arg-type]


class SampleBoxes(NamedTuple):
    """The boxes of a sample's clips.

    Attributes:
        boxes: (R, 5) float32: index of the clip in the sample, x1, y1, x2, y2 in its pixels.
        labels: (R, K) float32 or (R,) int64, see `ClipBatch`.
        numbers: (R,) int64, indices into the split's box table.
    """

    boxes: Tensor
    labels: Tensor
    numbers: Tensor


class Sample(NamedTuple):
    """The V clips of one row of the annotation file, of one or several kinds of views.

    Attributes:
        clips: (V, T, H, W, C) uint8, or their source pixels if there are `plans`; V = 0 if the
            video is lost and not replaced.
        label: class number, or None.
        mask: (V, t, h, w) bool, or None.
        row: index of the row that the clips come from.
        lost: videos that could not be decoded.
        erase: (V, n, 5) int64, rectangles of random erasing, or None.
        plans: crops to apply on the device; None if clips are already cropped.
        boxes: boxes of all clips, or None; with boxes, `label` is None.
        times: (V, 2) float64, see `ClipBatch`, or None.
        further: the views of further kinds of the same row.
        views_per_sample: see `ClipBatch`.
        crops: (V, 4) float32, see `ClipBatch`, or None.
        flips: (V,) bool, see `ClipBatch`, or None.
        label_map: (2, 5, h, w) float32, of the row's image, or None.
        stages: seconds that the stages of its loading took.
        targets: (V, K) float32, labels of each clip of a list with sets of them; `label` is None.
    """

    clips: Tensor
    label: int | None
    mask: Tensor | None
    row: int
    lost: tuple[LostVideo, ...]
    erase: Tensor | None = None
    plans: tuple[CropPlan, ...] | None = None
    boxes: SampleBoxes | None = None
    times: Tensor | None = None
    further: tuple[Sample, ...] = ()
    views_per_sample: int = 1
    crops: Tensor | None = None
    flips: Tensor | None = None
    label_map: Tensor | None = None
    stages: StageTimes = StageTimes()
    targets: Tensor | None = None


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """Collate samples into a batch; frames stay channels-last in memory, as decoders write them."""
    kinds = zip(*(sample.further for sample in samples), strict=True)
    further = tuple(_collate_kind(of_kind) for of_kind in kinds)
    stages = sum((sample.stages for sample in samples), start=StageTimes())
    return replace(_collate_kind(samples), further=further, stages=stages)


def _collate_kind(samples: Sequence[Sample]) -> ClipBatch:
    """Collate the first kind of views of the samples."""
    counts = torch.tensor([len(sample.clips) for sample in samples])
    labels = None
    if all(sample.label is not None for sample in samples):
        labels = torch.tensor([sample.label for sample in samples]).repeat_interleave(counts)
    targets = [sample.targets for sample in samples if sample.targets is not None]
    if targets:
        labels = torch.cat(targets)
    masks = [sample.mask for sample in samples if sample.mask is not None]
    erase = [sample.erase for sample in samples if sample.erase is not None]
    times = [sample.times for sample in samples if sample.times is not None]
    crops = [sample.crops for sample in samples if sample.crops is not None]
    flips = [sample.flips for sample in samples if sample.flips is not None]
    maps = [
        sample.label_map.expand(len(sample.clips), -1, -1, -1, -1)
        for sample in samples
        if sample.label_map is not None
    ]
    clips, sizes = _join_clips([sample.clips for sample in samples])
    plans = [plan for sample in samples for plan in sample.plans or ()]
    if plans:  # each plan holds the size of its clip without padding
        sizes = None
    batch = ClipBatch(
        clips=clips.permute(0, 4, 1, 2, 3),
        labels=labels,
        mask=torch.cat(masks) if masks else None,
        sizes=sizes,
        erase=torch.cat(erase) if erase else None,
        plans=tuple(plans) or None,
        index=torch.tensor([sample.row for sample in samples]).repeat_interleave(counts),
        view=torch.cat([torch.arange(len(sample.clips)) for sample in samples]),
        times=torch.cat(times) if times else None,
        crops=torch.cat(crops) if crops else None,
        flips=torch.cat(flips) if flips else None,
        label_maps=torch.cat(maps) if maps else None,
        lost=tuple(lost for sample in samples for lost in sample.lost),
        views_per_sample=samples[0].views_per_sample,
    )
    of_samples = [sample.boxes for sample in samples if sample.boxes is not None]
    if not of_samples:
        return batch
    assert len(of_samples) == len(samples)
    boxes, labels, index = (torch.cat(parts) for parts in zip(*of_samples, strict=True))
    num_boxes = torch.tensor([len(part.boxes) for part in of_samples])
    boxes[:, 0] += (counts.cumsum(0) - counts).repeat_interleave(num_boxes)
    return replace(batch, boxes=boxes, labels=labels, box_index=index)


def _join_clips(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Join clips into (B, T, H, W, C); if their sizes differ, pad them and return sizes (B, 2)."""
    clips = [some for some in clips if len(some)] or list(clips[:1])
    joined = pad_together(clips, new=_new_clips if clips[0].device.type == "cpu" else None)
    if len({some.shape[2:4] for some in clips}) == 1:
        return joined, None
    sizes = [torch.tensor([some.shape[2:4]]).expand(len(some), 2) for some in clips]
    return joined, torch.cat(sizes)


def _new_clips(*shape: int) -> Tensor:
    """Allocate uint8 clips; workers allocate in shared memory, which saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    # As torch's default collate function does: sharing a tensor later would copy it.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
