"""Files a run can go on from, and weights carried from one model to another, leave this room."""

from slowfast_maskfeat.checkpoints.save_load import (
    checkpoint_path,
    find_checkpoints,
    keep_last,
    load_checkpoint,
    save_checkpoint,
)
from slowfast_maskfeat.checkpoints.transfer import LoadReport, load_weights

__all__ = [
    "LoadReport",
    "checkpoint_path",
    "find_checkpoints",
    "keep_last",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
