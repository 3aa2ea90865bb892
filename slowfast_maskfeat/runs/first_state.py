"""State of a training before its first step: resumed, from given weights, or random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.weights import (
    check_resumable,
    load_first_teacher,
    load_first_weights,
    run_result,
)
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.checkpoints.save_load import find_checkpoints, load_checkpoint
from slowfast_maskfeat.ema import WeightAverage
from slowfast_maskfeat.engine.state import TrainState, is_resumable
from slowfast_maskfeat.runs.report import print_main
from slowfast_maskfeat.runs.resume import print_changes, print_other_tasks


def set_first_state(cfg: CfgNode, state: TrainState, data: DataSource, *, may_change: bool) -> str:
    """Resume from a checkpoint of the run, or load the first weights.

    Args:
        cfg: frozen configuration.
        state: of the run, as built; its model is not wrapped.
        data: data of the run.
        may_change: resume also with a configuration that differs from the checkpoint's in keys
            that the training depends on.

    Returns:
        Path of the checkpoint; empty if training starts from scratch.

    Raises:
        ValueError: the checkpoint is damaged, or does not fit the model or the configuration.
    """
    folder = checkpoint_folder(cfg.OUTPUT_DIR)
    own = find_checkpoints(folder, cfg.TASK)
    if own:
        if cfg.TRAIN.CHECKPOINT_FILE_PATH:
            print_main("TRAIN.CHECKPOINT_FILE_PATH is not used: OUTPUT_DIR has a run to resume")
        return _resume(cfg, state, own[-1], load_checkpoint(own[-1]), data, may_change)
    path = cfg.TRAIN.CHECKPOINT_FILE_PATH
    weights_only = cfg.TRAIN.CHECKPOINT_EPOCH_RESET
    if not path and cfg.TRAIN.AUTO_RESUME and "ssl_eval" in cfg.TASK:
        # Fine-tuning in the OUTPUT_DIR of its pre-training finds the checkpoint there.
        path, weights_only = str(run_result(folder, "ssl") or ""), True
    if Path(path).parent != folder:
        print_other_tasks(cfg)
    if path:
        content = load_checkpoint(path)
        if not weights_only:
            if is_resumable(content):
                return _resume(cfg, state, Path(path), content, data, may_change=True)
            print_main(f"{path} has only weights: training starts from them at epoch 0")
        print_main(str(load_first_weights(cfg, state.bare, path, data=data, content=content)))
        _load_teacher(cfg, state, path, content)
    elif find_method(cfg).is_tested:
        print_main("TRAIN.CHECKPOINT_FILE_PATH is empty: training starts from random weights")
        if cfg.TRAIN.FREEZE_BLOCKS:
            print_main(
                f"warning: TRAIN.FREEZE_BLOCKS {cfg.TRAIN.FREEZE_BLOCKS}: the frozen weights stay "
                "random; set TRAIN.CHECKPOINT_FILE_PATH to a trained model"
            )
    # The same draws in every process: only the model is synchronized among them.
    torch.manual_seed(cfg.RNG_SEED)
    state.task.start(state.bare)
    state.average = _weight_average(cfg, state.bare)
    _seed_process(cfg)
    return path


def _load_teacher(cfg: CfgNode, state: TrainState, path: str, content: Mapping[str, Any]) -> None:
    """Load the first weights into networks of the task, too; say what only they have and lack."""
    own = state.bare.state_dict()
    for network in state.task.networks_to_load():
        report = load_first_teacher(cfg, network, path, content=content)
        missing = [name for name in report.missing if name not in own]
        if missing:
            print_main(f"{path} has no {', '.join(missing)}: the teacher keeps its initial values")


def _weight_average(cfg: CfgNode, model: nn.Module) -> WeightAverage | None:
    return WeightAverage(model, cfg.TRAIN.EMA_DECAY) if cfg.TRAIN.EMA_DECAY else None


def _seed_process(cfg: CfgNode) -> None:
    """Let each process draw its own dropout."""
    torch.manual_seed(cfg.RNG_SEED + distributed.rank())


def _resume(
    cfg: CfgNode,
    state: TrainState,
    path: Path,
    payload: Mapping[str, Any],
    data: DataSource,
    may_change: bool,
) -> str:
    print_changes(cfg, payload, path, may_change=may_change)
    check_resumable(cfg, payload, path, data=data)
    known = (payload.get("data") or {}).get("list_sha256")
    if known and known != state.data["list_sha256"]:
        print_main(f"warning: {state.data['list']} differs from the training split of {path}")
    state.average = _weight_average(cfg, state.bare)
    _seed_process(cfg)  # for checkpoints without random states
    state.restore(payload, str(path))
    print_main(f"resuming from {path}: {state.epoch} epochs and {state.step} steps done")
    return str(path)
