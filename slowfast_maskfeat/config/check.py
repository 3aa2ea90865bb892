"""Checks of single values, as far as they need nothing but the configuration."""

from __future__ import annotations

import os

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config.defaults import flatten
from slowfast_maskfeat.config.limits import too_large
from slowfast_maskfeat.config.numbers import wrong_numbers
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.schedules import POLICIES
from slowfast_maskfeat.text import quoted
from slowfast_maskfeat.trackers import TRACKERS

# Top-1 accuracy of the nearest neighbors, effective rank and mean standard deviation of features.
_MONITOR_FIGURES = ("knn", "rank", "std")

_CHOICES: dict[str, tuple[object, ...]] = {
    "AUG.INTERPOLATION": ("bicubic", "bilinear", "random"),
    "AUG.RE_MODE": ("pixel", "rand", "const"),
    "CONTRASTIVE.PATCH_CENTER": ("all", "masked"),
    "DATA.DECODING_BACKEND": (
        *("auto", "torchvision", "torchcodec", "pyav", "decord", "torchcodec_cuda"),
    ),
    "DATA.ENSEMBLE_METHOD": ("sum", "max"),
    "DATA.SSL_COLOR_FORM": ("blend", "additive"),
    "MASK.FEATURE_LOSS": ("l2", "l1", "smooth_l1", "cosine"),
    "MASK.FEATURE_NORM": ("none", "layer", "unit"),
    "MASK.HEAD_TYPE": ("separate", "separate_xformer"),
    "MASK.PIXEL_LOSS": ("l2", "l1"),
    "MASK.PSEUDO_LABELS": ("soft", "hard"),
    "MODEL.HEAD_ACT": ("softmax", "sigmoid", "none"),
    "MODEL.KERNELS": ("plain", "triton"),
    "MVIT.INIT": ("published", "xavier", "rescaled", "beit"),
    "MVIT.MODE": ("conv", "conv_unshared", "avg", "max"),
    "MVIT.NORM": ("layernorm",),
    "MVIT.REL_POS_BIAS": ("", "shared", "block"),
    "PROBE.KIND": ("", "linear", "attentive", "knn"),
    "SOLVER.LARS_NORM": ("sum", "decayed"),
    "SOLVER.LR_POLICY": POLICIES,
    "SOLVER.OPTIMIZING_METHOD": ("sgd", "adam", "adamw"),
    "TEST.NUM_SPATIAL_CROPS": (1, 3),
    "TOKENIZER.ARCH": ("convolutional", "dalle", "vqgan", "vit"),
    "TOKENIZER.CODEBOOK": ("ema", "direction", "gradient"),
    "TOKENIZER.DISTANCE": ("euclidean", "cosine"),
    "TOKENIZER.RECONSTRUCTION": ("l1", "l2", "smooth_l1", "logit_laplace", "features"),
    "TRAIN.CHECKPOINT_INFLATION": ("", "mean", "repeat"),
    "TRAIN.CHECKPOINT_WEIGHTS": ("teacher", "student"),
    "TRAIN.COMPILE": ("", "model", "block"),
    "TRAIN.KEEP_BEST": ("", *_MONITOR_FIGURES, "validation"),
    "TRAIN.PRECISION": ("", "float32", "tf32", "bf16", "fp16"),
}

