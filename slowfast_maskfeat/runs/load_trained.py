"""Trained models, loaded from their checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.hugging_face import read_hugging_face
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.precision import set_precision
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.builders.weights import load_tested_weights, run_result
from slowfast_maskfeat.checkpoints import (
    checkpoint_folder,
    find_checkpoints,
    find_tasks,
    load_checkpoint,
)
from slowfast_maskfeat.checkpoints.hugging_face import is_hugging_face
from slowfast_maskfeat.config import Overrides

FILE_NAME = "model.safetensors"
"""Name of the file that `save_pretrained` writes."""


class TrainedFile(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: of the file.
        content: as of `load_checkpoint`.
    """

    path: str
    content: Mapping[str, Any]


class Origin(NamedTuple):
    """The file that a model was loaded from.

    Attributes:
        path: of the file.
        num_epochs: finished epochs of the training that wrote it; None if it is no checkpoint of a
            training.
        data: facts of the training's list, see `data_facts`; empty if unknown.
    """

    path: str
    num_epochs: int | None
    data: Mapping[str, Any]


class TrainedModel(NamedTuple):
    """A model loaded from a checkpoint.

    Attributes:
        cfg: frozen configuration.
        model: with the weights, in evaluation mode, on its device. Its attributes are `cfg`,
            `class_names` and `origin`, an `Origin`.
        class_names: of the classes; empty if the file has none.
    """

    cfg: CfgNode
    model: nn.Module
    class_names: tuple[str, ...]


def load_trained(
    checkpoint: str, *, device: str, config_file: str | None = None, pairs: Overrides = ()
) -> TrainedModel:
    """Load the model of a checkpoint for a command, whose process gets its TRAIN.PRECISION.

    See `load_model` for arguments, result and errors.
    """
    trained = load_model(checkpoint, device=device, config_file=config_file, pairs=pairs)
    set_precision(trained.cfg)
    return trained


def load_model(
    checkpoint: str | os.PathLike[str],
    *,
    device: str,
    config_file: str | None = None,
    pairs: Overrides = (),
) -> TrainedModel:
    """Load the model of a checkpoint; nothing of torch's settings changes.

    The annotation files of its training need not exist: configuration and class names are in the
    checkpoint.

    Args:
        checkpoint: see `read_trained`.
        device: see `named_device`.
        config_file: YAML file to use instead of the checkpoint's own configuration; required for a
            file with only weights.
        pairs: keys and values that override both, see `load_config`.

    Raises:
        ValueError: the file has no configuration and none is given, the weights do not fit the
            model, or there is no such device.
    """
    torch_device = named_device(device)
    trained = read_trained(checkpoint)
    cfg = trained_config(trained.path, trained.content, config_file, pairs)
    return build_trained(trained, cfg, torch_device)


def build_trained(trained: TrainedFile, cfg: CfgNode, device: torch.device) -> TrainedModel:
    """Build the model of a checkpoint that was read.

    Args:
        trained: the checkpoint.
        cfg: its configuration, see `trained_config`.
        device: of the model.

    Raises:
        ValueError: the weights do not fit the model.
    """
    path, content = trained
    names = tuple(content.get("class_names") or ())
    data = DataSource(cfg)
    check_model_size(lambda: build_model(cfg, data=data), path, content)
    model = build_model(cfg, data=data).to(device).eval()
    load_tested_weights(cfg, model, path, data=data, content=content)
    model.cfg = cfg
    model.class_names = names  # type: ignore[assignment]
    model.origin = _origin(trained)  # type: ignore[assignment]
    return TrainedModel(cfg, model, names)


def read_trained(checkpoint: str | os.PathLike[str]) -> TrainedFile:
    """Read a checkpoint.

    Args:
        checkpoint: of a training, a file with only weights, the folder of `save_pretrained`, a
            folder of Hugging Face's transformers (see `read_hugging_face`), or the OUTPUT_DIR of a
            run, whose last checkpoint is read.

    Raises:
        ValueError: there is none, it can't be read, or there is no such model here.
    """
    path = Path(checkpoint)
    if is_hugging_face(path):
        file, content = read_hugging_face(path)
        return TrainedFile(str(file), content)
    found = checkpoint_file(path)
    return TrainedFile(found, load_checkpoint(found))


def config_of(model: nn.Module) -> CfgNode:
    """Return the configuration that a loaded model carries.

    Raises:
        ValueError: it has no attribute `cfg`.
    """
    cfg = getattr(model, "cfg", None)
    if not isinstance(cfg, CfgNode):
        raise ValueError(
            f"{type(model).__name__} must have an attribute `cfg` with its configuration, got "
            f"{type(cfg).__name__}; set model.cfg = load_config(...)"
        )
    return cast(CfgNode, cfg)


def named_device(device: str) -> torch.device:
    """Return the device that `--device` names.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU if torch finds one.

    Raises:
        ValueError: there is no such device, or it is a GPU and torch finds none.
    """
    device = str(device)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device must be 'cpu', 'cuda' or 'auto', got {device!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be 'cpu' since torch finds no GPU, got {device!r}")
    last = torch.cuda.device_count() - 1
    if device.startswith("cuda:") and int(device.partition(":")[2]) > last:
        raise ValueError(f"device must be at most 'cuda:{last}', the last GPU, got {device!r}")
    return torch.device(device)


def _origin(trained: TrainedFile) -> Origin:
    content = trained.content
    is_of_training = "optimizer_state" in content and isinstance(content.get("epoch"), int)
    num_epochs = content["epoch"] + 1 if is_of_training else None
    return Origin(trained.path, num_epochs, content.get("data") or {})


def checkpoint_file(checkpoint: str | os.PathLike[str]) -> str:
    """Return the file that a checkpoint's name means: of a folder, its saved model or its result.

    The result of a training is its checkpoint of the last epoch and step, whatever the times of the
    files, which a copy changes, or that of the best validation if the run kept it
    (TRAIN.KEEP_BEST). Of several tasks, it is that of the task whose last one was written last.

    Args:
        checkpoint: file or address, which is returned unchanged; the folder of `save_pretrained`;
            or the OUTPUT_DIR of a run.

    Raises:
        ValueError: a folder has neither.
    """
    path = Path(checkpoint)
    if not path.is_dir():
        return os.fspath(checkpoint)
    if (path / FILE_NAME).is_file():
        return str(path / FILE_NAME)
    folders = (path, checkpoint_folder(path))
    numbered = {
        find_checkpoints(folder, task)[-1]: task
        for folder in folders
        for task in find_tasks(folder)
    }
    found = [*numbered] or [file for folder in folders for file in sorted(folder.glob("*.pyth"))]
    if not found:
        raise ValueError(f"{path} must contain {FILE_NAME} or checkpoints (*.pyth), got neither")
    last = max(found, key=lambda file: file.stat().st_mtime)
    if last in numbered:
        last = run_result(last.parent, numbered[last]) or last
    return str(last)
