"""Configuration -> the weights that a run starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.image_recipe import has_color_first
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.checkpoints import (
    LoadReport,
    compare_class_names,
    find_checkpoints,
    load_weights,
)
from slowfast_maskfeat.checkpoints.naming import ModelFacts


def inflation(cfg: CfgNode) -> str:
    """How an image's weights become a video's: TRAIN.CHECKPOINT_INFLATION, or what is published.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        "mean" or "repeat", see `load_weights`.

    Raises:
        ValueError: The two published keys ask for both.
    """
    if cfg.TRAIN.CHECKPOINT_INFLATION:
        return cfg.TRAIN.CHECKPOINT_INFLATION
    if cfg.TRAIN.CHECKPOINT_IN_INIT and cfg.TRAIN.CHECKPOINT_INFLATE:
        raise ValueError(
            "TRAIN.CHECKPOINT_IN_INIT and TRAIN.CHECKPOINT_INFLATE are both True: the first "
            "repeats an image's kernels undivided, the second divides them; one of them is right"
        )
    return "repeat" if cfg.TRAIN.CHECKPOINT_IN_INIT else "mean"


def load_first_weights(
    cfg: CfgNode,
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
) -> LoadReport:
    """Give a model that is to be trained the weights of another one.

    Args:
        cfg: Configuration; it is only read.
        model: The bare model.
        path: The checkpoint.
        data: The data of the run, with what was read of it before; None reads it afresh.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: See `load_weights` and `inflation`.
    """
    return load_weights(
        model,
        path,
        min_coverage=cfg.TRAIN.CHECKPOINT_MIN_COVERAGE,
        clear_names=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        leave_out=cfg.TRAIN.CHECKPOINT_LEAVE_OUT,
        inflate=inflation(cfg),
        teacher=cfg.TRAIN.CHECKPOINT_WEIGHTS == "teacher",
        class_names=(data or DataSource(cfg)).class_names,
    )


def load_tested_weights(
    cfg: CfgNode,
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
) -> LoadReport:
    """Give a model all its weights, so that it can be tested.

    Args:
        cfg: Configuration; it is only read.
        model: The bare model.
        path: The checkpoint.
        data: The data of the run, with what was read of it before; None reads it afresh.

    Returns:
        What was loaded.

    Raises:
        ValueError: The checkpoint leaves something out or is of other classes, see `load_weights`.
    """
    return load_weights(
        model,
        path,
        complete=True,
        clear_names=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        teacher=cfg.TRAIN.CHECKPOINT_WEIGHTS == "teacher",
        class_names=(data or DataSource(cfg)).class_names,
    )


def checkpoint_folder(cfg: CfgNode) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(cfg.OUTPUT_DIR) / "checkpoints"


def finished_checkpoint(cfg: CfgNode) -> str:
    """The weights to test or probe: those of TEST.CHECKPOINT_FILE_PATH, else the last of this run
    in OUTPUT_DIR, else those it started from, TRAIN.CHECKPOINT_FILE_PATH.

    Args:
        cfg: Configuration; it is only read.

    Returns:
        The path; empty where there are none.
    """
    own = find_checkpoints(checkpoint_folder(cfg), cfg.TASK)
    return (
        cfg.TEST.CHECKPOINT_FILE_PATH
        or (str(own[-1]) if own else "")
        or cfg.TRAIN.CHECKPOINT_FILE_PATH
    )


def check_resumable(
    cfg: CfgNode,
    payload: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
) -> None:
    """A training goes on with the classes it began with; pre-training knows none.

    Args:
        cfg: Configuration; it is only read.
        payload: The content of the checkpoint.
        path: Of the checkpoint, for messages.
        data: See `load_first_weights`.

    Raises:
        ValueError: The classes differ.
    """
    method = find_method(cfg)
    if method.has_labels or method.has_boxes:
        names = (data or DataSource(cfg)).class_names
        compare_class_names(payload.get("class_names") or (), names, path)


def model_facts(cfg: CfgNode, model: nn.Module) -> ModelFacts:
    """What the names of other libraries ask of a model.

    Args:
        cfg: Configuration; it is only read.
        model: The bare model of it.

    Returns:
        The facts that `checkpoints.naming` takes.
    """
    return ModelFacts(
        grid=model.configured_grid,  # type: ignore[arg-type]
        mean_pooling=cfg.MVIT.USE_MEAN_POOLING and find_method(cfg).masks is None,
        residual_pooling=cfg.MVIT.RESIDUAL_POOLING,
        color_first=has_color_first(cfg),
    )
