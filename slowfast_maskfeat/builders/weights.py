"""Initial weights of a run, and checks of its checkpoints."""

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
    checkpoint_folder,
    compare_class_names,
    find_checkpoints,
    load_weights,
)
from slowfast_maskfeat.checkpoints.header import read_header
from slowfast_maskfeat.checkpoints.naming import ModelFacts
from slowfast_maskfeat.checkpoints.save_load import best_path
from slowfast_maskfeat.config.yaml_file import parse_yaml
from slowfast_maskfeat.shapes import position_grid


def inflation(cfg: CfgNode) -> str:
    """Return how image weights are inflated to video: CHECKPOINT_INFLATION or as published.

    Args:
        cfg: configuration; not modified.

    Returns:
        "mean" or "repeat", see `load_weights`.

    Raises:
        ValueError: both published keys are True.
    """
    if cfg.TRAIN.CHECKPOINT_INFLATION:
        return cfg.TRAIN.CHECKPOINT_INFLATION
    if cfg.TRAIN.CHECKPOINT_IN_INIT and cfg.TRAIN.CHECKPOINT_INFLATE:
        raise ValueError(
            "TRAIN.CHECKPOINT_IN_INIT and TRAIN.CHECKPOINT_INFLATE must not both be True, got True "
            "and True: the first repeats image kernels along time, the second also divides them"
        )
    return "repeat" if cfg.TRAIN.CHECKPOINT_IN_INIT else "mean"


