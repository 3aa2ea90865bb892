"""Figures: prediction panels, curves, bars, histograms, frames with boxes."""

from __future__ import annotations

from slowfast_maskfeat.figures.bars import class_bars
from slowfast_maskfeat.figures.boxes import box_panel, draw_boxes, drawing_scale
from slowfast_maskfeat.figures.canvas import draw_or_warn
from slowfast_maskfeat.figures.curves import (
    AP_PANEL,
    BASELINE_PANEL,
    LOSS_PANEL,
    MONITOR_PANELS,
    PROTOTYPE_PANELS,
    TOKENIZER_PANELS,
    TOP1_PANEL,
    CurvePanel,
    accuracy_curves,
    training_curves,
)
from slowfast_maskfeat.figures.heat import heat_picture
from slowfast_maskfeat.figures.histograms import histograms
from slowfast_maskfeat.figures.names import file_names, shorten
from slowfast_maskfeat.figures.panel import (
    MAX_ROWS,
    fill_masked,
    hide_masked,
    panel_columns,
    panel_image,
    prediction_panel,
)
from slowfast_maskfeat.figures.rows import (
    Column,
    Drawing,
    HOGDrawing,
    MapDrawing,
    PanelRow,
    Picture,
    PixelDrawing,
)

__all__ = [
    "AP_PANEL",
    "BASELINE_PANEL",
    "LOSS_PANEL",
    "MAX_ROWS",
    "MONITOR_PANELS",
    "PROTOTYPE_PANELS",
    "TOKENIZER_PANELS",
    "TOP1_PANEL",
    "Column",
    "CurvePanel",
    "Drawing",
    "HOGDrawing",
    "MapDrawing",
    "PanelRow",
    "Picture",
    "PixelDrawing",
    "accuracy_curves",
    "box_panel",
    "class_bars",
    "draw_boxes",
    "draw_or_warn",
    "drawing_scale",
    "file_names",
    "fill_masked",
    "heat_picture",
    "hide_masked",
    "histograms",
    "panel_columns",
    "panel_image",
    "prediction_panel",
    "shorten",
    "training_curves",
]
