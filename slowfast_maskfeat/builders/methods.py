"""Training methods: one row a method. Nothing else reads the keys that choose one.

MODEL.MODEL_NAME, MASK.ENABLE and DETECTION.ENABLE choose, as in the published configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.builders.model import build_classifier, build_detector, build_masked_model
from slowfast_maskfeat.builders.task import (
    build_classification,
    build_detection,
    build_masked_prediction,
    check_classification,
    check_detection,
    check_masked_prediction,
)
from slowfast_maskfeat.clips import ClipBatch, ViewSpec
from slowfast_maskfeat.figures import AP_PANEL, BASELINE_PANEL, LOSS_PANEL, TOP1_PANEL, CurvePanel
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.tasks import Task
from slowfast_maskfeat.tasks.drawings import ClipDrawings, draw_masked_predictions

DrawPredictions = Callable[[nn.Module, Task, ClipBatch, bool], ClipDrawings | None]


def _no_check(cfg: CfgNode) -> None:
    """Most keys are checked where they are used."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        model: (configuration, data) -> the network that is trained.
        task: (configuration, model, data) -> its task.
        figures: panels of curves.png, beside the learning rate; those without data are left out.
        draw: (model, task, batch, channels are reversed) -> drawings of the model's predictions of
            each clip and time step, or None if the target cannot be drawn.
        check: raises ValueError for keys that do not fit together, before anything is built.
        views: configuration -> the kinds of view that a sample gives; None: one clip.
        masks: configuration -> the mask sampler of each kind of view, or None for a kind without;
            None: the model takes no masks.
        has_labels: samples need class labels.
        has_boxes: samples are key frames with boxes.
        is_tested: TEST.ENABLE evaluates it; pre-training has no test.
    """

    model: Callable[[CfgNode, DataSource], nn.Module]
    task: Callable[[CfgNode, nn.Module, DataSource], Task]
    figures: Sequence[CurvePanel] = (LOSS_PANEL,)
    draw: DrawPredictions | None = None
    check: Callable[[CfgNode], None] = _no_check
    views: Callable[[CfgNode], Sequence[ViewSpec]] | None = None
    masks: Callable[[CfgNode], Sequence[MaskSampler | None]] | None = None
    has_labels: bool = False
    has_boxes: bool = False
    is_tested: bool = False

    @property
    def row_name(self) -> str:
        """What a row of its annotation files is."""
        return "key frames" if self.has_boxes else "videos"


class MethodKey(NamedTuple):
    """The values that choose a method."""

    model_name: str
    masked: bool = False
    detection: bool = False

    @property
    def flags(self) -> str:
        """Name the two switches with their values."""
        return f"MASK.ENABLE {self.masked} and DETECTION.ENABLE {self.detection}"

    def __str__(self) -> str:
        return f"MODEL.MODEL_NAME {self.model_name!r} with {self.flags}"


def method_name(cfg: CfgNode) -> str:
    """Name the keys that chose the method, for messages."""
    return str(MethodKey(cfg.MODEL.MODEL_NAME, cfg.MASK.ENABLE, cfg.DETECTION.ENABLE))


def find_method(cfg: CfgNode) -> Method:
    """Find the row that a configuration chooses.

    Args:
        cfg: configuration; it is only read.

    Raises:
        ValueError: there is none; the message lists those that exist.
    """
    key = MethodKey(cfg.MODEL.MODEL_NAME, cfg.MASK.ENABLE, cfg.DETECTION.ENABLE)
    if key in METHODS:
        return METHODS[key]
    known = {other.model_name for other in METHODS}
    if key.model_name not in known:
        names = ", ".join(map(repr, sorted(known)))
        raise ValueError(f"MODEL.MODEL_NAME must be one of {names}, got {key.model_name!r}")
    accepted = " or ".join(other.flags for other in METHODS if other.model_name == key.model_name)
    raise ValueError(f"MODEL.MODEL_NAME {key.model_name!r} requires {accepted}, got {key.flags}")


def register_method(
    model_name: str, method: Method, *, masked: bool = False, detection: bool = False
) -> None:
    """Add a row.

    Args:
        model_name: value of MODEL.MODEL_NAME.
        method: the row.
        masked: value of MASK.ENABLE that chooses it.
        detection: value of DETECTION.ENABLE that chooses it.

    Raises:
        ValueError: these values choose a method already.
    """
    key = MethodKey(model_name, masked, detection)
    if key in METHODS:
        raise ValueError(f"a training method is registered already for {key}")
    METHODS[key] = method


def build_model(cfg: CfgNode, *, data: DataSource | None = None) -> nn.Module:
    """Build the network of a configuration's method.

    Args:
        cfg: configuration; it is only read.
        data: of the run, with what was read before; None reads it afresh.

    Returns:
        Classification: model(clips) -> (B, K) logits. Detection: model(clips, boxes) -> (R, K)
        logits. Masked prediction: model(clips, mask) -> [(M, dim), ...], one per predicting depth.

    Raises:
        ValueError: a key has a value of which no model can be built; the message names it.
    """
    return find_method(cfg).model(cfg, data or DataSource(cfg))


def build_task(cfg: CfgNode, model: nn.Module, *, data: DataSource | None = None) -> Task:
    """Build the task of a configuration's method.

    Args:
        cfg: configuration; it is only read.
        model: from `build_model`; it is not changed.
        data: of the run, with what was read before; None reads it afresh.

    Raises:
        ValueError: model, loss and task do not fit together.
    """
    method = find_method(cfg)
    method.check(cfg)
    return method.task(cfg, model, data or DataSource(cfg))


METHODS: dict[MethodKey, Method] = {
    MethodKey("MViT"): Method(
        model=build_classifier,
        task=build_classification,
        figures=(LOSS_PANEL, TOP1_PANEL),
        check=check_classification,
        has_labels=True,
        is_tested=True,
    ),
    MethodKey("MViT", detection=True): Method(
        model=build_detector,
        task=build_detection,
        figures=(LOSS_PANEL, AP_PANEL),
        check=check_detection,
        has_boxes=True,
        is_tested=True,
    ),
    MethodKey("MaskMViT", masked=True): Method(
        model=build_masked_model,
        task=build_masked_prediction,
        figures=(BASELINE_PANEL,),
        draw=draw_masked_predictions,
        check=check_masked_prediction,
        masks=lambda cfg: (build_mask_sampler(cfg),),
    ),
}
"""Every training method."""
