"""Configuration -> features of a frozen network, made once."""

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
from slowfast_maskfeat.builders.optimizer import autocast_precision
from slowfast_maskfeat.builders.weights import load_first_weights
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.engine.coordination import check_shared, from_main
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.features import Features, FeatureStore
from slowfast_maskfeat.features.extraction import FeatureExtraction, feature_shape
from slowfast_maskfeat.files import is_address
from slowfast_maskfeat.frozen import weights_sha256
from slowfast_maskfeat.runs.report import data_facts, say, tell_notes

# What features depend on: these sections of the configuration but for keys that say where data lies
# or how fast it is read, or that a training alone asks; what `_facts` adds, among it the weights
# themselves, whatever chose them, and where each video lies.
_SECTIONS = ("DATA", "MVIT")
_WITHOUT_EFFECT = {
    "PATH_TO_DATA_DIR",
    "PATH_PREFIX",
    "DECODE_TIMEOUT",
    "DECODING_THREADS",
    "SHARD_CACHE",
    "SHUFFLE_BUFFER",
    "MAX_BAD_FRACTION",
    "TRAIN_JITTER_FPS",
    "TRAIN_JITTER_SCALES_RELATIVE",
    "TRAIN_JITTER_ASPECT_RELATIVE",
    "TRAIN_CROP_NUM_TEMPORAL",
    "TRAIN_CROP_NUM_SPATIAL",
    "INV_UNIFORM_SAMPLE",
    "RANDOM_FLIP",
    "ENSEMBLE_METHOD",
    "USE_MEAN_POOLING",
    "DROPPATH_RATE",
    "DROPOUT_RATE",
    "ZERO_DECAY_POS_CLS",
    "HEAD_INIT_SCALE",
}


class FrozenModel(NamedTuple):
    """A network whose features are taken.

    Attributes:
        model: in evaluation mode, on its device.
        source: file of its weights; empty for those it was initialized with.
        sha256: of that file; of the seed where there is none.
        weights_sha256: of the weights that the network has, but for its classifier.
    """

    model: FeatureModel
    source: str
    sha256: str
    weights_sha256: str


def build_frozen_model(
    cfg: CfgNode, checkpoint: str, device: torch.device, *, data: DataSource | None = None
) -> FrozenModel:
    """The encoder of a pre-training, or the network of a classifier, to take features of.

    A pre-training's encoder is completed to the classifier that fine-tuning would start from: its
    last layer norm is new where the pre-training had none, which leaves features normalized. Its
    tokens are pooled to their mean, whatever MVIT.USE_MEAN_POOLING says: no loss reaches a class
    token there.

    Args:
        cfg: configuration, of the pre-training or the classifier; it is only read.
        checkpoint: file of the weights; empty for random ones, the line below every method.
        device: of the model.
        data: the data of the run, with what was read of it before; None reads it afresh.

    Raises:
        ValueError: the weights are of another network, see `load_weights`.
    """
    torch.manual_seed(cfg.RNG_SEED)
    data = data or DataSource(cfg)
    model = build_classifier(cfg, data, mean_pooling=find_method(cfg).masks is not None)
    if not checkpoint:
        say("without a checkpoint: these are features of random weights")
        source, sha256 = "", f"seed {cfg.RNG_SEED}"
    else:
        say(str(load_first_weights(cfg, model, checkpoint, data=data)))
        source, sha256 = checkpoint, _file_sha256(checkpoint)
    # All that the network has learned or drawn but the classifier, which no feature meets.
    encoder = {name: w for name, w in model.state_dict().items() if not name.startswith("head.")}
    weights = weights_sha256(encoder)
    return FrozenModel(model.to(device).eval(), source, sha256, weights)


def kept_features(
    cfg: CfgNode,
    split: str,
    frozen: FrozenModel,
    *,
    of_tokens: bool,
    device: torch.device,
    data: DataSource | None = None,
) -> Features | None:
    """Features of every clip of a list: one center view of each row of "train" and "val", all views
    of the test of each row of "test".

    They go to a folder in OUTPUT_DIR/features as they are made, by all processes of the run, under
    a key of what they depend on. Those that are there are not made again, neither by further probes
    nor by a run that goes on after an interruption; videos that were lost are tried again.

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" or "test".
        frozen: the network.
        of_tokens: keep each token's features, (C, n, D), not the pooled ones, (C, D).
        device: of the network.
        data: see `build_frozen_model`.

    Returns:
        The features, which stay on the disk, to the main process; None to the others.

    Raises:
        ValueError: the list can't be read, or none of its videos be decoded; the folder can't be
            written, is too small or not the same for all processes.
    """
    data = data or DataSource(cfg)
    loader = build_loader(cfg, split, for_features=True, data=data)
    videos = loader.dataset.videos
    # Of the main process: random weights may differ by a rounding among machines.
    wanted = from_main(lambda: _facts(cfg, split, frozen, videos, of_tokens))
    name = f"{split}_{'tokens' if of_tokens else 'pooled'}_{wanted['key'][:16]}"
    (kind,) = loader.dataset.views.kinds
    shape = feature_shape(frozen.model, kind.clip_shape, of_tokens=of_tokens)
    store = FeatureStore(Path(cfg.OUTPUT_DIR) / "features" / name, shape)
    known = from_main(store.facts)
    if known is not None:
        say(f"features of {split}: those in {store.folder}, {wanted['pooling']}")
    if known is None or known["lost"]:
        _extract(cfg, split, frozen, loader, store, wanted, device)
    if not distributed.is_main():
        return None
    made = store.facts()
    assert made is not None
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
        facts={**made, **wanted},  # the same weights may be in another file now
    )


