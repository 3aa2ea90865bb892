"""Probe of frozen features: linear, attentive or k nearest neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders.backbones import backbone_width
from slowfast_maskfeat.builders.data import read_videos
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.kernels import switch_on_kernels
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.preflight import check_files
from slowfast_maskfeat.builders.weights import finished_checkpoint
from slowfast_maskfeat.checkpoints import checkpoint_folder
from slowfast_maskfeat.datasets import MissingListError, VideoList
from slowfast_maskfeat.features import FeatureRows, Features
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.log import EventLog
from slowfast_maskfeat.metrics.accuracy import VideoScores
from slowfast_maskfeat.probes import (
    AttentiveHead,
    FitSettings,
    LinearHead,
    fit_heads,
    head_scores,
    neighbor_scores,
    num_attention_heads,
)
from slowfast_maskfeat.runs.features import build_frozen_model, extract_features
from slowfast_maskfeat.runs.report import print_main

# Defaults of each kind of head: learning rates for a batch of 256, optimizer, epochs.
_DEFAULTS = {
    "linear": ((0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "sgd", 100),
    "attentive": ((0.0001, 0.0003, 0.001, 0.003), "adamw", 20),
}
# Without a validation split every tenth training sample is held out to select the learning rate.
_HELD_OUT = 10
_HELD_OUT_ROWS = "every tenth training row"


class _Rows(NamedTuple):
    """Features and labels of clips."""

    features: Tensor | FeatureRows
    labels: Tensor

    def where(self, chosen: Tensor) -> _Rows:
        """Select the rows where bool (N,) `chosen` is True; features on disk stay there."""
        rows = chosen.nonzero()[:, 0]
        if isinstance(self.features, FeatureRows):
            return _Rows(self.features.select(rows), self.labels[rows])
        return _Rows(self.features[rows], self.labels[rows])


def run_probe(cfg: CfgNode, device: torch.device, log: EventLog, *, data: DataSource) -> list[Path]:
    """Evaluate frozen features with a probe.

    The weights are those that a test would load, see `finished_checkpoint`, else random. The probe
    is trained on the training split (kNN: takes its neighbors from it) and evaluated on the test
    split, on the combined scores of all views of a video, as in a test. The learning rate of a head
    is selected on the validation split; if that is absent, empty, unlabeled or equal to the test
    split, on every tenth training sample, which is then held out from training.

    Args:
        cfg: configuration of the pre-training or the classifier; not changed.
        device: of this process.
        log: receives the event `probe`.
        data: data of the run.

    Returns:
        The folders of features that were written, in the main process.

    Raises:
        ValueError: a split has no labels, the training split has a single class or fewer samples
            than PROBE.NUM_NEIGHBORS, or something in the data or weights is wrong.
    """
    if find_method(cfg).has_boxes:
        raise ValueError("PROBE.KIND must be empty with DETECTION.ENABLE: probes classify clips")
    kind = cfg.PROBE.KIND
    if kind == "attentive":  # raise an error before the features are extracted
        num_attention_heads(backbone_width(cfg), cfg.PROBE.NUM_HEADS)
    splits = _probe_splits(cfg, data)  # its errors come before the features are extracted too
    check_files(cfg, [data.videos(split) for split in splits])
    checkpoint = finished_checkpoint(cfg)
    if not checkpoint:
        print_main(
            "TEST.CHECKPOINT_FILE_PATH and TRAIN.CHECKPOINT_FILE_PATH are empty, and "
            f"{checkpoint_folder(cfg.OUTPUT_DIR)} has no checkpoint of TASK {cfg.TASK!r}"
        )
    frozen = build_frozen_model(cfg, checkpoint, device, data=data)
    switch_on_kernels(cfg, device, frozen.model)
    features = {
        split: extract_features(
            cfg,
            split,
            frozen,
            kind=FeatureKind(pooling="none" if kind == "attentive" else ""),
            device=device,
            data=data,
        )
        for split in splits
    }
    train, test = features["train"], features["test"]
    if train is None or test is None:  # not the main process
        return []
    num_classes = _num_classes(train, test)
    train_rows, test_rows = _rows(train), _rows(test)
    if kind == "knn":
        scores, settings = _vote(cfg, train_rows, test_rows, num_classes, device)
    else:
        validation = features.get("val")
        scores, settings = _fit_head(cfg, train_rows, validation, test_rows, num_classes, device)
    results = {**_video_accuracy(test, scores, cfg.DATA.ENSEMBLE_METHOD), **_counts(train, test)}
    log.write(
        "probe",
        kind=kind,
        checkpoint=frozen.source,
        checkpoint_sha256=frozen.sha256,
        list_sha256=test.facts["list_sha256"],
        train_list_sha256=train.facts["list_sha256"],
        **settings,
        **results,
    )
    print_main(f"{kind} probe of {frozen.source or 'random weights'}: {_summary(results)}")
    return [found.written for found in features.values() if found and found.written]


def _probe_splits(cfg: CfgNode, data: DataSource) -> list[str]:
    """Return the splits to extract features of: "val" only if it can select the learning rate.

    Raises:
        ValueError: a probe can't be trained on these splits.
    """
    kind = cfg.PROBE.KIND
    train, test = (read_videos(cfg, split, data, for_features=True) for split in ("train", "test"))
    for videos in (train, test):
        if not len(videos):
            raise ValueError(f"{videos.source} must have samples, got an empty file")
        _check_labels(videos)
    assert train.labels is not None
    if len(np.unique(train.labels)) == 1:
        raise ValueError(
            f"{train.source} must have at least two classes for a probe (PROBE.KIND), got only "
            f"label {train.labels[0]}"
        )
    if kind == "knn":  # there is no learning rate to select
        if len(train) < cfg.PROBE.NUM_NEIGHBORS:
            raise ValueError(
                f"PROBE.NUM_NEIGHBORS must be at most the {len(train)} rows of {train.source}, got "
                f"{cfg.PROBE.NUM_NEIGHBORS}"
            )
        return ["train", "test"]
    reason = _validation_problem(cfg, data, test)
    if not reason:
        print_main("the learning rate is selected on val")
        return ["train", "val", "test"]
    if len(train) < _HELD_OUT:
        raise ValueError(
            f"{train.source} must have at least {_HELD_OUT} rows, got {len(train)}: {reason}, so "
            f"the learning rate is selected on {_HELD_OUT_ROWS}; add a labeled validation split or "
            "more rows"
        )
    print_main(f"the learning rate is selected on {_HELD_OUT_ROWS}: {reason}")
    return ["train", "test"]


def _validation_problem(cfg: CfgNode, data: DataSource, test: VideoList) -> str:
    """Return why the validation split can't select the learning rate; empty if it can."""
    try:
        videos = read_videos(cfg, "val", data, for_features=True)
    except MissingListError:
        return "there is no validation split"
    if not len(videos):
        return f"{videos.source} is empty"
    if videos.labels is None:
        return f"the rows of {videos.source} have no labels"
    if videos.fingerprint == test.fingerprint:
        return f"{videos.source} is also the test split"
    return ""


