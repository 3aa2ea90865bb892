"""What frozen features say of the classes leaves this room: heads, and votes of neighbours."""

from slowfast_maskfeat.probes.attentive import AttentiveHead, num_attention_heads
from slowfast_maskfeat.probes.feature_file import Features, load_features, save_features
from slowfast_maskfeat.probes.feature_rows import FeatureRows
from slowfast_maskfeat.probes.feature_store import FeatureStore
from slowfast_maskfeat.probes.fit import Fit, FitSettings, fit_heads, head_scores
from slowfast_maskfeat.probes.linear import LinearHead
from slowfast_maskfeat.probes.neighbours import neighbour_scores

__all__ = [
    "AttentiveHead",
    "FeatureRows",
    "FeatureStore",
    "Features",
    "Fit",
    "FitSettings",
    "LinearHead",
    "fit_heads",
    "head_scores",
    "load_features",
    "neighbour_scores",
    "num_attention_heads",
    "save_features",
]
