"""Extension points: the names that a module named in the key IMPORTS builds on.

Such a module is imported in every process before configuration keys are checked. It adds rows to
the tables of this package by the `register_*` functions, and keys by `add_keys`:

    register_method     a training method: a value of MODEL.MODEL_NAME, or of a key beside it
    register_backbone   a network: a value of MODEL.ARCH
    register_target     a prediction target: a value of MASK.TARGET
    register_mask       a mask: a value of AUG.MASK_KIND
    register_dataset    a data set: a value of TRAIN.DATASET and TEST.DATASET
    add_keys            configuration keys with their defaults

IMPORTS is read from YAML files and the command line, never from a checkpoint.
"""

from slowfast_maskfeat.augment import TrainTransform, normalize
from slowfast_maskfeat.backbones import (
    Backbone,
    BackboneModel,
    MaskedModel,
    resize_mask,
    take_masked,
)
from slowfast_maskfeat.builders.backbones import (
    build_backbone,
    prediction_grids,
    prediction_strides,
    register_backbone,
)
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.masks import MaskKind, register_mask
from slowfast_maskfeat.builders.methods import Method, register_method
from slowfast_maskfeat.builders.targets import TargetKind, register_target
from slowfast_maskfeat.builders.train_view import build_random_frames, build_train_transform
from slowfast_maskfeat.clips import RandomFrames, RandomSpan, SameFrames, ViewSpec
from slowfast_maskfeat.config import add_keys
from slowfast_maskfeat.datasets import (
    DataFolder,
    DataSetKind,
    KeyFrames,
    MissingListError,
    VideoList,
    register_dataset,
)
from slowfast_maskfeat.datasets.row_collector import RowCollector
from slowfast_maskfeat.distributed import all_reduce, all_reduce_with_grad
from slowfast_maskfeat.ema import Teacher, move_average
from slowfast_maskfeat.figures import CurvePanel, Drawing
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.schedules import Schedule
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import Target
from slowfast_maskfeat.tasks import Evaluation, LossEvaluation, StepOutput, Task, unwrap
from slowfast_maskfeat.tasks.drawings import ClipDrawings

__all__ = [
    "Backbone",
    "BackboneModel",
    "ClipDrawings",
    "CurvePanel",
    "DataFolder",
    "DataSetKind",
    "DataSource",
    "Drawing",
    "Evaluation",
    "FrozenNetwork",
    "Grid",
    "KeyFrames",
    "LossEvaluation",
    "MaskKind",
    "MaskedModel",
    "Method",
    "MissingListError",
    "RandomFrames",
    "RandomSpan",
    "RowCollector",
    "SameFrames",
    "Schedule",
    "StepOutput",
    "Target",
    "TargetKind",
    "Task",
    "Teacher",
    "TrainTransform",
    "VideoList",
    "ViewSpec",
    "add_keys",
    "all_reduce",
    "all_reduce_with_grad",
    "build_backbone",
    "build_random_frames",
    "build_train_transform",
    "move_average",
    "normalize",
    "prediction_grids",
    "prediction_strides",
    "register_backbone",
    "register_dataset",
    "register_mask",
    "register_method",
    "register_target",
    "resize_mask",
    "take_masked",
    "unwrap",
]