def _check_labels(videos: VideoList) -> None:
    """Check that a split has labels.

    Raises:
        ValueError: it has none.
    """
    if videos.label_sets is not None:
        raise ValueError(
            f"{videos.source} must have one label in each row for a probe (PROBE.KIND), got several"
        )
    if videos.labels is None:
        raise ValueError(
            f"{videos.source} must have labels for a probe (PROBE.KIND), got rows without; write "
            "rows as `path label`"
        )


def _vote(
    cfg: CfgNode, train_rows: _Rows, test_rows: _Rows, num_classes: int, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    """Return kNN scores (C, K) of the test clips, and the settings of the vote."""
    scores = neighbor_scores(
        train_rows.features,
        train_rows.labels,
        test_rows.features,
        num_classes=num_classes,
        device=device,
        k=cfg.PROBE.NUM_NEIGHBORS,
        temperature=cfg.PROBE.TEMPERATURE,
    )
    return scores, {
        "num_neighbors": cfg.PROBE.NUM_NEIGHBORS,
        "temperature": cfg.PROBE.TEMPERATURE,
    }


def _fit_head(
    cfg: CfgNode,
    train_rows: _Rows,
    validation: Features | None,
    test_rows: _Rows,
    num_classes: int,
    device: torch.device,
) -> tuple[Tensor, dict[str, Any]]:
    """Train a head; return its scores (C, K) of the test clips, and its training settings."""
    kind = cfg.PROBE.KIND
    rates, optimizer, epochs = _DEFAULTS[kind]
    if validation is None:
        held_out = torch.arange(len(train_rows.labels)) % _HELD_OUT == _HELD_OUT - 1
        selection, train_rows = train_rows.where(held_out), train_rows.where(~held_out)
    else:
        selection = _rows(validation)
    settings = FitSettings(
        learning_rates=cfg.PROBE.LEARNING_RATES or rates,
        optimizer=optimizer,
        epochs=cfg.PROBE.EPOCHS or epochs,
        batch_size=cfg.PROBE.BATCH_SIZE,
        weight_decay=cfg.PROBE.WEIGHT_DECAY,
        seed=cfg.RNG_SEED,
    )
    width = train_rows.features.shape[-1]

    def make_head() -> nn.Module:
        if kind == "attentive":
            return AttentiveHead(width, num_classes, cfg.PROBE.NUM_HEADS)
        std, mean = torch.std_mean(train_rows.features[:], dim=0)
        return LinearHead(mean, std, num_classes)

    fit = fit_heads(make_head, *train_rows, selection, settings, device=device)
    for rate in fit.diverged:
        print_main(
            f"learning rate {rate}: the head diverged (a loss or score is not finite); ignored"
        )
    scores = head_scores(
        fit.head, test_rows.features, batch_size=cfg.PROBE.BATCH_SIZE, device=device
    )
    return scores, {
        "learning_rate": fit.learning_rate,
        "validation_top1": {str(rate): top1 for rate, top1 in fit.validation_top1.items()},
        "diverged": list(fit.diverged),
        "chosen_on": _HELD_OUT_ROWS if validation is None else "val",
        "epochs": settings.epochs,
        "optimizer": optimizer,
    }


def _rows(features: Features) -> _Rows:
    """Return features and labels, whose presence `_probe_splits` has checked."""
    assert features.labels is not None
    return _Rows(features.features, features.labels)


def _num_classes(train: Features, test: Features) -> int:
    """Return K: the number of class names, else the largest label + 1."""
    return len(train.class_names) or 1 + int(
        max(_rows(train).labels.max(), _rows(test).labels.max())
    )


def _video_accuracy(test: Features, scores: Tensor, ensemble: str) -> dict[str, Any]:
    """Compute the accuracy over videos from the combined scores (C, K) of their clips."""
    assert test.labels is not None
    num_views, num_videos = test.facts["num_views"], len(test.paths)
    collected = VideoScores(num_videos, scores.shape[1], num_views, ensemble=ensemble)
    collected.add(test.rows * num_views + test.views, scores)
    labels = torch.full((num_videos,), -1)
    labels[test.rows] = test.labels
    return collected.finalize(labels).as_dict()


def _summary(results: Mapping[str, Any]) -> str:
    """Describe the accuracy of a probe in one line."""
    return (
        f"top-1 {results['top1']:.2f}, top-5 {results['top5']:.2f}; "
        f"{results['num_videos_scored']} of {results['num_videos']} videos decoded"
    )


def _counts(train: Features, test: Features) -> dict[str, Any]:
    """Return how many videos each split lists and how many were decoded, and those lost."""
    counts = {name: test.facts[name] for name in ("num_expected", "num_found", "num_decoded")}
    of_train = {f"num_train_{name}": train.facts[f"num_{name}"] for name in ("expected", "decoded")}
    return {**counts, **of_train, "lost": test.facts["lost"], "lost_train": train.facts["lost"]}
