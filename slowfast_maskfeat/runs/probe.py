"""A configuration's probe: what frozen features say of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.builders.backbones import backbone_width
from slowfast_maskfeat.builders.data import read_videos
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.weights import checkpoint_folder, finished_checkpoint
from slowfast_maskfeat.datasets import MissingListError, VideoList
from slowfast_maskfeat.features import FeatureRows, Features
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
from slowfast_maskfeat.runs.features import build_frozen_model, kept_features
from slowfast_maskfeat.runs.report import say

# Learning rates for a batch of 256, optimizer and epochs of each kind of head.
_USUAL = {
    "linear": ((0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "sgd", 100),
    "attentive": ((0.0001, 0.0003, 0.001, 0.003), "adamw", 20),
}
_HELD_OUT = 10  # every so many-th training row chooses the learning rate where no list does
_HELD_OUT_ROWS = "every tenth training row"


class _Rows(NamedTuple):
    """Features and labels of clips."""

    features: Tensor | FeatureRows
    labels: Tensor

    def where(self, chosen: Tensor) -> _Rows:
        """Those where bool (N,) `chosen` is True; features on the disk stay there."""
        rows = chosen.nonzero()[:, 0]
        if isinstance(self.features, FeatureRows):
            return _Rows(self.features.select(rows), self.labels[rows])
        return _Rows(self.features[rows], self.labels[rows])


def run_probe(
    cfg: CfgNode, device: torch.device, log: EventLog, *, data: DataSource
) -> dict[str, Any]:
    """Judge the features of the weights that a test would take, see `finished_checkpoint`; without
    any, of random ones.

    The labeled rows of the training list are learned from or asked, those of the test list are
    judged by the scores of all their views together, as in a test. The learning rate of a head is
    chosen on the validation list; where that is absent or the test list itself, on every tenth
    training row, which is then not trained on.

    Args:
        cfg: configuration, of the pre-training or the classifier; it is only read.
        device: of this process.
        log: takes the event `probe`.
        data: the data of the run.

    Returns:
        The figures.

    Raises:
        ValueError: a list has no labels or a single class, PROBE.NUM_NEIGHBORS is more than there
            are, or something in the data or weights is wrong.
    """
    if find_method(cfg).has_boxes:
        raise ValueError("PROBE.KIND must be empty with DETECTION.ENABLE: probes classify clips")
    kind = cfg.PROBE.KIND
    if kind == "attentive":  # told before the features are made, as all of `_lists`
        num_attention_heads(backbone_width(cfg), cfg.PROBE.NUM_HEADS)
    lists = _lists(cfg, data)  # what cannot be learned is an error before the features are made
    checkpoint = finished_checkpoint(cfg)
    if not checkpoint:
        say(
            "TEST.CHECKPOINT_FILE_PATH and TRAIN.CHECKPOINT_FILE_PATH are empty, and "
            f"{checkpoint_folder(cfg)} has no checkpoint of TASK {cfg.TASK!r}"
        )
    frozen = build_frozen_model(cfg, checkpoint, device, data=data)
    features = {
        split: kept_features(
            cfg, split, frozen, of_tokens=kind == "attentive", device=device, data=data
        )
        for split in lists
    }
    train, test = features["train"], features["test"]
    if train is None or test is None:  # the main process alone goes on
        return {}
    num_classes = _num_classes(train, test)
    learned, asked = _rows(train), _rows(test)
    if kind == "knn":
        scores = neighbor_scores(
            learned.features,
            learned.labels,
            asked.features,
            num_classes=num_classes,
            device=device,
            k=cfg.PROBE.NUM_NEIGHBORS,
            temperature=cfg.PROBE.TEMPERATURE,
        )
        settings: dict[str, Any] = {
            "num_neighbors": cfg.PROBE.NUM_NEIGHBORS,
            "temperature": cfg.PROBE.TEMPERATURE,
        }
    else:
        scores, settings = _learn(cfg, learned, features.get("val"), asked, num_classes, device)
    results = {**_judge(test, scores, cfg.DATA.ENSEMBLE_METHOD), **_counts(train, test)}
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
    say(f"{kind} probe of {frozen.source or 'random weights'}: {_summary(results)}")
    return results


def _lists(cfg: CfgNode, data: DataSource) -> list[str]:
    """The splits whose features are wanted: "val" where it is there, labeled and not the test.

    Raises:
        ValueError: a probe can't learn from these lists.
    """
    kind = cfg.PROBE.KIND
    train, test = (read_videos(cfg, split, data, for_features=True) for split in ("train", "test"))
    for videos in (train, test):
        if not len(videos):
            raise ValueError(f"{videos.source}: the list is empty")
        _check_labels(videos)
    assert train.labels is not None
    if len(np.unique(train.labels)) == 1:
        raise ValueError(
            f"{train.source}: all rows have the label {train.labels[0]}; a probe (PROBE.KIND) "
            "learns to tell at least two classes from each other"
        )
    if kind == "knn":  # it has nothing to choose
        if len(train) < cfg.PROBE.NUM_NEIGHBORS:
            raise ValueError(
                f"PROBE.NUM_NEIGHBORS: {cfg.PROBE.NUM_NEIGHBORS} neighbors are to vote, but "
                f"{train.source} has {len(train)} rows; at most as many are right"
            )
        return ["train", "test"]
    reason = _why_not_chosen_on_validation(cfg, data, test)
    if not reason:
        say("the learning rate is chosen on val")
        return ["train", "val", "test"]
    if len(train) < _HELD_OUT:
        raise ValueError(
            f"{train.source}: {len(train)} rows are too few: {reason}, so one of {_HELD_OUT} is to "
            "choose the learning rate; a validation list with labels is right, or more rows"
        )
    say(f"the learning rate is chosen on {_HELD_OUT_ROWS}: {reason}")
    return ["train", "test"]


def _why_not_chosen_on_validation(cfg: CfgNode, data: DataSource, test: VideoList) -> str:
    """Why the validation list can't choose; empty where it can."""
    try:
        videos = read_videos(cfg, "val", data, for_features=True)
    except MissingListError:
        return "there is no validation list"
    if not len(videos):
        return f"{videos.source} is empty"
    if videos.labels is None:
        return f"the rows of {videos.source} have no labels"
    if videos.fingerprint == test.fingerprint:
        return f"{videos.source} is the test list"
    return ""


