"""Configuration -> the classes of the data set."""

from __future__ import annotations

from fvcore.common.config import CfgNode

from slowfast_maskfeat.videos.index import read_class_names


def class_names(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers; empty where the lists come with none."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    return (read_class_names(folder) or ()) if folder else ()


def num_classes(cfg: CfgNode) -> int:
    """K: as many as there are names, else MODEL.NUM_CLASSES."""
    return len(class_names(cfg)) or cfg.MODEL.NUM_CLASSES
