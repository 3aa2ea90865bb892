"""Clips sampled from videos, cropped, masked and collated into batches."""

from __future__ import annotations

from slowfast_maskfeat.clips.batch import ClipBatch, LostVideo
from slowfast_maskfeat.clips.batch_transform import BatchTransform
from slowfast_maskfeat.clips.dataset import ClipDataset
from slowfast_maskfeat.clips.device_crop import DeviceCrop, crop_views
from slowfast_maskfeat.clips.key_frame_view import KeyFrameView
from slowfast_maskfeat.clips.label_maps import LabelMaps
from slowfast_maskfeat.clips.loader import ClipLoader
from slowfast_maskfeat.clips.multi_view import MultiView, ViewSpec
from slowfast_maskfeat.clips.temporal_sampling import RandomFrames, RandomSpan, SameFrames
from slowfast_maskfeat.clips.views import RandomView, UniformViews, Views

__all__ = [
    "BatchTransform",
    "ClipBatch",
    "ClipDataset",
    "ClipLoader",
    "DeviceCrop",
    "KeyFrameView",
    "LabelMaps",
    "LostVideo",
    "MultiView",
    "RandomFrames",
    "RandomSpan",
    "RandomView",
    "SameFrames",
    "UniformViews",
    "ViewSpec",
    "Views",
    "crop_views",
]
