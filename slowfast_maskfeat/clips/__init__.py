"""From records of videos to batches of clips: sampled, cut, masked, collated."""

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.clips.dataset import ClipDataset
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.clips.transform import TestTransform, TrainTransform, normalise
from slowfast_maskfeat.clips.views import RandomView, UniformViews

__all__ = [
    "ClipBatch",
    "ClipDataset",
    "ClipLoader",
    "LostVideo",
    "RandomView",
    "TestTransform",
    "TrainTransform",
    "UniformViews",
    "normalise",
]
