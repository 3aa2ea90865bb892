"""PNG files for people to look at leave this room: HOG panels, curves, histograms."""

from __future__ import annotations

from slowfast_maskfeat.pictures.curves import accuracy_curves, training_curves
from slowfast_maskfeat.pictures.histograms import histograms
from slowfast_maskfeat.pictures.panel import HOGPanelRow, hog_panel

__all__ = ["HOGPanelRow", "accuracy_curves", "histograms", "hog_panel", "training_curves"]
