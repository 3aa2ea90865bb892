"""Features of frozen networks: extraction and storage."""

from __future__ import annotations

from slowfast_maskfeat.features.file import Features, load_features, save_features
from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.features.store import FeatureStore

__all__ = [
    "FeatureRows",
    "FeatureStore",
    "Features",
    "load_features",
    "save_features",
]