def load_first_weights(
    cfg: CfgNode,
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    average: bool = False,
    data: DataSource | None = None,
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Initialize a model for training, or for its features, with the weights of a checkpoint.

    Args:
        cfg: configuration; not modified.
        model: the unwrapped model.
        path: path of the checkpoint.
        average: load the weight average (TRAIN.EMA_DECAY) if the file has one, as a test does.
        data: the run's data source, which caches files; None reads them again.
        content: content of the checkpoint; None reads it.

    Returns:
        The report of loaded and missing weights.

    Raises:
        ValueError: see `load_weights` and `inflation`.
    """
    return load_weights(
        model,
        path,
        min_coverage=cfg.TRAIN.CHECKPOINT_MIN_COVERAGE,
        class_names=(data or DataSource(cfg)).class_names,
        average=average,
        **_of_first_weights(cfg, content),
    )


def load_first_teacher(
    cfg: CfgNode,
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Initialize a network of a task (`Task.networks_to_load`), as `load_first_weights` the model.

    How much of it is filled is not checked: that is checked of the model.

    Args:
        cfg: configuration; not modified.
        network: the network.
        path: path of the checkpoint.
        content: content of the checkpoint; None reads it.

    Returns:
        The report of loaded and missing weights.
    """
    return load_weights(network, path, min_coverage=0.0, **_of_first_weights(cfg, content))


def _of_first_weights(cfg: CfgNode, content: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of `load_weights` that a model and its teacher share."""
    return {
        "clear_names": cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        "leave_out": cfg.TRAIN.CHECKPOINT_LEAVE_OUT,
        "inflate": inflation(cfg),
        "teacher": cfg.TRAIN.CHECKPOINT_WEIGHTS == "teacher",
        "content": content,
    }


def load_tested_weights(
    cfg: CfgNode,
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
    content: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load all weights of a model for testing.

    Args:
        cfg: configuration; not modified.
        model: the unwrapped model.
        path: path of the checkpoint.
        data: the run's data source, which caches files; None reads them again.
        content: content of the checkpoint; None reads it.

    Returns:
        The report of loaded weights.

    Raises:
        ValueError: the checkpoint is incomplete or has other classes, see `load_weights`.
    """
    return load_weights(
        model,
        path,
        complete=True,
        clear_names=cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN,
        teacher=cfg.TRAIN.CHECKPOINT_WEIGHTS == "teacher",
        class_names=(data or DataSource(cfg)).class_names,
        content=content,
    )


def own_checkpoint(cfg: CfgNode) -> Path | None:
    """Return the result of the run in OUTPUT_DIR, see `run_result`; None if it has none yet."""
    keep_best = cfg.TRAIN.KEEP_BEST
    return run_result(checkpoint_folder(cfg.OUTPUT_DIR), cfg.TASK, keep_best=keep_best)


def run_result(folder: Path, task: str, *, keep_best: str | None = None) -> Path | None:
    """Return the result of a training: its last checkpoint, or that of the best validation.

    Args:
        folder: of its checkpoints.
        task: its TASK.
        keep_best: its TRAIN.KEEP_BEST, of which "validation" makes the best one the result; None:
            as the configuration in its last checkpoint says.

    Returns:
        The file; None if it has none yet.
    """
    own, best = find_checkpoints(folder, task), best_path(folder, prefix=task)
    if not own:
        return None
    if not best.is_file():
        return own[-1]
    keep_best = _keep_best(own[-1]) if keep_best is None else keep_best
    return best if keep_best == "validation" else own[-1]


def _keep_best(checkpoint: Path) -> str:
    """Return TRAIN.KEEP_BEST of the run that wrote a checkpoint; empty if it does not say."""
    try:
        text = read_header(checkpoint).get("cfg")
        keys, _ = parse_yaml(text if isinstance(text, str) else "", str(checkpoint))
    except ValueError:  # explained where the file is needed
        return ""
    section = keys.get("TRAIN")
    return str(section.get("KEEP_BEST", "")) if isinstance(section, dict) else ""


def finished_checkpoint(cfg: CfgNode) -> str:
    """Return the checkpoint to test or probe.

    That is TEST.CHECKPOINT_FILE_PATH, else that of this run in OUTPUT_DIR (`own_checkpoint`), else
    the one it started from, TRAIN.CHECKPOINT_FILE_PATH.

    Args:
        cfg: configuration; not modified.

    Returns:
        The path; empty if there is none.
    """
    own = own_checkpoint(cfg)
    return (
        cfg.TEST.CHECKPOINT_FILE_PATH or (str(own) if own else "") or cfg.TRAIN.CHECKPOINT_FILE_PATH
    )


def check_resumable(
    cfg: CfgNode,
    payload: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
) -> None:
    """Check that a resumed training has the same classes as before; pre-training has none.

    Args:
        cfg: configuration; not modified.
        payload: content of the checkpoint.
        path: path of the checkpoint, for messages.
        data: see `load_first_weights`.

    Raises:
        ValueError: the classes differ.
    """
    method = find_method(cfg)
    if method.has_labels or method.has_boxes:
        names = (data or DataSource(cfg)).class_names
        try:
            compare_class_names(payload.get("class_names") or (), names, path)
        except ValueError as error:
            if Path(path).parent != checkpoint_folder(cfg.OUTPUT_DIR):
                raise
            raise ValueError(
                f"{error}; to train other classes, set another OUTPUT_DIR than {cfg.OUTPUT_DIR}"
            ) from error


def model_facts(cfg: CfgNode, model: nn.Module) -> ModelFacts:
    """Return the facts of a model that the weight names of other libraries depend on.

    Args:
        cfg: configuration; not modified.
        model: the unwrapped model.

    Returns:
        The facts that `checkpoints.naming` takes.

    Raises:
        ValueError: the model, of an extension, has no token grid.
    """
    grid = position_grid(model)
    if grid is None:
        raise ValueError(
            f"the names of other libraries need the token grid of the model (its attribute "
            f"configured_grid), which {type(model).__name__} does not have"
        )
    return ModelFacts(
        grid=grid,
        mean_pooling=cfg.MVIT.USE_MEAN_POOLING and find_method(cfg).trains_class_token,
        class_token="cls_token" in model.state_dict(),
        residual_pooling=cfg.MVIT.RESIDUAL_POOLING,
        color_first=has_color_first(cfg),
    )
