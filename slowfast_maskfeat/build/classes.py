"""Configuration -> the classes of the data set."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.build.readers import READERS, data_folder, data_set, shard_patterns
from slowfast_maskfeat.videos.index import read_class_names


def class_names(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers; empty where the data has none.

    Those of a file beside the lists, else what the data set says itself.
    """
    folder, is_in_shards = data_folder(cfg), bool(shard_patterns(cfg)["train"])
    if not folder.path and not is_in_shards:
        return ()
    names = read_class_names(folder.path)
    reader = READERS.get(data_set(cfg, "train" if cfg.TRAIN.ENABLE else "test"))
    if names is None and reader is not None:
        names = reader.class_names(folder)
    if names is None and is_in_shards:
        names = READERS["webdataset"].class_names(folder)
    return names or ()


def num_classes(cfg: CfgNode) -> int:
    """K: as many as there are names, else MODEL.NUM_CLASSES."""
    return len(class_names(cfg)) or cfg.MODEL.NUM_CLASSES
