"""Facts that the features of a frozen network depend on, and their hash."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, NamedTuple

from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.data import num_clips_per_video, num_crops
from slowfast_maskfeat.builders.datasets import data_set
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.precision import precision_name
from slowfast_maskfeat.config import added_keys, key_value
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.files import is_address

# Features depend on these sections of the configuration, except for keys that locate data, change
# only the speed of reading, or apply to training only; and on what `_facts` adds, such as the
# weights themselves and the path of each video.
_SECTIONS = ("DATA", "MVIT")
# As files of features have it: the dtype of autocast, and tf32, which has none.
_FACTS_OF_PRECISION = {
    "float32": "None",
    "tf32": "tf32",
    "bf16": "torch.bfloat16",
    "fp16": "torch.float16",
}
_WITHOUT_EFFECT = {
    "PATH_TO_DATA_DIR",
    "PATH_PREFIX",
    "DECODE_TIMEOUT",
    "DECODING_THREADS",
    "SHARD_CACHE",
    "SHUFFLE_BUFFER",
    "MAX_IMAGE_PIXELS",
    "MAX_BAD_FRACTION",
    "TRAIN_JITTER_FPS",
    "TRAIN_JITTER_SCALES_RELATIVE",
    "TRAIN_JITTER_ASPECT_RELATIVE",
    "TRAIN_CROP_NUM_TEMPORAL",
    "TRAIN_CROP_NUM_SPATIAL",
    "INV_UNIFORM_SAMPLE",
    "RANDOM_FLIP",
    "TIME_DIFF_PROB",
    "COLOR_RND_GRAYSCALE",
    "SSL_COLOR_JITTER",
    "SSL_COLOR_BRI_CON_SAT",
    "SSL_COLOR_HUE",
    "SSL_COLOR_FORM",
    "SSL_MOCOV2_AUG",
    "SSL_BLUR_SIGMA_MIN",
    "SSL_BLUR_SIGMA_MAX",
    "SSL_BLUR_PROB",
    "SSL_SOLARIZE_PROB",
    "SSL_GLOBAL_SPAN",
    "SSL_LOCAL_VIEWS",
    "SSL_LOCAL_CROP_SIZE",
    "SSL_LOCAL_SCALES_RELATIVE",
    "SSL_LOCAL_SPAN",
    "ENSEMBLE_METHOD",
    "USE_MEAN_POOLING",
    "DROPPATH_RATE",
    "DROPOUT_RATE",
    "ZERO_DECAY_POS_CLS",
    "HEAD_INIT_SCALE",
}


class FrozenModel(NamedTuple):
    """A network to extract features with.

    Attributes:
        model: in evaluation mode, on its device.
        source: file of its weights; empty for random initialization.
        sha256: of that file; "seed N" for random initialization.
        weights_sha256: of the weights of the network without its classifier.
    """

    model: FeatureModel
    source: str
    sha256: str
    weights_sha256: str


def feature_facts(
    cfg: CfgNode,
    split: str,
    views_of: str,
    frozen: FrozenModel,
    videos: VideoList,
    kind: FeatureKind,
    pooling: str,
) -> dict[str, Any]:
    """Return the facts that features depend on, with a hash of all of them, `key`.

    Args:
        cfg: configuration; not modified.
        split: name of the samples: "train", "val", "test", or that of excerpts.
        views_of: split whose views are taken.
        frozen: the network.
        videos: the samples.
        kind: which features.
        pooling: the same in words.
    """
    facts = {
        "split": split,
        "of_tokens": kind.of_tokens,
        "pooling": pooling,
        "model": cfg.MODEL.MODEL_NAME,
        "checkpoint": frozen.source,
        "checkpoint_sha256": frozen.sha256,
        "weights_sha256": frozen.weights_sha256,
    }
    sections = {
        name: {key: value for key, value in cfg[name].items() if key not in _WITHOUT_EFFECT}
        for name in _SECTIONS
    }
    depends = {
        **{name: facts[name] for name in ("split", "of_tokens", "pooling", "weights_sha256")},
        "list_sha256": videos.fingerprint,
        "paths_sha256": _paths_sha256(videos),
        "data_set": data_set(cfg, views_of),
        "views": (num_clips_per_video(cfg, views_of), num_crops(cfg, views_of)),
        "interpolation": clip_recipe(cfg).interpolation,
        "precision": _FACTS_OF_PRECISION[precision_name(cfg)],
        "arch": cfg.MODEL.ARCH,
        "sections": sections,
        "extensions": {name: key_value(cfg, name) for name in added_keys()},
    }
    text = json.dumps(depends, sort_keys=True, default=str)
    return {**facts, "key": hashlib.sha256(text.encode()).hexdigest()}


def _paths_sha256(videos: VideoList) -> str:
    """Hash the path of every video: a copy in another folder may have other pixels."""
    digest = hashlib.sha256()
    for row in range(len(videos)):
        path = videos.path(row)
        place = path if is_address(path) else os.path.abspath(path)
        digest.update(place.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
