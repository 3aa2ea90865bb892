"""The published keys that are accepted and do nothing, each with the reason that a warning gives.

One list, so that nobody has to search. A key here never stands in `defaults.py`. The warning
appears when a file or a pair sets the key to something other than the value that asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

# Sections of which nothing applies here: the key that switches the section on, where it has one,
# and the reason. A section without a switch warns at any of its keys.
INERT_SECTIONS: dict[str, tuple[str | None, str]] = {
    "BENCHMARK": (None, "tools/benchmark.py has arguments of its own"),
    "BN": ("USE_PRECISE_STATS", "there is no batch normalization in these models"),
    "CONTRASTIVE": (None, "contrastive learning is not part of this package"),
    "DEMO": ("ENABLE", "tools/predict.py has arguments of its own"),
    "MULTIGRID": (None, "multigrid training is not part of this package"),
    "MVIT.REV": ("ENABLE", "reversible models are not part of this package"),
    "NONLOCAL": (None, "non-local networks are not part of this package"),
    "PREFETCH": (None, "DATA_LOADER.PREFETCH_FACTOR says how much is loaded ahead"),
    "RESNET": (None, "convolutional networks are not part of this package"),
    "SLOWFAST": (None, "convolutional networks are not part of this package"),
    "TENSORBOARD.CONFUSION_MATRIX": ("ENABLE", "there is no such view"),
    "TENSORBOARD.HISTOGRAM": ("ENABLE", "there is no such view"),
    "TENSORBOARD.MODEL_VIS": ("ENABLE", "there is no such view"),
    "TENSORBOARD.WRONG_PRED_VIS": ("ENABLE", "there is no such view"),
    "VIS_MASK": ("ENABLE", "the pictures of a pre-training are always drawn"),
    "X3D": (None, "convolutional networks are not part of this package"),
}

# Single keys: the values that ask for nothing, and the reason. Any other value warns.
INERT_KEYS: dict[str, tuple[tuple[object, ...], str]] = {
    "AUG.GEN_MASK_LOADER": ((False, True), "masks are always made by the loader"),
    "AUG.RE_SPLIT": ((False,), "it has no effect in the published code either"),
    "AVA.IMG_PROC_BACKEND": (("cv2", "pytorch"), "frames are resized as everywhere else"),
    "AVA.TRAIN_PCA_JITTER_ONLY": ((True, False), "PCA jitter is not in this version"),
    "AVA.TRAIN_USE_COLOR_AUGMENTATION": ((False,), "AUG.VIDEO_COLOR_JITTER jitters colors"),
    "DATA.COLOR_RND_GRAYSCALE": ((0.0,), "contrastive learning is not part of this package"),
    "DATA.DECODING_SHORT_SIZE": (
        (256,),
        "frames stay at the size of the file until the one resize",
    ),
    "DATA.DUMMY_LOAD": ((False,), "tools/benchmark.py measures without data"),
    "DATA.IN22K_TRAINVAL": ((False,), "ImageNet-22k is not in this version"),
    "DATA.IN22k_VAL_IN1K": (("",), "ImageNet-22k is not in this version"),
    "DATA.LOADER_CHUNK_SIZE": ((0,), "lists are kept in arrays, whatever their length"),
    "DATA.LOADER_CHUNK_OVERALL_SIZE": ((0,), "lists are kept in arrays, whatever their length"),
    "DATA.MULTI_LABEL": ((False,), "several labels for a video are not in this version"),
    "DATA.PATH_TO_PRELOAD_IMDB": (("",), "lists are read as they are"),
    "DATA.SKIP_ROWS": ((0,), "a header row is recognized"),
    "DATA.SSL_COLOR_JITTER": ((False,), "contrastive learning is not part of this package"),
    "DATA.SSL_COLOR_BRI_CON_SAT": (
        ([0.4, 0.4, 0.4],),
        "contrastive learning is not part of this package",
    ),
    "DATA.SSL_COLOR_HUE": ((0.1,), "contrastive learning is not part of this package"),
    "DATA.SSL_MOCOV2_AUG": ((False,), "contrastive learning is not part of this package"),
    "DATA.SSL_BLUR_SIGMA_MIN": (([0.0, 0.1],), "contrastive learning is not part of this package"),
    "DATA.SSL_BLUR_SIGMA_MAX": (([0.0, 2.0],), "contrastive learning is not part of this package"),
    "DATA.TIME_DIFF_PROB": ((0.0,), "contrastive learning is not part of this package"),
    "DATA.TRAIN_JITTER_MOTION_SHIFT": ((False,), "a moving crop is not in this version"),
    "DATA.TRAIN_PCA_EIGVAL": (([0.225, 0.224, 0.229],), "PCA jitter is not in this version"),
    "DATA.TRAIN_PCA_EIGVEC": (
        ([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.814], [-0.5836, -0.6948, 0.4203]],),
        "PCA jitter is not in this version",
    ),
    "DATA_LOADER.ENABLE_MULTI_THREAD_DECODE": ((False,), "DATA.DECODING_THREADS says it"),
    "MASK.SCALE_INIT_BY_DEPTH": ((False,), "no published file sets it"),
    "MODEL.DETACH_FINAL_FC": ((False,), "PROBE-like training is not in this version"),
    "MODEL.DROPCONNECT_RATE": ((0.0,), "convolutional networks are not part of this package"),
    "MODEL.FC_INIT_STD": ((0.01,), "transformers start from MVIT.HEAD_INIT_SCALE"),
    "MODEL.FP16_ALLREDUCE": ((False,), "gradients are summed as they are"),
    "MODEL.FROZEN_BN": ((False,), "there is no batch normalization in these models"),
    "MODEL.MULTI_PATHWAY_ARCH": ((["slowfast"],), "every model takes one clip"),
    "MODEL.SINGLE_PATHWAY_ARCH": (
        (["2d", "c2d", "i3d", "slow", "x3d", "mvit", "maskmvit"],),
        "every model takes one clip",
    ),
    "MVIT.LAYER_SCALE_INIT_VALUE": (
        (0.0,),
        "nor has it in the published code; MVIT.LAYER_SCALE is the one that works",
    ),
    "SOLVER.GAMMA": ((0.1,), "no policy here uses it"),
    "SOLVER.LARS_ON": ((False,), "LARS is not in this version"),
    "SOLVER.STEP_SIZE": ((1,), "no policy here uses it"),
    "SOLVER.WARMUP_FACTOR": ((0.1,), "SOLVER.WARMUP_START_LR says it"),
    "TENSORBOARD.CATEGORIES_PATH": (("",), "there is no such view"),
    "TENSORBOARD.CLASS_NAMES_PATH": (("",), "class names come from classes.txt beside the lists"),
    "TENSORBOARD.PREDICTIONS_PATH": (("",), "TEST.SAVE_RESULTS_PATH keeps the scores"),
    "TEST.CHECKPOINT_TYPE": (("pytorch",), "the file says what it is"),
    "TRAIN.CHECKPOINT_TYPE": (("pytorch",), "the file says what it is"),
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR": ((0.0,), "TRAIN.MAX_NONFINITE stops a broken run"),
}


class Overruled(NamedTuple):
    """A published key that works, but not beside every other.

    Attributes:
        key: The key.
        neutral: Its values that ask for nothing.
        is_inert: (configuration) -> whether it has no effect.
        reason: Why.
    """

    key: str
    neutral: tuple[object, ...]
    is_inert: Callable[[CfgNode], bool]
    reason: str


def _of_images(cfg: CfgNode) -> bool:
    return bool(cfg.DATA.NUM_FRAMES == 1)


# Keys of ours that contradict others are errors where the thing is built, and so are published ones
# that ask for two kinds of one thing.
INERT_TOGETHER = (
    Overruled(
        "AUG.COLOR_JITTER",
        (None, 0.4),
        lambda cfg: cfg.AUG.ENABLE and not _of_images(cfg),
        "on videos, nor has it in the published code; AUG.VIDEO_COLOR_JITTER has",
    ),
    Overruled(
        "AUG.MASK_WINDOW_SIZE",
        ([],),
        lambda cfg: cfg.MASK.ENABLE and _of_images(cfg),
        "on images, whose masks are on the grid of the tokens",
    ),
    Overruled(
        "AUG.MASK_WINDOW_SIZE",
        ([],),
        lambda cfg: cfg.MASK.ENABLE and cfg.MASK.MAE_RND_MASK and not _of_images(cfg),
        "with MASK.MAE_RND_MASK, which hides single tokens or MASK.RANDOM_BLOCK",
    ),
    Overruled(
        "AUG.MAX_MASK_PATCHES_PER_BLOCK",
        (None,),
        lambda cfg: cfg.MASK.ENABLE and (cfg.MASK.MAE_RND_MASK or not _of_images(cfg)),
        "on random masks and on those of videos: it is of blocks on images",
    ),
    Overruled(
        "MASK.DECODER_SEP_POS_EMBED",
        (False,),
        lambda cfg: cfg.MASK.ENABLE and not cfg.MASK.MAE_ON,
        "without MASK.MAE_ON, whose decoder alone has positions",
    ),
    Overruled(
        "TEST.NUM_ENSEMBLE_VIEWS",
        (1, 10),
        lambda cfg: _of_images(cfg) and not cfg.MASK.ENABLE,
        "on images (DATA.NUM_FRAMES 1), of which one view is tested; TEST.NUM_TEMPORAL_CLIPS takes "
        "several single frames of videos",
    ),
)


def overruled(cfg: CfgNode) -> list[str]:
    """A sentence for each key that others leave without effect.

    Args:
        cfg: Configuration, merged; it is only read.
    """
    sentences = []
    for key, neutral, is_inert, reason in INERT_TOGETHER:
        section, _, name = key.partition(".")
        value: Any = cfg[section][name]
        if value not in neutral and is_inert(cfg):
            sentences.append(f"{key}: {value!r} has no effect {reason}")
    return sentences
