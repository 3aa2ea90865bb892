"""Features of a frozen network, extracted once and cached on disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.data import (
    build_feature_loader,
    clips_at_once,
    num_clips_per_video,
    num_crops,
)
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import build_feature_model
from slowfast_maskfeat.builders.precision import autocast_precision, set_precision
from slowfast_maskfeat.builders.weights import load_first_weights
from slowfast_maskfeat.checkpoints import load_weights
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.datasets.excerpt_list import ExcerptList
from slowfast_maskfeat.engine.coordination import check_shared, from_main
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.features import Features, FeatureStore
from slowfast_maskfeat.features.extraction import FeatureExtraction, FeatureKind
from slowfast_maskfeat.frozen import weights_sha256
from slowfast_maskfeat.runs.feature_facts import FrozenModel, feature_facts
from slowfast_maskfeat.runs.report import data_facts, file_sha256, print_main, print_notes

_POOLED = FeatureKind()
# Below the usual share: a pre-training without a last norm leaves that of a network of a few blocks
# unfilled.
_MIN_COVERAGE = 0.5


class Excerpts(NamedTuple):
    """Videos or parts of them whose features are extracted, instead of those of a split.

    Attributes:
        videos: the samples.
        split: whose views are taken: "test", all views of the test, or "val", the center view.
        reasons: of samples that are known to be lost, by row.
    """

    videos: ExcerptList
    split: str
    reasons: Mapping[int, str]


def build_frozen_model(
    cfg: CfgNode,
    checkpoint: str,
    device: torch.device,
    *,
    data: DataSource | None = None,
    content: Mapping[str, Any] | None = None,
) -> FrozenModel:
    """Build the encoder of a pre-training, or a classifier, to extract features with.

    The encoder of a pre-training becomes the classifier that fine-tuning starts from, see
    `build_feature_model`: its last layer norm is newly initialized if the pre-training had none, so
    that features are normalized.

    Args:
        cfg: configuration of the pre-training or the classifier; not changed.
        checkpoint: file of the weights; empty: random initialization (the baseline).
        device: of the model.
        data: data of the run, which keeps what it has read; None reads it again.
        content: of the checkpoint; None reads it.

    Raises:
        ValueError: the weights do not fit the model, see `load_weights`.
    """
    torch.manual_seed(cfg.RNG_SEED)
    data = data or DataSource(cfg)
    model = build_feature_model(cfg, data=data)
    if not checkpoint:
        print_main("no checkpoint: features of random weights")
        source, sha256 = "", f"seed {cfg.RNG_SEED}"
    else:
        report = load_first_weights(
            cfg, model, checkpoint, average=True, data=data, content=content
        )
        print_main(str(report))
        source, sha256 = checkpoint, file_sha256(checkpoint)
    # All weights but the classifier's, which do not affect features.
    encoder = {name: w for name, w in model.state_dict().items() if not name.startswith("head.")}
    weights = weights_sha256(encoder)
    return FrozenModel(model.to(device).eval(), source, sha256, weights)


def feature_network_of(
    cfg: CfgNode, content: Mapping[str, Any], name: str, *, data: DataSource | None = None
) -> FeatureModel:
    """Build the network that a probe of weights in memory would use.

    Args:
        cfg: configuration of the weights; not changed.
        content: the weights, as in a checkpoint of this package; their average, if they have one.
        name: of the weights, for messages.
        data: see `build_frozen_model`.

    Raises:
        ValueError: the weights do not fit the model, see `load_weights`.
    """
    with torch.random.fork_rng(devices=[]):  # its first weights draw from torch's generator
        network = build_feature_model(cfg, data=data)
    load_weights(
        network,
        name,
        min_coverage=_MIN_COVERAGE,
        average=True,
        teacher=cfg.TRAIN.CHECKPOINT_WEIGHTS == "teacher",
        content=content,
    )
    return network.eval()


def extract_features(
    cfg: CfgNode,
    split: str,
    frozen: FrozenModel,
    *,
    device: torch.device,
    kind: FeatureKind = _POOLED,
    data: DataSource | None = None,
    excerpts: Excerpts | None = None,
) -> Features | None:
    """Extract the features of every clip of a split, or reuse those on disk.

    A sample of "train" and "val" has one center view, a sample of "test" all test views. All
    processes of the run write the features to a folder in OUTPUT_DIR/features as they are computed,
    under a hash of what they depend on. Later probes and resumed runs reuse them; lost videos are
    tried again.

    Args:
        cfg: configuration; not modified.
        split: "train", "val" or "test"; or a name for the excerpts.
        frozen: the network.
        device: of the network.
        kind: which features: (C, D), or (C, n, D) of each token.
        data: see `build_frozen_model`.
        excerpts: samples to take instead of a split's.

    Returns:
        The features, which stay on disk, in the main process; None in the others.

    Raises:
        ValueError: the annotation file can't be read, no video can be decoded, the network has no
            such features, or the folder can't be written, lacks space or is not the same for all
            processes.
    """
    set_precision(cfg)
    data = data or DataSource(cfg)
    views_of = split if excerpts is None else excerpts.split
    listed = None if excerpts is None else excerpts.videos
    loader = build_feature_loader(cfg, views_of, data=data, videos=listed)
    loader.dataset.given_up.update({} if excerpts is None else excerpts.reasons)
    videos = loader.dataset.videos
    (view,) = loader.dataset.views.kinds
    kind.check(frozen.model, view.clip_shape)
    pooling = kind.describe(frozen.model, view.clip_shape)
    # From the main process: random weights may differ by rounding among machines.
    expected = from_main(lambda: feature_facts(cfg, split, views_of, frozen, videos, kind, pooling))
    name = f"{split}_{'tokens' if kind.of_tokens else 'pooled'}_{expected['key'][:16]}"
    shape = kind.shape(frozen.model, view.clip_shape)
    store = FeatureStore(Path(cfg.OUTPUT_DIR) / "features" / name, shape)
    known = from_main(store.facts)
    if known is not None:
        print_main(f"features of {split}: reusing {store.folder}, {expected['pooling']}")
    is_extracted = known is None or bool(known["lost"])
    if is_extracted:
        _extract(cfg, views_of, frozen, loader, store, expected, device, kind)
    if not distributed.is_main():
        return None
    stored = store.facts()
    assert stored is not None
    clips, times, features = store.read_all()
    num_views = num_clips_per_video(cfg, views_of)
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
    views_of: str,
    frozen: FrozenModel,
    loader: ClipLoader,
    store: FeatureStore,
    expected: dict[str, Any],
    device: torch.device,
    kind: FeatureKind,
) -> None:
    """Extract the missing features, one part per process, and then write the facts."""
    print_notes(loader)
    check_shared(store.folder)
    num_views = num_clips_per_video(cfg, views_of)
    num_clips = len(loader.dataset) * num_views
    start = from_main(lambda: _start(store, expected, num_clips, num_views))
    loader.leave_out(start.done)
    part = start.next_part + distributed.rank()
    with StopSignals() as signals, store.writer(part, num_views) as writer:
        results, _ = evaluate(
            frozen.model,
            FeatureExtraction(
                writer.put,
                kind=kind,
                num_kept=start.num_kept,
                mean=cfg.DATA.MEAN,
                std=cfg.DATA.STD,
            ),
            loader,
            signals=signals,
            num_views=num_views,
            chunk_size=clips_at_once(cfg),
            device=device,
            precision=autocast_precision(cfg, device),
            description=f"features of {expected['split']}",
        )
    new_parts = distributed.gather_objects(part if writer.num_clips else None)
    for lost in results["lost"]:
        print_main(f"lost: {lost['path']}: {lost['reason']}")
    facts = {
        **data_facts(cfg, loader),
        **results,
        **expected,
        "num_views": num_views,
        "num_crops": num_crops(cfg, views_of),
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
