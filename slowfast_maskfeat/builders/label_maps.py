"""Builder of the reader of stored label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from fvcore.common.config import CfgNode

from slowfast_maskfeat.clips import LabelMaps
from slowfast_maskfeat.datasets import MissingListError, VideoList
from slowfast_maskfeat.videos.decode import DecodeError
from slowfast_maskfeat.videos.media import is_image

_NUM_PROBED = 100


def label_map_folder(cfg: CfgNode) -> str:
    """Return MASK.LABEL_MAPS; empty if a classifier gives the pseudo-labels.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: the clips are videos, or there is a classifier as well.
    """
    folder: str = cfg.MASK.LABEL_MAPS
    if folder and cfg.DATA.NUM_FRAMES != 1:
        raise ValueError(
            "MASK.LABEL_MAPS must be '' for videos, since label maps are of images "
            f"(DATA.NUM_FRAMES 1), got {folder!r} with DATA.NUM_FRAMES {cfg.DATA.NUM_FRAMES}; set "
            "MASK.TEACHER_CHECKPOINT instead"
        )
    if folder and cfg.MASK.TEACHER_CHECKPOINT:
        raise ValueError(
            "MASK.LABEL_MAPS or MASK.TEACHER_CHECKPOINT must be '', since pseudo-labels come from "
            f"one of them, got {folder!r} and {cfg.MASK.TEACHER_CHECKPOINT!r}"
        )
    return folder


def build_label_maps(cfg: CfgNode, folder: str, videos: VideoList, split: str) -> LabelMaps:
    """Build the reader of the label maps of a split, and check the first of them.

    Single maps may be missing or damaged: their images are lost.

    Args:
        cfg: configuration; not modified.
        folder: of the maps.
        videos: the samples of the split.
        split: "train" or "val".

    Raises:
        MissingListError: the first images of a validation split have no maps.
        ValueError: there is no such folder; the samples are not images in files; or none of the
            first images has a map, or a map has another shape or class.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"MASK.LABEL_MAPS must be a folder, got {folder!r}, which does not exist")
    images = videos.first_files(_NUM_PROBED)
    if len(videos) and not images:
        raise ValueError(
            f"MASK.LABEL_MAPS must be '' for shards and addresses, got {folder!r} and "
            f"{videos.source}: label maps are found by the names of image files"
        )
    other = next((path for path in images if not is_image(path)), None)
    if other is not None:
        raise ValueError(
            f"MASK.LABEL_MAPS must be '' for videos, since label maps are of images, got "
            f"{folder!r} and {other}; set MASK.TEACHER_CHECKPOINT instead"
        )
    return _checked(unchecked_label_maps(cfg, folder), images, videos.source, split)


def unchecked_label_maps(cfg: CfgNode, folder: str) -> LabelMaps:
    """Build a reader of label maps of any size without a look at the folder.

    Args:
        cfg: configuration; not modified.
        folder: of the maps.
    """
    root = cfg.DATA.PATH_PREFIX or cfg.DATA.PATH_TO_DATA_DIR
    return LabelMaps(folder=folder, root=root, num_classes=cfg.MODEL.NUM_CLASSES)


def _checked(maps: LabelMaps, images: Sequence[str], source: str, split: str) -> LabelMaps:
    """Check the maps of the first images; the size of the first applies to all."""
    reasons = []
    for image in images:
        try:
            stored = maps.load(image)
        except DecodeError as error:
            reasons.append(error)
            continue
        problem = maps.problem(stored)
        if problem:
            raise ValueError(
                f"MASK.LABEL_MAPS: {maps.file(image)} {problem}; are these the maps of this image "
                "set and of a classifier with these classes?"
            )
        maps = replace(maps, size=(stored.shape[2], stored.shape[3]))
    if reasons and len(reasons) == len(images):
        kind = MissingListError if split == "val" else ValueError
        raise kind(
            f"MASK.LABEL_MAPS must have maps of the images of {source}, got none that can be read "
            f"for the first {len(images)}: {reasons[0]}; are they of another image set? The map of "
            f"{os.path.join(maps.root, 'a', 'b.jpg')} is {os.path.join(maps.folder, 'a', 'b.pt')}"
        )
    return maps
