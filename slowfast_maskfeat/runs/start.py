"""A training that Python code starts, as `maskfeat train` does."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slowfast_maskfeat import distributed
from slowfast_maskfeat.builders.weights import own_checkpoint
from slowfast_maskfeat.checkpoints import checkpoint_folder, find_checkpoints
from slowfast_maskfeat.config import load_run_config
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.load_trained import checkpoint_file
from slowfast_maskfeat.runs.process import run_process


class Trained(NamedTuple):
    """A training that has ended.

    Attributes:
        folder: its OUTPUT_DIR.
        checkpoint: that of a test, for `from_pretrained`, `Predictor` and further trainings: the
            last one, or with TRAIN.KEEP_BEST validation the best one.
        results: of the last test, else of the last validation, as in `stats.jsonl`; one before
            this call counts only if it is of this or the last checkpoint. Empty if there is
            neither.
    """

    folder: Path
    checkpoint: Path
    results: Mapping[str, Any]


def train(
    config: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    data: str | os.PathLike[str] = "",
    output: str | os.PathLike[str] = "",
    checkpoint: str | os.PathLike[str] = "",
    **pairs: object,
) -> Trained:
    """Train and test by a configuration, on all devices of NUM_GPUS.

    The same call resumes an interrupted training. With several GPUs each has a process, which
    imports the calling script: it must start the training below `if __name__ == "__main__":`.

    Args:
        config: YAML file or files, or names of shipped ones such as "k400_MVITv2_S_16x4_FT".
        data: DATA.PATH_TO_DATA_DIR, the folder of the lists.
        output: OUTPUT_DIR; empty: `output/` and the name of the file.
        checkpoint: TRAIN.CHECKPOINT_FILE_PATH, the weights to start from: a file, or a folder of
            a run.
        **pairs: further keys: `train(..., **{"SOLVER.MAX_EPOCH": 30})`.

    Returns:
        Where it wrote, its checkpoint, and its results.

    Raises:
        ValueError: something that a user can fix, in one line.
        StoppedError: after a signal, once a checkpoint is saved.
    """
    named = {
        "DATA.PATH_TO_DATA_DIR": os.fspath(data),
        "OUTPUT_DIR": os.fspath(output),
        "TRAIN.CHECKPOINT_FILE_PATH": checkpoint_file(checkpoint) if checkpoint else "",
    }
    given = {**pairs, **{key: path for key, path in named.items() if path}}
    words = [str(word) for pair in given.items() for word in pair]
    cfg = load_run_config(config, words)
    if not cfg.TRAIN.ENABLE or cfg.PROBE.KIND:
        raise ValueError(
            "train() needs TRAIN.ENABLE True and PROBE.KIND '', got "
            f"{cfg.TRAIN.ENABLE} and {cfg.PROBE.KIND!r}; tests and probes are commands, maskfeat "
            "test and maskfeat probe"
        )
    log = event_log_path(cfg.OUTPUT_DIR)
    num_earlier = len(read_events(log)) if log.exists() else 0
    choice = distributed.choose_device(cfg.NUM_GPUS)
    backend = "gloo" if choice.type == "cpu" else cfg.DIST_BACKEND
    launch(run_process, choice.num_processes, (cfg, "OUTPUT_DIR" in given), backend=backend)
    folder = log.parent
    last = find_checkpoints(checkpoint_folder(folder), cfg.TASK)[-1]
    result = own_checkpoint(cfg) or last
    earlier, later = (events := read_events(log))[:num_earlier], events[num_earlier:]
    # The best checkpoint has the same name after a longer training.
    has_trained = any(event["event"] == "epoch" for event in later)
    names = {last.name} if has_trained else {last.name, result.name}
    of_these = [event for event in earlier if Path(event.get("checkpoint") or "").name in names]
    return Trained(folder, result, _results([*of_these, *later]))


def _results(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    for kind in ("test", "validation"):
        found = [event for event in events if event["event"] == kind]
        if found:
            return {name: value for name, value in found[-1].items() if name != "event"}
    return {}