_POSITIVE = (
    "AUG.NUM_SAMPLE",
    "AUG.RE_COUNT",
    "AVA.FRAME_RATE",
    "CONTRASTIVE.BOTTLENECK_DIM",
    "CONTRASTIVE.DIM",
    "CONTRASTIVE.MLP_DIM",
    "CONTRASTIVE.NUM_MLP_LAYERS",
    "CONTRASTIVE.T",
    "DATA.IN_VAL_CROP_RATIO",
    "DATA.NUM_FRAMES",
    "DATA.SAMPLING_RATE",
    "DATA.SSL_LOCAL_CROP_SIZE",
    "DATA.TARGET_FPS",
    "DATA.TEST_CROP_SIZE",
    "DATA.TRAIN_CROP_NUM_SPATIAL",
    "DATA.TRAIN_CROP_NUM_TEMPORAL",
    "DATA.TRAIN_CROP_SIZE",
    "DATA_LOADER.PREFETCH_FACTOR",
    "DETECTION.ROI_XFORM_RESOLUTION",
    "LOG_PERIOD",
    "MASK.HOG_BINS",
    "MASK.HOG_CELL",
    "MODEL.NUM_CLASSES",
    "MVIT.DEPTH",
    "MVIT.EMBED_DIM",
    "MVIT.MLP_RATIO",
    "MVIT.NUM_HEADS",
    "NUM_SHARDS",
    "PROBE.BATCH_SIZE",
    "PROBE.NUM_NEIGHBORS",
    "PROBE.TEMPERATURE",
    "SOLVER.BASE_LR",
    "SOLVER.MAX_EPOCH",
    "TOKENIZER.CODE_DIM",
    "TOKENIZER.NUM_CODES",
    "TEST.BATCH_SIZE",
    "TEST.NUM_ENSEMBLE_VIEWS",
    "TRAIN.ACCUMULATION_STEPS",
    "TRAIN.BATCH_SIZE",
    "TRAIN.CHECKPOINT_PERIOD",
    "TRAIN.EVAL_PERIOD",
    "TRAIN.MAX_NONFINITE",
)

_LONGEST_TASK = 150  # bytes; file systems allow 255 for a name

_LARGEST_RATE = 1e30  # of a probe; times the batch size it is still a finite float32

_NOT_NEGATIVE = (
    "CONTRASTIVE.FREEZE_LAST_LAYER_EPOCHS",
    "CONTRASTIVE.KOLEO_WEIGHT",
    "CONTRASTIVE.PATCH_DIM",
    "CONTRASTIVE.PATCH_WEIGHT",
    "CONTRASTIVE.TEACHER_T_EPOCHS",
    "CONTRASTIVE.VIEW_WEIGHT",
    "DATA.DECODE_TIMEOUT",
    "DATA.MAX_IMAGE_PIXELS",
    "DATA.SSL_LOCAL_VIEWS",
    "DATA.TRAIN_JITTER_FPS",
    "DATA_LOADER.NUM_WORKERS",
    "PROBE.EPOCHS",
    "PROBE.NUM_HEADS",
    "PROBE.WEIGHT_DECAY",
    "RNG_SEED",
    "SOLVER.COSINE_END_LR",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.WARMUP_START_LR",
    "SOLVER.WEIGHT_DECAY",
    "TEST.REPORT_VIDEOS",
    "TOKENIZER.BETA",
    "TOKENIZER.CROP_SIZE",
    "TOKENIZER.KMEANS_ROUNDS",
    "TOKENIZER.NUM_BLOCKS",
    "TOKENIZER.PERCEPTUAL_WEIGHT",
    "TOKENIZER.RESTART_AFTER",
    "TRAIN.CHECKPOINT_STEP_PERIOD",
    "TRAIN.KEEP_CHECKPOINTS",
    "TRAIN.MONITOR_MIN_RANK",
    "TRAIN.MONITOR_PERIOD",
    "TRAIN.STOP_AFTER",
    "TRAIN.STOP_MIN_CHANGE",
)

_RATES = (
    "CONTRASTIVE.CENTER_MOMENTUM",
    "MIXUP.LABEL_SMOOTH_VALUE",
    "MODEL.DROPOUT_RATE",
    "MVIT.DROPOUT_RATE",
    "MVIT.DROPPATH_RATE",
    "MVIT.POS_RESIZE_OFFSET",
    "SOLVER.MOMENTUM",
    "TOKENIZER.DECAY",
    "TRAIN.EMA_DECAY",
)
_SHARES = (
    "AUG.RE_PROB",
    "AVA.DETECTION_SCORE_THRESH",
    "CONTRASTIVE.MOMENTUM",
    "DATA.COLOR_RND_GRAYSCALE",
    "DATA.MAX_BAD_FRACTION",
    "DATA.SSL_COLOR_HUE",
    "DATA.TIME_DIFF_PROB",
    "MIXUP.PROB",
    "MIXUP.SWITCH_PROB",
    "TOKENIZER.ANNEALING",
    "TOKENIZER.KL_WARMUP",
    "TOKENIZER.MIN_USAGE",
)

