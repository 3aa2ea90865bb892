"""The one batch type: clips with what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from slowfast_maskfeat.clips.cut import CutPlan, pad_together


class LostVideo(NamedTuple):
    """A video that could not be decoded: its row in the list, its path and the reason.

    `is_missing` says that there is no such file.
    """

    row: int
    path: str
    reason: str
    is_missing: bool = False


@dataclass(frozen=True)
class ClipBatch:
    """A batch of clips; an image is a clip with T = 1.

    Attributes:
        clips: (B, C, T, H, W) uint8, or float already normalised.
        labels: (B,) int64 class numbers, or (B, K) float soft labels.
        mask: (B, t, h, w) bool on any grid that divides the token grid; True means masked.
        boxes: (R, 5) float: batch index, x1, y1, x2, y2 in input pixels.
        erase: (B, n, 5) int64, rectangles that random erasing fills: see `clips.erase`.
        plans: how a device still has to cut each clip (`clips.on_device`) from the pixels that
            `clips` has in their place, padded; None where they are cut.
        index: (B,) int64, the row in the list of videos that each clip comes from.
        view: (B,) int64, which of the row's clips each is.
        lost: the videos that could not be decoded while this batch was made.
    """

    clips: Tensor
    labels: Tensor | None = None
    mask: Tensor | None = None
    boxes: Tensor | None = None
    erase: Tensor | None = None
    plans: tuple[CutPlan, ...] | None = None
    index: Tensor | None = None
    view: Tensor | None = None
    lost: tuple[LostVideo, ...] = ()

    def __post_init__(self) -> None:
        if self.clips.ndim != 5:
            raise ValueError(
                f"ClipBatch.clips: {tuple(self.clips.shape)}: (B, C, T, H, W) is wanted; "
                "an image has T = 1"
            )
        for name in ("labels", "mask", "erase", "plans", "index", "view"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.clips):
                raise ValueError(f"ClipBatch.{name}: {len(value)} rows for {len(self.clips)} clips")
        if self.mask is not None and (self.mask.dtype != torch.bool or self.mask.ndim != 4):
            raise ValueError(
                f"ClipBatch.mask: {self.mask.dtype} {tuple(self.mask.shape)}: "
                "bool (B, t, h, w) is wanted, True where masked"
            )

    def __len__(self) -> int:
        return len(self.clips)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> ClipBatch:
        """The batch on another device; the copy from pinned memory does not wait."""
        moved = {name: x.to(device, non_blocking=True) for name, x in self._tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def pin_memory(self) -> ClipBatch:
        """The batch in page-locked memory; the data loader calls this."""
        pinned = {name: x.pin_memory() for name, x in self._tensors().items()}
        return replace(self, **pinned)  # type: ignore[arg-type]

    def split(self, size: int) -> list[ClipBatch]:
        """Cut into batches of at most `size` clips; boxes can't be cut.

        `lost` stays with the first part.
        """
        assert self.plans is None, "the clips are not cut yet"
        if self.boxes is not None:
            raise ValueError("ClipBatch.split: a batch with boxes can't be split")
        if len(self) <= size:
            return [self]
        parts = [
            {name: x[start : start + size] for name, x in self._tensors().items()}
            for start in range(0, len(self), size)
        ]
        return [
            replace(self, **part, lost=self.lost if i == 0 else ())  # type: ignore[arg-type]
            for i, part in enumerate(parts)
        ]


class Sample(NamedTuple):
    """What one row of the list gives: V clips of one video.

    Attributes:
        clips: (V, T, H, W, C) uint8, or with `plans` the pixels to cut them from; V = 0 where the
            video is lost and nothing replaces it.
        label: class number, or None.
        mask: (V, t, h, w) bool, or None.
        row: that the clips come from.
        lost: the videos that failed on the way.
        erase: (V, n, 5) int64, rectangles of random erasing, or None.
        plans: how a device is to cut the clips; None where they are cut.
    """

    clips: Tensor
    label: int | None
    mask: Tensor | None
    row: int
    lost: tuple[LostVideo, ...]
    erase: Tensor | None = None
    plans: tuple[CutPlan, ...] | None = None


def collate(samples: Sequence[Sample]) -> ClipBatch:
    """Put samples into one batch; frames stay channels-last in memory, as decoders write them."""
    counts = torch.tensor([len(sample.clips) for sample in samples])
    labels = None
    if all(sample.label is not None for sample in samples):
        labels = torch.tensor([sample.label for sample in samples]).repeat_interleave(counts)
    masks = [sample.mask for sample in samples if sample.mask is not None]
    erase = [sample.erase for sample in samples if sample.erase is not None]
    plans = [plan for sample in samples for plan in sample.plans or ()]
    if plans:
        clips = pad_together([clip for sample in samples for clip in sample.clips])
    else:
        clips = torch.cat([sample.clips for sample in samples])
    return ClipBatch(
        clips=clips.permute(0, 4, 1, 2, 3),
        labels=labels,
        mask=torch.cat(masks) if masks else None,
        erase=torch.cat(erase) if erase else None,
        plans=tuple(plans) or None,
        index=torch.tensor([sample.row for sample in samples]).repeat_interleave(counts),
        view=torch.cat([torch.arange(len(sample.clips)) for sample in samples]),
        lost=tuple(lost for sample in samples for lost in sample.lost),
    )
