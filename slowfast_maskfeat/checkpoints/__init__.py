"""Checkpoints: files to resume runs from, and weights for models that may differ."""

from slowfast_maskfeat.checkpoints.class_names import compare_class_names
from slowfast_maskfeat.checkpoints.file_weights import read_weights
from slowfast_maskfeat.checkpoints.header import read_header
from slowfast_maskfeat.checkpoints.report import LoadError, LoadReport
from slowfast_maskfeat.checkpoints.safetensors_file import save_safetensors
from slowfast_maskfeat.checkpoints.save_load import (
    checkpoint_folder,
    checkpoint_path,
    find_checkpoints,
    find_tasks,
    folder_of_run,
    keep_last,
    load_checkpoint,
    save_checkpoint,
)
from slowfast_maskfeat.checkpoints.transfer import load_weights

__all__ = [
    "LoadError",
    "LoadReport",
    "checkpoint_folder",
    "checkpoint_path",
    "compare_class_names",
    "find_checkpoints",
    "find_tasks",
    "folder_of_run",
    "keep_last",
    "load_checkpoint",
    "load_weights",
    "read_header",
    "read_weights",
    "save_checkpoint",
    "save_safetensors",
]
