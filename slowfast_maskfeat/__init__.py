"""Self-supervised video and image models: pre-training, fine-tuning, evaluation.

The names below are the public API. They are imported on first use, so that importing the package
is fast and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slowfast_maskfeat.builders import (
        build_loader,
        build_mask_sampler,
        build_model,
        build_optimizer,
        build_task,
    )
    from slowfast_maskfeat.checkpoints import LoadReport, load_weights
    from slowfast_maskfeat.clips import ClipBatch
    from slowfast_maskfeat.config import load_config
    from slowfast_maskfeat.metrics.ava_map import AvaResult
    from slowfast_maskfeat.metrics.ava_map import evaluate as evaluate_ava
    from slowfast_maskfeat.runs.embed import Embedder, Embedding
    from slowfast_maskfeat.runs.predict import Prediction, Predictor
    from slowfast_maskfeat.runs.pretrained import from_pretrained, save_pretrained
    from slowfast_maskfeat.runs.start import Trained, train
    from slowfast_maskfeat.schedules import learning_rate
    from slowfast_maskfeat.targets.hog import hog
    from slowfast_maskfeat.videos import open_video

__version__ = "0.1.0"

__all__ = [
    "AvaResult",
    "ClipBatch",
    "Embedder",
    "Embedding",
    "LoadReport",
    "Prediction",
    "Predictor",
    "Trained",
    "build_loader",
    "build_mask_sampler",
    "build_model",
    "build_optimizer",
    "build_task",
    "evaluate_ava",
    "from_pretrained",
    "hog",
    "learning_rate",
    "load_config",
    "load_weights",
    "open_video",
    "save_pretrained",
    "train",
]

_MODULES = {
    "AvaResult": "metrics.ava_map",
    "ClipBatch": "clips",
    "Embedder": "runs.embed",
    "Embedding": "runs.embed",
    "LoadReport": "checkpoints",
    "Prediction": "runs.predict",
    "Predictor": "runs.predict",
    "Trained": "runs.start",
    "build_loader": "builders",
    "build_mask_sampler": "builders",
    "build_model": "builders",
    "build_optimizer": "builders",
    "build_task": "builders",
    "evaluate_ava": "metrics.ava_map",
    "from_pretrained": "runs.pretrained",
    "hog": "targets.hog",
    "learning_rate": "schedules",
    "load_config": "config",
    "load_weights": "checkpoints",
    "open_video": "videos",
    "save_pretrained": "runs.pretrained",
    "train": "runs.start",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES[name]}")
    value = getattr(module, "evaluate" if name == "evaluate_ava" else name)
    globals()[name] = value  # so that __getattr__ is called once per name
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
