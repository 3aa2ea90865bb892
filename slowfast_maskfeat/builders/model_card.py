"""Facts of a configuration for people who get its model: network, input, task, recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones.geometry import BlockGeometry
from slowfast_maskfeat.builders.backbones import configured_clip_size, find_backbone
from slowfast_maskfeat.builders.data import num_clips_of_tests, num_crops
from slowfast_maskfeat.builders.encoder import encoder_options
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.targets import target_name
from slowfast_maskfeat.config import key_value

# Keys of a recipe, in the order of its table; those of masked prediction and of mixing besides.
_RECIPE = (
    "TRAIN.BATCH_SIZE",
    "NUM_SHARDS",
    "SOLVER.OPTIMIZING_METHOD",
    "SOLVER.BASE_LR",
    "SOLVER.MAX_EPOCH",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.LAYER_DECAY",
    "MVIT.DROPPATH_RATE",
    "AUG.ENABLE",
)
_MASKED = ("AUG.MASK_RATIO", "MASK.PRETRAIN_DEPTH")
_MIXED = ("MIXUP.ALPHA", "MIXUP.CUTMIX_ALPHA", "MIXUP.LABEL_SMOOTH_VALUE")


class CardFacts(NamedTuple):
    """Facts about a model that its configuration has.

    Attributes:
        task: in words.
        pipeline: task by its name on the Hugging Face hub; empty if there is none that fits.
        tags: for a search on the hub.
        network: in words.
        clip: the input in words.
        mean: of the input normalization.
        std: likewise.
        test: views of a test in words; empty for a model that is not tested.
        num_classes: of a model that is tested.
        reader: TRAIN.DATASET, which names the form of the lists, not the data.
        start: name of the file that the training started from; empty: random weights.
        recipe: configuration key -> value.
        is_embedded: `Embedder` takes it.
        is_predicted: `Predictor` takes it.
    """

    task: str
    pipeline: str
    tags: Sequence[str]
    network: str
    clip: str
    mean: Sequence[float]
    std: Sequence[float]
    test: str
    num_classes: int
    reader: str
    start: str
    recipe: dict[str, Any]
    is_embedded: bool
    is_predicted: bool


def card_facts(cfg: CfgNode) -> CardFacts:
    """Collect the facts of a configuration.

    Args:
        cfg: configuration; not modified.

    Raises:
        ValueError: a key has an invalid value.
    """
    method, data = find_method(cfg), cfg.DATA
    is_of_images = data.NUM_FRAMES == 1
    kind = "image" if is_of_images else "video"
    task, tag = _task(cfg)
    has_backbone = cfg.MODEL.MODEL_NAME != "Tokenizer"
    pipeline = f"{kind}-classification" if method.has_labels else ""
    if is_of_images and has_backbone and not (method.has_labels or method.has_boxes):
        pipeline = "image-feature-extraction"
    mixed = _MIXED if cfg.MIXUP.ENABLE and method.has_labels else ()
    keys = [*_RECIPE, *(_MASKED if cfg.MASK.ENABLE else ()), *mixed]
    return CardFacts(
        task=task,
        pipeline=pipeline,
        tags=("slowfast_maskfeat", kind, tag),
        network=_network(cfg) if has_backbone else f"tokenizer of images ({cfg.TOKENIZER.ARCH})",
        clip=_clip(cfg),
        mean=list(data.MEAN),
        std=list(data.STD),
        test=_test(cfg) if method.is_tested else "",
        num_classes=cfg.MODEL.NUM_CLASSES,
        reader=cfg.TRAIN.DATASET,
        start=cfg.TRAIN.CHECKPOINT_FILE_PATH.replace("\\", "/").rpartition("/")[2],
        recipe={key: key_value(cfg, key) for key in keys},
        is_embedded=has_backbone and not method.has_boxes,
        is_predicted=method.has_labels,
    )


def _task(cfg: CfgNode) -> tuple[str, str]:
    """Return the task in words, and its tag."""
    method, kind = find_method(cfg), "images" if cfg.DATA.NUM_FRAMES == 1 else "videos"
    if method.has_labels:
        return f"classification of {kind}", "classification"
    if method.has_boxes:
        return "detection of actions: classes of boxes in videos", "action-detection"
    if cfg.MODEL.MODEL_NAME == "Tokenizer":
        return f"tokenizer ({cfg.TOKENIZER.TYPE}) of images", "tokenizer"
    if cfg.MASK.ENABLE:
        form = "masked autoencoder" if cfg.MASK.MAE_ON else "masked prediction"
        words = target_name(cfg).replace("_", "-")
        return f"self-supervised pre-training on {kind}: {form} of {words}", "masked-prediction"
    is_own = cfg.MODEL.MODEL_NAME != "ContrastiveModel"  # of an extension
    name = cfg.MODEL.MODEL_NAME if is_own else cfg.CONTRASTIVE.TYPE
    return f"self-supervised pre-training on {kind}: {name}", name


def _network(cfg: CfgNode) -> str:
    kind = find_backbone(cfg)
    backbone = kind.build_on_meta(cfg)
    grids = backbone.grids(configured_clip_size(cfg))
    if cfg.MODEL.ARCH not in ("mvit", "maskmvit"):
        name = cfg.MODEL.ARCH
    elif any(map(_is_multiscale, encoder_options(cfg).geometries())):
        name = "multiscale vision transformer (MViT)"
    else:
        name = "vision transformer (ViT)"
    return (
        f"{name}, {len(grids)} blocks, {backbone.width} channels and {grids[-1]} tokens (frames x "
        f"rows x columns) after the last; positions: {kind.positions(cfg)}"
    )


def _is_multiscale(block: BlockGeometry) -> bool:
    """Whether a block pools its queries or its keys and values, or changes the width."""
    return bool(block.kernel_q or block.kernel_kv) or block.dim != block.dim_out


def _clip(cfg: CfgNode) -> str:
    data = cfg.DATA
    size = f"{data.TRAIN_CROP_SIZE}x{data.TRAIN_CROP_SIZE} pixels"
    if data.NUM_FRAMES == 1:
        return f"images of {size}"
    return (
        f"clips of {data.NUM_FRAMES} frames of {size}; sampling rate {data.SAMPLING_RATE} at "
        f"{data.TARGET_FPS} frames per second"
    )


def _test(cfg: CfgNode) -> str:
    clips = " or ".join(map(str, num_clips_of_tests(cfg)))
    size = cfg.DATA.TEST_CROP_SIZE
    return f"{num_crops(cfg, 'test')}x{clips} (crops x clips) of {size}x{size} pixels"