class _Start(NamedTuple):
    """Where an extraction begins.

    Attributes:
        done: int64, rows of the list whose clips are there.
        num_kept: clips that are there.
        parts: that they are in.
        next_part: number of the first new one.
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
    wanted: dict[str, Any],
    device: torch.device,
) -> None:
    """Make what is missing, each process a part; the main one says when all is there."""
    tell_notes(loader)
    check_shared(store.folder)
    num_views = num_clips_per_video(cfg, split)
    num_clips = len(loader.dataset) * num_views
    start = from_main(lambda: _start(store, wanted, num_clips, num_views))
    loader.leave_out(start.done)
    part = start.next_part + distributed.rank()
    with store.writer(part, num_views) as writer:
        results, _ = evaluate(
            frozen.model,
            FeatureExtraction(
                writer.put,
                of_tokens=wanted["of_tokens"],
                num_kept=start.num_kept,
                mean=cfg.DATA.MEAN,
                std=cfg.DATA.STD,
            ),
            loader,
            num_views=num_views,
            chunk_size=max(cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // distributed.world_size(), 1),
            device=device,
            precision=autocast_precision(cfg),
            description=f"features of {split}",
        )
    made = distributed.gather_objects(part if writer.num_clips else None)
    for lost in results["lost"]:
        say(f"lost: {lost['path']}: {lost['reason']}")
    facts = {
        **data_facts(cfg, loader),
        **results,
        **wanted,
        "num_views": num_views,
        "num_crops": num_crops(cfg, split),
        "extracted_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
    if distributed.is_main():
        store.finish(facts, [*start.parts, *(number for number in made if number is not None)])


def _start(store: FeatureStore, wanted: dict[str, Any], num_clips: int, num_views: int) -> _Start:
    """What is there already; says how much room the rest takes.

    Raises:
        ValueError: there is not enough.
    """
    split, pooling = wanted["split"], wanted["pooling"]
    store.clean()
    parts = store.parts()
    clips = store.read(parts).clips
    needed = (num_clips - len(clips)) * store.clip_bytes
    free = shutil.disk_usage(store.folder).free
    shape = " x ".join(map(str, (num_clips, *store.shape)))
    there = f"; {len(clips):,} of {num_clips:,} clips are there already" if len(clips) else ""
    say(
        f"features of {split}: {shape} of {store.dtype.name} take {num_clips * store.clip_bytes:,} "
        f"bytes in {store.folder}, where {free:,} are free{there}; {pooling}"
    )
    if needed > free:
        raise ValueError(
            f"{store.folder}: the features of {split} need {needed:,} bytes more, and {free:,} are "
            "free there (OUTPUT_DIR); fewer views (TEST.NUM_ENSEMBLE_VIEWS, "
            "TEST.NUM_SPATIAL_CROPS, of the test list) and pooled features (PROBE.KIND linear or "
            "knn, not attentive; no --tokens) take less"
        )
    return _Start((clips // num_views).unique().numpy(), len(clips), parts, store.next_part())


def _facts(
    cfg: CfgNode, split: str, frozen: FrozenModel, videos: VideoList, of_tokens: bool
) -> dict[str, Any]:
    """What features depend on, with a hash of all of it."""
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
        "precision": str(autocast_precision(cfg)),
        "sections": sections,
    }
    text = json.dumps(depends, sort_keys=True, default=str)
    return {**facts, "key": hashlib.sha256(text.encode()).hexdigest()}


def _paths_sha256(videos: VideoList) -> str:
    """Of the place of every video: a copy in another folder may have other pixels."""
    digest = hashlib.sha256()
    for row in range(len(videos)):
        path = videos.path(row)
        place = path if is_address(path) else os.path.abspath(path)
        digest.update(place.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