_LOSSES = {
    "cross_entropy": "classification",
    "soft_cross_entropy": "classification",
    "multi_mse": "pre-training",
    "contrastive_loss": "views",
    "bce": "detection, several labels per video",
    "bce_logit": "detection, several labels per video",
}


def check_values(cfg: CfgNode) -> None:
    """Check the values of all keys.

    Raises:
        ValueError: a value is not accepted.
    """
    values = dict(flatten(cfg))
    for key, accepted, value in wrong_numbers(values):
        _require(False, key, accepted, value)
    for key, choices in _CHOICES.items():
        accepted = ", ".join(repr(choice) for choice in choices)
        _require(values[key] in choices, key, f"one of {accepted}", values[key])
    for key in _POSITIVE:
        _require(values[key] > 0, key, "> 0", values[key])
    for key in _NOT_NEGATIVE:
        _require(values[key] >= 0, key, ">= 0", values[key])
    for key in _RATES:
        _require(0 <= values[key] < 1, key, "in [0, 1)", values[key])
    for key in _SHARES:
        _require(0 <= values[key] <= 1, key, "in [0, 1]", values[key])
    _require(not set(cfg.TASK) & set("/\\"), "TASK", "a name without slashes", cfg.TASK)
    _require(cfg.TASK.isprintable(), "TASK", "printable", cfg.TASK)
    accepted = f"at most {_LONGEST_TASK} bytes, as a part of file names"
    _require(len(os.fsencode(cfg.TASK)) <= _LONGEST_TASK, "TASK", accepted, cfg.TASK)
    _require(not is_address(cfg.OUTPUT_DIR), "OUTPUT_DIR", "a local folder", cfg.OUTPUT_DIR)
    for rate in cfg.PROBE.LEARNING_RATES:
        is_accepted = isinstance(rate, int | float) and 0 < rate <= _LARGEST_RATE
        _require(is_accepted, "PROBE.LEARNING_RATES", f"in (0, {_LARGEST_RATE}]", rate)
    for figure in cfg.TRAIN.MONITOR:
        accepted = f"a list of {', '.join(map(repr, _MONITOR_FIGURES))}, or empty"
        _require(figure in _MONITOR_FIGURES, "TRAIN.MONITOR", accepted, cfg.TRAIN.MONITOR)
    for name in cfg.LOG.TRACKERS:
        accepted = f"a list of {', '.join(map(repr, TRACKERS))}, or empty"
        _require(name in TRACKERS, "LOG.TRACKERS", accepted, cfg.LOG.TRACKERS)
    if cfg.DATA.DECODING_BACKEND == "torchcodec_cuda":
        reason = "with DATA.DECODING_BACKEND 'torchcodec_cuda', which decodes in this process"
        workers = cfg.DATA_LOADER.NUM_WORKERS
        _require(workers == 0, "DATA_LOADER.NUM_WORKERS", f"0 {reason}", workers)
        _require(cfg.AUG.ON_DEVICE, "AUG.ON_DEVICE", f"True {reason}", cfg.AUG.ON_DEVICE)
    last_shard = cfg.NUM_SHARDS - 1
    _require(0 <= cfg.SHARD_ID <= last_shard, "SHARD_ID", f"in [0, {last_shard}]", cfg.SHARD_ID)
    for key, accepted, value in too_large(values):
        _require(False, key, accepted, value)
    loss = cfg.MODEL.LOSS_FUNC
    accepted = ", ".join(f"{name!r} ({task})" for name, task in _LOSSES.items())
    _require(loss in _LOSSES, "MODEL.LOSS_FUNC", f"one of {accepted}", loss)


def _require(condition: bool, key: str, accepted: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{key} must be {accepted}, got {quoted(value)}")
