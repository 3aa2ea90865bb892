"""What a run learns: how a batch becomes a loss, and how a model is judged."""

from slowfast_maskfeat.tasks.base import Evaluation, StepOutput, Task, unwrap
from slowfast_maskfeat.tasks.classify import ClassifyTask
from slowfast_maskfeat.tasks.detect import DetectTask
from slowfast_maskfeat.tasks.pretrain import PretrainTask

__all__ = [
    "ClassifyTask",
    "DetectTask",
    "Evaluation",
    "PretrainTask",
    "StepOutput",
    "Task",
    "unwrap",
]