def _check_labels(videos: VideoList) -> None:
    """See that the rows of a list have labels.

    Raises:
        ValueError: they don't.
    """
    if videos.labels is None:
        raise ValueError(
            f"{videos.source}: the rows have no labels, which a probe (PROBE.KIND) needs; "
            "`path label` is right"
        )


def _learn(
    cfg: CfgNode,
    learned: _Rows,
    validation: Features | None,
    asked: _Rows,
    num_classes: int,
    device: torch.device,
) -> tuple[Tensor, dict[str, Any]]:
    """Scores (C, K) of the asked clips by a trained head, and how it was trained."""
    kind = cfg.PROBE.KIND
    rates, optimizer, epochs = _USUAL[kind]
    if validation is None:
        held_out = torch.arange(len(learned.labels)) % _HELD_OUT == _HELD_OUT - 1
        chooses, learned = learned.where(held_out), learned.where(~held_out)
    else:
        chooses = _rows(validation)
    settings = FitSettings(
        learning_rates=cfg.PROBE.LEARNING_RATES or rates,
        optimizer=optimizer,
        epochs=cfg.PROBE.EPOCHS or epochs,
        batch_size=cfg.PROBE.BATCH_SIZE,
        weight_decay=cfg.PROBE.WEIGHT_DECAY,
        seed=cfg.RNG_SEED,
    )
    width = learned.features.shape[-1]

    def make_head() -> nn.Module:
        if kind == "attentive":
            return AttentiveHead(width, num_classes, cfg.PROBE.NUM_HEADS)
        std, mean = torch.std_mean(learned.features[:], dim=0)
        return LinearHead(mean, std, num_classes)

    fit = fit_heads(make_head, *learned, chooses, settings, device=device)
    for rate in fit.diverged:
        say(f"learning rate {rate}: the head diverged (a loss or score is not finite); not chosen")
    scores = head_scores(fit.head, asked.features, batch_size=cfg.PROBE.BATCH_SIZE, device=device)
    return scores, {
        "learning_rate": fit.learning_rate,
        "validation_top1": {str(rate): top1 for rate, top1 in fit.validation_top1.items()},
        "diverged": list(fit.diverged),
        "chosen_on": _HELD_OUT_ROWS if validation is None else "val",
        "epochs": settings.epochs,
        "optimizer": optimizer,
    }


def _rows(features: Features) -> _Rows:
    """Features and labels, which `_lists` has seen to be there."""
    assert features.labels is not None
    return _Rows(features.features, features.labels)


def _num_classes(train: Features, test: Features) -> int:
    """K: the names, or the largest label."""
    return len(train.class_names) or 1 + int(
        max(_rows(train).labels.max(), _rows(test).labels.max())
    )


def _judge(test: Features, scores: Tensor, ensemble: str) -> dict[str, Any]:
    """Accuracy over videos by the scores (C, K) of their clips together."""
    assert test.labels is not None
    num_views, num_videos = test.facts["num_views"], len(test.paths)
    collected = VideoScores(num_videos, scores.shape[1], num_views, ensemble=ensemble)
    collected.add(test.rows * num_views + test.views, scores)
    labels = torch.full((num_videos,), -1)
    labels[test.rows] = test.labels
    found = collected.finalize(labels).as_dict()
    found["num_videos_incomplete"] = len(found.pop("incomplete_videos"))
    del found["lost_videos"]
    return found


def _summary(results: Mapping[str, Any]) -> str:
    """Describe the accuracy of a probe in one line."""
    return (
        f"top-1 {results['top1']:.2f}, top-5 {results['top5']:.2f}; "
        f"{results['num_videos_scored']} of {results['num_videos']} videos decoded"
    )


def _counts(train: Features, test: Features) -> dict[str, Any]:
    """How many videos each list promises and how many could be decoded, and the lost."""
    counts = {name: test.facts[name] for name in ("num_expected", "num_found", "num_decoded")}
    of_train = {f"num_train_{name}": train.facts[f"num_{name}"] for name in ("expected", "decoded")}
    return {**counts, **of_train, "lost": test.facts["lost"], "lost_train": train.facts["lost"]}
