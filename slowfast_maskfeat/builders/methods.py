"""Training methods: one row per method. No other code chooses a method by the keys that select it.

MODEL.MODEL_NAME, MASK.ENABLE and DETECTION.ENABLE select it, as in the published configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.contrastive import (
    build_byol,
    build_byol_model,
    build_dino,
    build_dino_model,
    build_ibot,
    build_ibot_model,
    check_byol,
    check_dino,
    check_ibot,
    prototype_warnings,
)
from slowfast_maskfeat.builders.contrastive_views import contrastive_views
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.latents import (
    build_latent_model,
    build_latents,
    check_latents,
    latent_masks,
)
from slowfast_maskfeat.builders.masks import build_mask_sampler
from slowfast_maskfeat.builders.model import build_classifier, build_detector, build_masked_model
from slowfast_maskfeat.builders.targets import find_target, without_any, without_maps
from slowfast_maskfeat.builders.task import (
    build_classification,
    build_detection,
    build_masked_prediction,
    check_classification,
    check_detection,
    check_masked_prediction,
)
from slowfast_maskfeat.builders.tokenizer import (
    build_dvae_training,
    build_tokenizer,
    build_vq_training,
    check_tokenizer,
)
from slowfast_maskfeat.clips import ClipBatch, ViewSpec
from slowfast_maskfeat.config import default_config, key_value
from slowfast_maskfeat.figures import (
    AP_PANEL,
    BASELINE_PANEL,
    LOSS_PANEL,
    PROTOTYPE_PANELS,
    TOKENIZER_PANELS,
    TOP1_PANEL,
    CurvePanel,
)
from slowfast_maskfeat.masks import MaskSampler
from slowfast_maskfeat.tasks import Task
from slowfast_maskfeat.tasks.drawings import (
    ClipDrawings,
    draw_masked_predictions,
    draw_reconstructions,
)

DrawPredictions = Callable[[nn.Module, Task, ClipBatch, bool], ClipDrawings | None]


def _no_check(cfg: CfgNode) -> None:
    """Check nothing here; most keys are checked where they are used."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of `METHODS`.

    Attributes:
        model: (configuration, data) -> the network to train.
        task: (configuration, model, data) -> its task.
        figures: panels of curves.png besides the learning rate; panels without data are omitted.
        draw: (model, task, batch, channels are reversed) -> drawings of the model's predictions of
            each clip and time step, or None if the target cannot be drawn.
        check: raises ValueError for keys that contradict each other, before anything is built.
        warnings: configuration -> sentences on what is probably not meant, shown before a training.
        trains_class_token: the loss reaches the class token, so that a classifier and a probe use
            it; otherwise the mean of the patch tokens.
        views: configuration -> the kinds of views of a sample; without any: one clip.
        counts_crops: DATA.TRAIN_CROP_NUM_TEMPORAL and TRAIN_CROP_NUM_SPATIAL are numbers of these
            views; otherwise they must be 1 with several views.
        masks: configuration -> the mask sampler of each kind of view, or None for a kind without
            masks; without any, the model takes no masks.
        label_maps: configuration -> the folder of stored label maps that training and validation
            read with the images; empty: none.
        has_labels: samples need class labels.
        has_boxes: samples are key frames with boxes.
        is_tested: TEST.ENABLE runs a test; False for pre-training.
        is_monitored: TRAIN.MONITOR measures features of the backbone, which its checkpoint has.
    """

    model: Callable[[CfgNode, DataSource], nn.Module]
    task: Callable[[CfgNode, nn.Module, DataSource], Task]
    figures: Sequence[CurvePanel] = (LOSS_PANEL,)
    draw: DrawPredictions | None = None
    check: Callable[[CfgNode], None] = _no_check
    warnings: Callable[[CfgNode], Sequence[str]] = without_any
    views: Callable[[CfgNode], Sequence[ViewSpec]] = without_any
    counts_crops: bool = False
    masks: Callable[[CfgNode], Sequence[MaskSampler | None]] = without_any
    label_maps: Callable[[CfgNode], str] = without_maps
    trains_class_token: bool = True
    has_labels: bool = False
    has_boxes: bool = False
    is_tested: bool = False
    is_monitored: bool = False

    @property
    def row_name(self) -> str:
        """The unit of its annotation files, for messages."""
        return "key frames" if self.has_boxes else "videos"


class MethodKey(NamedTuple):
    """The values that select a method."""

    model_name: str
    masked: bool = False
    detection: bool = False
    kind_key: str = ""
    kind: str = ""

    @property
    def flags(self) -> str:
        """The two switches with their values, for messages."""
        return f"MASK.ENABLE {self.masked} and DETECTION.ENABLE {self.detection}"

    @property
    def plain(self) -> MethodKey:
        """The key without a kind."""
        return MethodKey(self.model_name, self.masked, self.detection)

    def __str__(self) -> str:
        kind = f", {self.kind_key} {self.kind!r}" if self.kind_key else ""
        return f"MODEL.MODEL_NAME {self.model_name!r} with {self.flags}{kind}"


def method_name(cfg: CfgNode) -> str:
    """Return the keys that select the method, for messages."""
    return str(_find_key(cfg))


def find_method(cfg: CfgNode) -> Method:
    """Find the method that a configuration selects.

    A row of a kind, such as a value of CONTRASTIVE.TYPE, precedes the row without one.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: there is no such method; the message lists the existing ones.
    """
    return METHODS[_find_key(cfg)]


def _find_key(cfg: CfgNode) -> MethodKey:
    key = MethodKey(cfg.MODEL.MODEL_NAME, cfg.MASK.ENABLE, cfg.DETECTION.ENABLE)
    kinds = [other for other in METHODS if other.kind_key and other.plain == key]
    for other in kinds:
        if key_value(cfg, other.kind_key) == other.kind:
            return other
    if key in METHODS:
        return key
    if kinds:
        kind_key = kinds[0].kind_key
        accepted = ", ".join(repr(other.kind) for other in kinds)
        raise ValueError(
            f"{kind_key} must be one of {accepted} with MODEL.MODEL_NAME {key.model_name!r}, got "
            f"{key_value(cfg, kind_key)!r}"
        )
    known = {other.model_name for other in METHODS}
    if key.model_name not in known:
        names = ", ".join(map(repr, sorted(known)))
        raise ValueError(f"MODEL.MODEL_NAME must be one of {names}, got {key.model_name!r}")
    flags = dict.fromkeys(other.flags for other in METHODS if other.model_name == key.model_name)
    accepted = " or ".join(flags)
    raise ValueError(f"MODEL.MODEL_NAME {key.model_name!r} requires {accepted}, got {key.flags}")


def register_method(
    model_name: str,
    method: Method,
    *,
    masked: bool = False,
    detection: bool = False,
    kind_key: str = "",
    kind: str = "",
) -> None:
    """Register a training method.

    Args:
        model_name: value of MODEL.MODEL_NAME.
        method: the row.
        masked: value of MASK.ENABLE that selects it.
        detection: value of DETECTION.ENABLE that selects it.
        kind_key: another key that selects it, such as "MASK.TARGET"; empty: none.
        kind: value of that key.

    Raises:
        ValueError: a method is already registered for these values, or there is no key `kind_key`.
    """
    key = MethodKey(model_name, masked, detection, kind_key, kind)
    if kind_key:
        try:
            key_value(default_config(), kind_key)
        except KeyError:
            raise ValueError(f"kind_key must be a configuration key, got {kind_key!r}") from None
    if key in METHODS:
        raise ValueError(f"a training method is already registered for {key}")
    METHODS[key] = method


def build_model(cfg: CfgNode, *, data: DataSource | None = None) -> nn.Module:
    """Build the network of a configuration's method.

    Args:
        cfg: configuration; not modified.
        data: the run's data source, which caches files; None reads them again.

    Returns:
        Classification: model(clips) -> (B, K) logits. Detection: model(clips, boxes) -> (R, K)
        logits. Masked prediction: model(clips, mask) -> [(M, dim), ...], one per predicting depth.

    Raises:
        ValueError: a key has an invalid value; the message names it.
    """
    return find_method(cfg).model(cfg, data or DataSource(cfg))


def build_feature_model(cfg: CfgNode, *, data: DataSource | None = None) -> FeatureModel:
    """Build the network whose frozen features a configuration's method has trained.

    Of a pre-training it is the classifier that fine-tuning starts from. If the loss does not reach
    the class token, its tokens are mean-pooled regardless of MVIT.USE_MEAN_POOLING.

    Args:
        cfg: configuration of a pre-training or a classifier; not modified.
        data: the run's data source, which caches files; None reads them again.

    Raises:
        ValueError: the method trains a tokenizer, or a key has an invalid value.
    """
    method = find_method(cfg)
    if cfg.MODEL.MODEL_NAME == "Tokenizer":
        raise ValueError(
            "MODEL.MODEL_NAME must be of a network with features, got 'Tokenizer', which has codes"
        )
    mean_pooling = not method.trains_class_token
    return build_classifier(cfg, data or DataSource(cfg), mean_pooling=mean_pooling)


def build_task(cfg: CfgNode, model: nn.Module, *, data: DataSource | None = None) -> Task:
    """Build the task of a configuration's method.

    Args:
        cfg: configuration; not modified.
        model: from `build_model`; not modified.
        data: the run's data source, which caches files; None reads them again.

    Raises:
        ValueError: model, loss and task do not fit together.
    """
    method = find_method(cfg)
    method.check(cfg)
    return method.task(cfg, model, data or DataSource(cfg))


def target_views(cfg: CfgNode) -> Sequence[ViewSpec]:
    """Return the kinds of views that the target of masked prediction needs; none: one clip."""
    return find_target(cfg).views(cfg)


def _target_label_maps(cfg: CfgNode) -> str:
    """Return the folder of the label maps that the target of masked prediction needs."""
    return find_target(cfg).label_maps(cfg)


def _mask_samplers(cfg: CfgNode) -> Sequence[MaskSampler | None]:
    """Return the sampler of the first view, and None for each further one."""
    return build_mask_sampler(cfg), *(None for _ in target_views(cfg)[1:])


def _masks_of_global_views(cfg: CfgNode) -> Sequence[MaskSampler | None]:
    """Return the sampler of the global views, and None for the local ones."""
    return build_mask_sampler(cfg), *(None for _ in contrastive_views(cfg)[1:])


METHODS: dict[MethodKey, Method] = {
    MethodKey("MViT"): Method(
        model=build_classifier,
        task=build_classification,
        figures=(LOSS_PANEL, TOP1_PANEL, AP_PANEL),
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
    MethodKey("Tokenizer", kind_key="TOKENIZER.TYPE", kind="vq"): Method(
        model=build_tokenizer,
        task=build_vq_training,
        figures=TOKENIZER_PANELS,
        draw=draw_reconstructions,
        check=check_tokenizer,
    ),
    MethodKey("Tokenizer", kind_key="TOKENIZER.TYPE", kind="dvae"): Method(
        model=build_tokenizer,
        task=build_dvae_training,
        figures=TOKENIZER_PANELS,
        draw=draw_reconstructions,
        check=check_tokenizer,
    ),
    MethodKey("ContrastiveModel", kind_key="CONTRASTIVE.TYPE", kind="byol"): Method(
        model=build_byol_model,
        task=build_byol,
        check=check_byol,
        views=contrastive_views,
        counts_crops=True,
        is_monitored=True,
    ),
    MethodKey("ContrastiveModel", kind_key="CONTRASTIVE.TYPE", kind="dino"): Method(
        model=build_dino_model,
        task=build_dino,
        figures=PROTOTYPE_PANELS,
        check=check_dino,
        warnings=prototype_warnings,
        views=contrastive_views,
        counts_crops=True,
        is_monitored=True,
    ),
    MethodKey("ContrastiveModel", kind_key="CONTRASTIVE.TYPE", kind="ibot"): Method(
        model=build_ibot_model,
        task=build_ibot,
        figures=PROTOTYPE_PANELS,
        check=check_ibot,
        warnings=prototype_warnings,
        views=contrastive_views,
        counts_crops=True,
        masks=_masks_of_global_views,
        is_monitored=True,
    ),
    MethodKey("MaskMViT", masked=True, kind_key="MASK.TARGET", kind="latents"): Method(
        model=build_latent_model,
        task=build_latents,
        figures=(BASELINE_PANEL,),
        draw=draw_masked_predictions,
        check=check_latents,
        trains_class_token=False,
        masks=latent_masks,
        is_monitored=True,
    ),
    MethodKey("MaskMViT", masked=True): Method(
        model=build_masked_model,
        task=build_masked_prediction,
        figures=(BASELINE_PANEL,),
        draw=draw_masked_predictions,
        check=check_masked_prediction,
        trains_class_token=False,
        views=target_views,
        masks=_mask_samplers,
        label_maps=_target_label_maps,
        is_monitored=True,
    ),
}
"""All training methods."""
