"""Builders of objects from a configuration; no lower layer reads a configuration."""

from __future__ import annotations

from slowfast_maskfeat.builders.backbones import register_backbone
from slowfast_maskfeat.builders.data import build_loader
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.builders.methods import build_model, build_task
from slowfast_maskfeat.builders.optimizer import build_optimizer

__all__ = [
    "DataSource",
    "build_loader",
    "build_mask_sampler",
    "build_model",
    "build_optimizer",
    "build_task",
    "register_backbone",
]
