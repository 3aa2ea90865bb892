"""Features of a frozen network, extracted once and cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.data import build_loader, num_clips_per_video, num_crops
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.datasets import data_set
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.model import build_classifier
from slowfast_maskfeat.builders.precision import (
    autocast_precision,
    precision_name,
    set_precision,
)
from slowfast_maskfeat.builders.weights import load_first_weights
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.config import added_keys, key_value
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.engine.coordination import check_shared, from_main
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.features import Features, FeatureStore
from slowfast_maskfeat.features.extraction import FeatureExtraction, feature_shape
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.frozen import weights_sha256
from slowfast_maskfeat.runs.report import data_facts, file_sha256, print_main, print_notes

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


def build_frozen_model(
    cfg: CfgNode, checkpoint: str, device: torch.device, *, data: DataSource | None = None
) -> FrozenModel:
    """Build the encoder of a pre-training, or a classifier, to extract features with.

    The encoder of a pre-training becomes the classifier that fine-tuning starts from: its last
    layer norm is newly initialized if the pre-training had none, so that features are normalized.
    Its tokens are mean-pooled regardless of MVIT.USE_MEAN_POOLING, since the pre-training loss does
    not reach the class token.

    Args:
        cfg: configuration of the pre-training or the classifier; not changed.
        checkpoint: file of the weights; empty: random initialization (the baseline).
        device: of the model.
        data: data of the run, which keeps what it has read; None reads it again.

    Raises:
        ValueError: the weights do not fit the model, see `load_weights`.
    """
    torch.manual_seed(cfg.RNG_SEED)
    data = data or DataSource(cfg)
    model = build_classifier(cfg, data, mean_pooling=not find_method(cfg).trains_class_token)
    if not checkpoint:
        print_main("no checkpoint: features of random weights")
        source, sha256 = "", f"seed {cfg.RNG_SEED}"
    else:
        print_main(str(load_first_weights(cfg, model, checkpoint, data=data)))
        source, sha256 = checkpoint, file_sha256(checkpoint)
    # All weights but the classifier's, which do not affect features.
    encoder = {name: w for name, w in model.state_dict().items() if not name.startswith("head.")}
    weights = weights_sha256(encoder)
    return FrozenModel(model.to(device).eval(), source, sha256, weights)


def extract_features(
    cfg: CfgNode,
    split: str,
    frozen: FrozenModel,
    *,
    of_tokens: bool,
    device: torch.device,
    data: DataSource | None = None,
) -> Features | None:
    """Extract the features of every clip of a split, or reuse those on disk.

    A sample of "train" and "val" has one center view, a sample of "test" all test views. All
    processes of the run write the features to a folder in OUTPUT_DIR/features as they are computed,
    under a hash of what they depend on. Later probes and resumed runs reuse them; lost videos are
    tried again.

    Args:
        cfg: configuration; not changed.
        split: "train", "val" or "test".
        frozen: the network.
        of_tokens: extract the features of each token, (C, n, D), instead of pooled ones, (C, D).
        device: of the network.
        data: see `build_frozen_model`.

    Returns:
        The features, which stay on disk, in the main process; None in the others.

    Raises:
        ValueError: the annotation file can't be read, no video can be decoded, or the folder can't
            be written, lacks space or is not the same for all processes.
    """
    set_precision(cfg)
    data = data or DataSource(cfg)
    loader = build_loader(cfg, split, for_features=True, data=data)
    videos = loader.dataset.videos
    # From the main process: random weights may differ by rounding among machines.
    expected = from_main(lambda: _facts(cfg, split, frozen, videos, of_tokens))
    name = f"{split}_{'tokens' if of_tokens else 'pooled'}_{expected['key'][:16]}"
    (kind,) = loader.dataset.views.kinds
    shape = feature_shape(frozen.model, kind.clip_shape, of_tokens=of_tokens)
    store = FeatureStore(Path(cfg.OUTPUT_DIR) / "features" / name, shape)
    known = from_main(store.facts)
    if known is not None:
        print_main(f"features of {split}: reusing {store.folder}, {expected['pooling']}")
    is_extracted = known is None or bool(known["lost"])
    if is_extracted:
        _extract(cfg, split, frozen, loader, store, expected, device)
    if not distributed.is_main():
        return None
    stored = store.facts()
    assert stored is not None
    clips, times, features = store.read_all()
    num_views = num_clips_per_video(cfg, split)
    rows = clips // num_views
    return Features(
        features=features,
        rows=rows,
        views=clips % num_views,
        times=times,
        labels=None if videos.labels is None else torch.from_numpy(videos.labels)[rows],
        paths=[videos.path(row) for row in range(len(videos))],
        class_names=list(data.class_names),
        facts={**stored, **expected},  # the same weights may be in another file by now
        written=store.folder if is_extracted else None,
    )


class _Start(NamedTuple):
    """Features that exist before an extraction.

    Attributes:
        done: int64, rows of the videos whose clips are stored.
        num_kept: number of stored clips.
        parts: numbers of their files.
        next_part: number of the first new file.
    """

    done: NDArray[np.int64]
    num_kept: int
    parts: list[int]
    next_part: int


def _extract(
    cfg: CfgNode,
    split: str,
    frozen: FrozenModel,
    loader: ClipLoader,
    store: FeatureStore,
    expected: dict[str, Any],
    device: torch.device,
) -> None:
    """Extract the missing features, one part per process, and then write the facts."""
    print_notes(loader)
    check_shared(store.folder)
    num_views = num_clips_per_video(cfg, split)
    num_clips = len(loader.dataset) * num_views
    start = from_main(lambda: _start(store, expected, num_clips, num_views))
    loader.leave_out(start.done)
    part = start.next_part + distributed.rank()
    with StopSignals() as signals, store.writer(part, num_views) as writer:
        results, _ = evaluate(
            frozen.model,
            FeatureExtraction(
                writer.put,
                of_tokens=expected["of_tokens"],
                num_kept=start.num_kept,
                mean=cfg.DATA.MEAN,
                std=cfg.DATA.STD,
            ),
            loader,
            signals=signals,
            num_views=num_views,
            chunk_size=max(cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // distributed.world_size(), 1),
            device=device,
            precision=autocast_precision(cfg, device),
            description=f"features of {split}",
        )
    new_parts = distributed.gather_objects(part if writer.num_clips else None)
    for lost in results["lost"]:
        print_main(f"lost: {lost['path']}: {lost['reason']}")
    facts = {
        **data_facts(cfg, loader),
        **results,
        **expected,
        "num_views": num_views,
        "num_crops": num_crops(cfg, split),
        "extracted_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
    if distributed.is_main():
        new = [number for number in new_parts if number is not None]
        store.finish(facts, [*start.parts, *new])


def _start(store: FeatureStore, expected: dict[str, Any], num_clips: int, num_views: int) -> _Start:
    """Find the stored features and print how much space all take.

    Raises:
        ValueError: there is too little free space for the rest.
    """
    split, pooling = expected["split"], expected["pooling"]
    store.clean()
    parts = store.parts()
    clips = store.read(parts).clips
    needed = (num_clips - len(clips)) * store.clip_bytes
    free = shutil.disk_usage(store.folder).free
    shape = " x ".join(map(str, (num_clips, *store.shape)))
    reused = f"; reusing {len(clips):,} of {num_clips:,} clips" if len(clips) else ""
    print_main(
        f"features of {split}: {shape} of {store.dtype.name} take {num_clips * store.clip_bytes:,} "
        f"bytes in {store.folder} ({free:,} free){reused}; {pooling}"
    )
    if needed > free:
        raise ValueError(
            f"OUTPUT_DIR must have {needed:,} bytes free for the features of {split}, got "
            f"{free:,} in {store.folder}; use fewer test views (TEST.NUM_ENSEMBLE_VIEWS, "
            "TEST.NUM_SPATIAL_CROPS) or pooled features (PROBE.KIND linear or knn instead of "
            "attentive; no --tokens)"
        )
    return _Start((clips // num_views).unique().numpy(), len(clips), parts, store.next_part())


def _facts(
    cfg: CfgNode, split: str, frozen: FrozenModel, videos: VideoList, of_tokens: bool
) -> dict[str, Any]:
    """Return the facts that features depend on, with a hash of all of them."""
    facts = {
        "split": split,
        "of_tokens": of_tokens,
        "pooling": "every token but the class token" if of_tokens else frozen.model.pooling,
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
        "data_set": data_set(cfg, split),
        "views": (num_clips_per_video(cfg, split), num_crops(cfg, split)),
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
