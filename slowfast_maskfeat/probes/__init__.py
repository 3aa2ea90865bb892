"""Probes of frozen features: linear and attentive heads, and k nearest neighbors."""

from __future__ import annotations

from slowfast_maskfeat.probes.attentive import AttentiveHead, num_attention_heads
from slowfast_maskfeat.probes.fit import Fit, FitSettings, fit_heads, head_scores
from slowfast_maskfeat.probes.knn import neighbor_scores
from slowfast_maskfeat.probes.linear import LinearHead

__all__ = [
    "AttentiveHead",
    "Fit",
    "FitSettings",
    "LinearHead",
    "fit_heads",
    "head_scores",
    "neighbor_scores",
    "num_attention_heads",
]
