"""Folder of a training: checkpoints to resume from, and validations that it still owes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.checkpoints import (
    checkpoint_folder,
    find_checkpoints,
    find_tasks,
    folder_of_run,
)
from slowfast_maskfeat.checkpoints.header import read_header
from slowfast_maskfeat.checkpoints.save_load import best_path
from slowfast_maskfeat.config import changed_keys, changes_training, difference_table
from slowfast_maskfeat.engine.best_validation import BestValidation
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.report import print_main


def check_folder(cfg: CfgNode) -> None:
    """Check that a training without AUTO_RESUME has no checkpoints of an earlier one in its folder.

    Raises:
        ValueError: there are some: the training would mix its checkpoints with them.
    """
    folder = checkpoint_folder(cfg.OUTPUT_DIR)
    earlier = [] if cfg.TRAIN.AUTO_RESUME else from_main(lambda: find_checkpoints(folder, cfg.TASK))
    if earlier:
        raise ValueError(
            f"OUTPUT_DIR must have no checkpoints of TASK {cfg.TASK!r} with TRAIN.AUTO_RESUME "
            f"False, but {folder} has {earlier[-1].name} of an earlier run; set OUTPUT_DIR "
            f"{free_folder(cfg.OUTPUT_DIR)}, or TRAIN.AUTO_RESUME True to resume that run"
        )


def print_other_tasks(cfg: CfgNode) -> None:
    """Print that the folder has checkpoints of other tasks only, which are not resumed from."""
    others = find_tasks(checkpoint_folder(cfg.OUTPUT_DIR))
    if others:
        print_main(
            f"warning: {checkpoint_folder(cfg.OUTPUT_DIR)} has checkpoints of TASK "
            f"{', '.join(map(repr, others))}, none of TASK {cfg.TASK!r}: this run does not resume"
        )


def print_changes(
    cfg: CfgNode, payload: Mapping[str, Any], path: Path, *, may_change: bool
) -> None:
    """Print which keys differ from the configuration of the checkpoint to resume from.

    Args:
        cfg: configuration of this run; not changed.
        payload: content of the checkpoint.
        path: of the checkpoint.
        may_change: keys that the training depends on may differ.

    Raises:
        ValueError: such keys differ, but may not.
    """
    text = payload.get("cfg")
    if not isinstance(text, str):
        return
    changed = changed_keys(text, str(path), cfg)
    if not changed:
        return
    print_main(f"the configuration differs from that of {path}:\n{difference_table(changed)}")
    if not may_change and changes_training(changed):
        folder = cfg.OUTPUT_DIR
        raise ValueError(
            f"OUTPUT_DIR must be set, since {folder} has a run with another configuration: "
            f"OUTPUT_DIR {free_folder(folder)} for a new run, OUTPUT_DIR {folder} to resume that "
            "run with the changed keys above"
        )


def free_folder(folder: str) -> str:
    """Return a name for another folder: the first of `_2`, `_3` ... that is free.

    It is beside the given folder, or in one that has no name, such as ".".
    """
    has_name = os.path.basename(os.path.normpath(folder)) not in ("", ".", "..")
    first = folder.rstrip("/") if has_name else os.path.join(folder, "run")
    free = (f"{first}_{number}" for number in range(2, 10_000))
    return next((name for name in free if not Path(name).exists()), f"{first}_new")


def find_following(kind: str, checkpoint: Path) -> Mapping[str, Any] | None:
    """Find the event of a checkpoint in the log beside its folder.

    Args:
        kind: of the event, "validation" or "monitor".
        checkpoint: a file in OUTPUT_DIR/checkpoints. An event that is older than its last writing
            does not count.

    Returns:
        The event; None if there is none.
    """
    log = event_log_path(folder_of_run(checkpoint))
    for event in reversed(read_events(log) if log.exists() else []):
        if event.get("event") == kind and event.get("checkpoint") == checkpoint.name:
            return event
        written = event.get("path") if event.get("event") == "checkpoint" else None
        if isinstance(written, str) and Path(written).name == checkpoint.name:
            return None
    return None


def is_owed(cfg: CfgNode, state: TrainState, kind: str) -> bool:
    """Return whether the run was stopped before a measurement that follows its last checkpoint.

    Args:
        cfg: configuration; not modified.
        state: of the training, resumed or not.
        kind: of the measurement, "validation" or "monitor".
    """
    path = state.checkpoint
    if path is None or path.parent != checkpoint_folder(cfg.OUTPUT_DIR) or state.step:
        return False
    if (state.resumed.get("measured") or {}).get(kind) == state.epoch:
        return False  # it was made before the checkpoint
    return from_main(lambda: find_following(kind, path) is None)


def build_best_validation(cfg: CfgNode, state: TrainState) -> BestValidation | None:
    """Build the record of the best validation, that of a resumed run restored.

    Returns:
        None if nothing depends on it.

    Raises:
        ValueError: the checkpoint has that of another figure.
    """
    train = cfg.TRAIN
    is_kept = train.KEEP_BEST == "validation"
    if not (train.STOP_AFTER or is_kept):
        return None
    best = BestValidation(
        figure=state.task.best_figure,
        patience=train.STOP_AFTER,
        min_change=train.STOP_MIN_CHANGE,
        is_kept=is_kept,
    )
    saved = state.resumed.get("validation")
    if saved is not None:
        best.load_state_dict(saved)
    return best


def restore_last_validation(cfg: CfgNode, state: TrainState, best: BestValidation | None) -> bool:
    """Add the validation that followed the last checkpoint to `best`, from the log.

    It may count even if no validation is due at this epoch by the present periods.

    Returns:
        Whether there was one, so that it need not be made again. The best one does not count if
        its checkpoint was not kept, by a run without TRAIN.KEEP_BEST.
    """
    path = state.checkpoint
    if best is None or path is None or state.step:
        return not is_owed(cfg, state, "validation")
    if best.last_epoch == state.epoch:
        return True
    is_own = path.parent == checkpoint_folder(cfg.OUTPUT_DIR)
    event = from_main(lambda: find_following("validation", path) if is_own else None)
    if event is None:
        return False
    value = event.get(best.figure)
    if best.is_kept and best.is_best(value) and from_main(lambda: not _is_kept(cfg, value)):
        return False
    best.add(value, state.epoch)
    return True


def _is_kept(cfg: CfgNode, value: Any) -> bool:
    """Return whether the best checkpoint is that of a validation with this value."""
    path = best_path(checkpoint_folder(cfg.OUTPUT_DIR), prefix=cfg.TASK)
    try:
        record = read_header(path).get("best") if path.exists() else None
    except ValueError:  # damaged: it is written again
        return False
    return isinstance(record, Mapping) and record.get("value") == value
