"""Differences between the configuration of a run and that of the checkpoint it continues from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.config.load import stored_config

# Keys that can differ between two starts of one run: no step of the training depends on them.
_OF_A_START = (
    "DATA_LOADER.",
    "DIST_BACKEND",
    "LOG.",
    "LOG_",
    "NUM_GPUS",
    "OUTPUT_DIR",
    "PROBE.",
    "SHARD_ID",
    "TENSORBOARD.",
    "TEST.",
    "TRAIN.AUTO_RESUME",
    "TRAIN.CHECKPOINT_",
    "TRAIN.ENABLE",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.KEEP_BEST",
    "TRAIN.KEEP_CHECKPOINTS",
    "TRAIN.MONITOR",
    "TRAIN.STOP_",
)
_LONGEST_VALUE = 60  # characters of a table's cell


def changed_keys(text: str, source: str, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """Compare a stored configuration with the one of this run.

    Args:
        text: YAML stored in a checkpoint. Keys that it lacks have their defaults.
        source: path of the checkpoint, for messages.
        cfg: configuration of this run; not changed.

    Returns:
        Dotted key -> (value in the checkpoint, value now), in the order of `default_config`;
        OUTPUT_DIR is not compared, since folders may be renamed.

    Raises:
        ValueError: the text is not YAML.
    """
    before = dict(flatten(stored_config(text, source)))
    now = {key: value for key, value in flatten(cfg) if key != "OUTPUT_DIR"}
    return {key: (before.get(key), value) for key, value in now.items() if value != before.get(key)}


def changes_training(changed: Mapping[str, tuple[Any, Any]]) -> bool:
    """Return whether a changed key is one that the weights depend on."""
    return any(not key.startswith(_OF_A_START) for key in changed)


def difference_table(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Format the result of `changed_keys` as a table with a line for each key."""
    rows = [("key", "checkpoint", "now")]
    rows += [(key, _cell(before), _cell(now)) for key, (before, now) in changed.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {key:{widths[0]}}  {old:{widths[1]}}  {new}" for key, old, new in rows)


def _cell(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
