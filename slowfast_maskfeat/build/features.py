"""Configuration -> features of a frozen network, made once."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fvcore.common.config import CfgNode

from slowfast_maskfeat.backbones import MViT
from slowfast_maskfeat.build.classes import class_names
from slowfast_maskfeat.build.data import build_loader, num_clips_per_video, num_crops, read_videos
from slowfast_maskfeat.build.model import build_classifier
from slowfast_maskfeat.build.optimizer import autocast_precision
from slowfast_maskfeat.build.report import data_facts, say, tell_notes
from slowfast_maskfeat.build.weights import load_first_weights
from slowfast_maskfeat.engine import distributed
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.probes import Features, load_features, save_features
from slowfast_maskfeat.tasks.extract import FeatureEvaluation, FeatureExtraction, feature_shape
from slowfast_maskfeat.videos.index import VideoList

# Sections of the configuration that features depend on, besides weights, list and split.
_SECTIONS = ("DATA", "MVIT", "TEST")
# Keys in them that say where data lies, or how fast it is read.
_PLACES = ("PATH_TO_DATA_DIR", "PATH_PREFIX", "DECODE_TIMEOUT", "DECODING_THREADS", "BATCH_SIZE")


class FrozenModel(NamedTuple):
    """A network whose features are taken.

    Attributes:
        model: in evaluation mode, on its device.
        source: file of its weights; empty for those it was initialised with.
        sha256: of that file; of the seed where there is none.
    """

    model: MViT
    source: str
    sha256: str


def build_frozen_model(cfg: CfgNode, checkpoint: str, device: torch.device) -> FrozenModel:
    """The encoder of a pre-training, or the network of a classifier, to take features of.

    A pre-training's encoder is completed to the classifier that fine-tuning would start from: its
    last layer norm is new where the pre-training had none, which leaves features normalised.

    Args:
        cfg: configuration, of the pre-training or the classifier; it is only read.
        checkpoint: file of the weights; empty for random ones, the line below every method.
        device: of the model.

    Raises:
        ValueError: the weights are of another network, see `load_weights`.
    """
    torch.manual_seed(cfg.RNG_SEED)
    model = build_classifier(cfg)
    if not checkpoint:
        say("no checkpoint is given: these are features of random weights")
        return FrozenModel(model.to(device).eval(), "", f"seed {cfg.RNG_SEED}")
    say(str(load_first_weights(cfg, model, checkpoint)))
    return FrozenModel(model.to(device).eval(), checkpoint, _file_sha256(checkpoint))


def extract_features(
    cfg: CfgNode, split: str, frozen: FrozenModel, *, of_tokens: bool, device: torch.device
) -> Features:
    """Features of every clip of a list: one centre view of each row of "train" and "val", all views
    of the test of each row of "test".

    Args:
        cfg: configuration; it is only read.
        split: "train", "val" or "test".
        frozen: the network.
        of_tokens: keep each token's features, (C, n, D), not the pooled ones, (C, D).
        device: of the network.

    Raises:
        ValueError: the list can't be read, or none of its videos be decoded.
    """
    loader = build_loader(cfg, split, for_features=True)
    tell_notes(loader)
    videos = loader.dataset.videos
    num_views = num_clips_per_video(cfg, split)
    shape = feature_shape(frozen.model, loader.dataset.views.clip_shape, of_tokens=of_tokens)
    results, evaluation = evaluate(
        frozen.model,
        FeatureExtraction(shape, mean=cfg.DATA.MEAN, std=cfg.DATA.STD),
        loader,
        num_views=num_views,
        chunk_size=max(cfg.TEST.BATCH_SIZE * cfg.NUM_SHARDS // distributed.world_size(), 1),
        device=device,
        precision=autocast_precision(cfg),
        description=f"features of {split}",
    )
    assert isinstance(evaluation, FeatureEvaluation)
    for lost in results["lost"]:
        say(f"lost: {lost['path']}: {lost['reason']}")
    place = evaluation.is_there.nonzero()[:, 0]
    rows = place // num_views
    labels = None if videos.labels is None else torch.from_numpy(videos.labels)[rows]
    facts = {
        **data_facts(cfg, loader),
        **results,
        **_facts(cfg, split, frozen, videos, of_tokens),
        "num_views": num_views,
        "num_crops": num_crops(cfg, split),
        "extracted_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
    return Features(
        features=evaluation.features[place],
        rows=rows,
        views=place % num_views,
        times=evaluation.times[place],
        labels=labels,
        paths=[videos.path(row) for row in range(len(videos))],
        class_names=list(class_names(cfg)),
        facts=facts,
    )


def kept_features(
    cfg: CfgNode, split: str, frozen: FrozenModel, *, of_tokens: bool, device: torch.device
) -> Features:
    """Those in OUTPUT_DIR/features where they are of the same weights, list and views; else made.

    A run that was interrupted goes on with the next list, and further probes extract nothing.

    Args and errors: as `extract_features`.
    """
    videos = read_videos(cfg, split, for_features=True)
    wanted = _facts(cfg, split, frozen, videos, of_tokens)
    name = f"{split}_{'tokens' if of_tokens else 'pooled'}_{wanted['key'][:12]}.npz"
    path = Path(cfg.OUTPUT_DIR) / "features" / name
    is_kept = distributed.gather_objects(path.is_file())[0]
    if is_kept:
        found = load_features(path)
        if found.facts.get("key") == wanted["key"]:
            say(f"features of {split}: those in {path}")
            return found
    made = extract_features(cfg, split, frozen, of_tokens=of_tokens, device=device)
    if distributed.is_main():
        save_features(path, made)
    return made


def _facts(
    cfg: CfgNode, split: str, frozen: FrozenModel, videos: VideoList, of_tokens: bool
) -> dict[str, Any]:
    """What features depend on, with a hash of all of it."""
    facts = {
        "split": split,
        "of_tokens": of_tokens,
        "model": cfg.MODEL.MODEL_NAME,
        "checkpoint": frozen.source,
        "checkpoint_sha256": frozen.sha256,
    }
    sections = {
        name: {key: value for key, value in cfg[name].items() if key not in _PLACES}
        for name in _SECTIONS
    }
    depends = {
        **{key: value for key, value in facts.items() if key not in ("checkpoint", "model")},
        "list_sha256": videos.fingerprint,
        "precision": str(autocast_precision(cfg)),
        "sections": sections,
    }
    text = json.dumps(depends, sort_keys=True, default=str)
    return {**facts, "key": hashlib.sha256(text.encode()).hexdigest()}


def _file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
