"""Training methods, one file each: the loss of a batch and the evaluation of a model."""

from slowfast_maskfeat.tasks.base import (
    Evaluation,
    Evaluator,
    LossEvaluation,
    StepOutput,
    Task,
    scalar_metrics,
    unwrap,
)
from slowfast_maskfeat.tasks.classification import Classification
from slowfast_maskfeat.tasks.detection import Detection
from slowfast_maskfeat.tasks.masked_prediction import MaskedPrediction
from slowfast_maskfeat.tasks.multi_label import MultiLabelClassification

__all__ = [
    "Classification",
    "Detection",
    "Evaluation",
    "Evaluator",
    "LossEvaluation",
    "MaskedPrediction",
    "MultiLabelClassification",
    "StepOutput",
    "Task",
    "scalar_metrics",
    "unwrap",
]
