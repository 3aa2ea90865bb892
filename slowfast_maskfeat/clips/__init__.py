"""From records of videos to batches of clips: sampled, cut, masked, collated."""

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.clips.color import ColorJitter
from slowfast_maskfeat.clips.dataset import ClipDataset
from slowfast_maskfeat.clips.erase import EraseSampler
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.clips.mix import Mix
from slowfast_maskfeat.clips.on_device import DeviceCut
from slowfast_maskfeat.clips.randaugment import RandAugment, parse_policy
from slowfast_maskfeat.clips.transform import (
    TestTransform,
    TrainTransform,
    WholeFrameTransform,
    normalise,
)
from slowfast_maskfeat.clips.views import KeyFrameView, RandomView, UniformViews
from slowfast_maskfeat.clips.whole_batch import BatchTransform

__all__ = [
    "BatchTransform",
    "ClipBatch",
    "ClipDataset",
    "ClipLoader",
    "ColorJitter",
    "DeviceCut",
    "EraseSampler",
    "KeyFrameView",
    "LostVideo",
    "Mix",
    "RandAugment",
    "RandomView",
    "TestTransform",
    "TrainTransform",
    "UniformViews",
    "WholeFrameTransform",
    "normalise",
    "parse_policy",
]
