"""Measurement of the features during a pre-training: do they tell clips apart, or collapse?"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor

from slowfast_maskfeat import distributed
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.data import build_feature_loader, clips_at_once
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.precision import autocast_precision
from slowfast_maskfeat.checkpoints import checkpoint_folder, read_header
from slowfast_maskfeat.checkpoints.save_load import best_path
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.engine.coordination import from_main
from slowfast_maskfeat.engine.evaluate import evaluate
from slowfast_maskfeat.engine.monitor import Monitor
from slowfast_maskfeat.engine.state import TrainState
from slowfast_maskfeat.engine.stop_signals import StopSignals
from slowfast_maskfeat.features.extraction import FeatureExtraction, FeatureKind
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.metrics.representation import effective_rank, mean_deviation
from slowfast_maskfeat.probes import neighbor_scores
from slowfast_maskfeat.runs.features import feature_network_of
from slowfast_maskfeat.runs.report import print_main

_MAX_CLIPS = 2000
_CLEARLY_BELOW = 0.9  # of the rank of the first weights


def build_monitor(
    cfg: CfgNode, state: TrainState, data: DataSource, device: torch.device
) -> Monitor | None:
    """Build the measurement that TRAIN.MONITOR and TRAIN.MONITOR_PERIOD describe.

    It takes at most 2,000 clips, evenly spread over the training list, each in its center view; the
    labels of the list, which the training does not see, only judge the features.

    Args:
        cfg: configuration; not modified.
        state: of the training, with its first or restored weights.
        data: data of the run.
        device: of the model.

    Returns:
        None if nothing is to be measured: in a training with labels, or of a tokenizer.

    Raises:
        ValueError: TRAIN.KEEP_BEST is a figure that the list has no labels for.
    """
    train = cfg.TRAIN
    if not (find_method(cfg).is_monitored and train.MONITOR and train.MONITOR_PERIOD):
        return None
    measure = _Measurement(cfg, state, data, device)
    kept = "" if train.KEEP_BEST == "validation" else train.KEEP_BEST
    if kept and kept not in measure.figures:
        measured = ", ".join(map(repr, ("", *measure.figures)))
        raise ValueError(
            f"TRAIN.KEEP_BEST must be one of the figures that are measured, {measured}, got "
            f"{train.KEEP_BEST!r}: {measure.without_labels}"
        )
    if "knn" in train.MONITOR and measure.without_labels:
        print_main(f"TRAIN.MONITOR: knn is not measured: {measure.without_labels}")
    return Monitor(
        measure=measure,
        figures=measure.figures,
        period=train.MONITOR_PERIOD,
        best_figure=kept,
        best_value=from_main(lambda: _best_so_far(cfg, state)),
    )


def _best_so_far(cfg: CfgNode, state: TrainState) -> float:
    """Return the figure of the best checkpoint of a resumed run; -inf if there is none.

    One of a later epoch does not count: the epochs up to it are trained again.
    """
    path = best_path(checkpoint_folder(cfg.OUTPUT_DIR), prefix=cfg.TASK)
    if not cfg.TRAIN.KEEP_BEST or state.checkpoint is None or not path.exists():
        return -math.inf
    try:
        header = read_header(path)
    except ValueError as error:
        print_main(f"warning: the best checkpoint is replaced by the next: {error}")
        return -math.inf
    best, epoch = header.get("best"), header.get("epoch")
    is_known = isinstance(best, Mapping) and best.get("figure") == cfg.TRAIN.KEEP_BEST
    if not is_known or not isinstance(epoch, int) or epoch >= state.epoch:
        return -math.inf
    value = best["value"] if isinstance(best, Mapping) else None
    return value if isinstance(value, float) else -math.inf


@dataclass(kw_only=True)
class CollapseWatch:
    """Notices that the features have collapsed, once until they have recovered.

    Random weights may already give nearly equal features of all clips, and a few clips span few
    directions: neither is a collapse.

    Attributes:
        floor: TRAIN.MONITOR_MIN_RANK, the effective rank below which features have collapsed.
        first_rank: that of the weights before the first epoch; NaN if it is not known.
        has_warned: whether the features had collapsed when they were measured last.
    """

    floor: float
    first_rank: float = math.nan
    has_warned: bool = False

    def notices(self, rank: float, *, max_rank: int) -> bool:
        """Return whether features of this effective rank are a collapse that is new.

        Args:
            rank: NaN if the features are not finite, or all zero.
            max_rank: the largest one that so many clips and channels can have.
        """
        limit = min(self.floor, max_rank / 2)
        if math.isfinite(self.first_rank):
            limit = min(limit, _CLEARLY_BELOW * self.first_rank)
        had_collapsed = self.has_warned
        self.has_warned = not rank >= limit
        return self.has_warned and not had_collapsed


def _rank_before(cfg: CfgNode, state: TrainState) -> float:
    """Return the effective rank before the first epoch in the log of a resumed run, or NaN."""
    log = event_log_path(cfg.OUTPUT_DIR)
    ranks = [
        event.get("rank")
        for event in (read_events(log) if state.checkpoint is not None and log.exists() else [])
        if event.get("event") == "monitor" and event.get("epoch") == 0
    ]
    return ranks[-1] if ranks and isinstance(ranks[-1], float) else math.nan


class _Measurement:
    """Measures the features of the current weights; see `build_monitor`.

    The features are those that a probe of the checkpoint extracts: of the teacher or the student,
    as TRAIN.CHECKPOINT_WEIGHTS says, and pooled as in `features`.
    """

    def __init__(
        self, cfg: CfgNode, state: TrainState, data: DataSource, device: torch.device
    ) -> None:
        self._cfg = cfg
        self._state = state
        self._data = data
        self._device = device
        videos = data.videos("train")
        self._rows = _spread(len(videos))
        self._labels = None if videos.labels is None else videos.labels[self._rows]
        self.without_labels = _why_no_neighbors(videos, self._labels)
        self.figures = tuple(
            name for name in cfg.TRAIN.MONITOR if name != "knn" or not self.without_labels
        )
        rank_before = from_main(lambda: _rank_before(cfg, state))
        self._watch = CollapseWatch(floor=cfg.TRAIN.MONITOR_MIN_RANK, first_rank=rank_before)

    def __call__(self, signals: StopSignals) -> dict[str, Any]:
        """Measure; see `Monitor.measure`."""
        start = time.perf_counter()
        numbers, features = self._extract(signals)
        results = from_main(lambda: self._results(numbers, features))
        results["seconds"] = round(time.perf_counter() - start, 3)
        print_main(self._summary(results, max_rank=min(features.shape)))
        return results

    def _extract(self, signals: StopSignals) -> tuple[NDArray[np.int64], Tensor]:
        """Extract the features of all processes: rows (n,) in ascending order and (n, D)."""
        cfg = self._cfg
        loader = build_feature_loader(cfg, "train", data=self._data)
        loader.keep_only(self._rows)
        model = self._network()
        parts: list[tuple[Tensor, Tensor]] = []

        def keep(rows: Tensor, features: Tensor, times: Tensor) -> None:
            parts.append((rows.cpu(), features.float().cpu()))

        evaluate(
            model,
            FeatureExtraction(
                keep, kind=FeatureKind(), num_kept=0, mean=cfg.DATA.MEAN, std=cfg.DATA.STD
            ),
            loader,
            signals=signals,
            num_views=1,
            chunk_size=clips_at_once(cfg),
            device=self._device,
            precision=autocast_precision(cfg, self._device),
            description="monitor",
        )
        parts.append((torch.zeros(0, dtype=torch.int64), torch.zeros(0, model.width)))
        mine = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
        gathered = distributed.gather_objects(mine)
        rows = np.concatenate([part[0] for part in gathered])
        order = rows.argsort()
        features = torch.from_numpy(np.concatenate([part[1] for part in gathered])[order])
        return rows[order], features

    def _network(self) -> FeatureModel:
        """Build the network that a probe of the current weights would use."""
        cfg = self._cfg
        network = feature_network_of(
            cfg, self._state.weights(), "the weights of the training", data=self._data
        )
        return network.to(self._device)

    def _results(self, rows: NDArray[np.int64], features: Tensor) -> dict[str, Any]:
        results: dict[str, Any] = {"num_clips": len(rows)}
        if "knn" in self.figures:
            assert self._labels is not None
            labels = self._labels[np.searchsorted(self._rows, rows)]
            results.update(self._neighbors(features, torch.from_numpy(labels)))
        if "rank" in self.figures:
            results["rank"] = effective_rank(features)
        if "std" in self.figures:
            results["std"] = mean_deviation(features)
        return results

    def _neighbors(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """Classify each clip by the others; NaN if that is not possible."""
        if len(labels) < 2 or not bool(torch.isfinite(features).all()):
            return {"knn": math.nan, "knn_chance": math.nan}
        counts = labels.bincount()
        scores = neighbor_scores(
            features,
            labels,
            features,
            num_classes=len(counts),
            device=self._device,
            k=min(self._cfg.PROBE.NUM_NEIGHBORS, len(labels) - 1),
            temperature=self._cfg.PROBE.TEMPERATURE,
            leave_one_out=True,
            show_progress=False,
        )
        hits = (scores.argmax(dim=1) == labels).double().mean()
        return {"knn": 100 * float(hits), "knn_chance": 100 * float(counts.max()) / len(labels)}

    def _summary(self, results: Mapping[str, Any], *, max_rank: int) -> str:
        """Describe the figures in one line; once more loudly if the features have collapsed."""
        texts = []
        if "knn" in results:
            texts.append(
                f"kNN top-1 {results['knn']:.2f} (most frequent class {results['knn_chance']:.2f})"
            )
        if "rank" in results:
            texts.append(f"effective rank {results['rank']:.1f} of {max_rank}")
        if "std" in results:
            texts.append(f"standard deviation {results['std']:.4f}")
        is_first = self._state.epoch == 0
        when = " before the first epoch" if is_first else ""
        line = f"features{when}: {', '.join(texts)}; {results['num_clips']} clips"
        if "rank" not in results:
            return line
        if is_first:
            self._watch.first_rank = results["rank"]
            return line
        if not self._watch.notices(results["rank"], max_rank=max_rank):
            return line
        return (
            f"{line}\nWARNING: THE FEATURES HAVE COLLAPSED: their effective rank "
            f"{results['rank']:.2f} is below TRAIN.MONITOR_MIN_RANK {self._watch.floor:g}, or they "
            "are not finite: nearly all clips have the same features, whatever the loss is; stop, "
            "and try a lower SOLVER.BASE_LR, a higher momentum of the teacher or more weight decay"
        )


def _spread(num_rows: int) -> NDArray[np.int64]:
    """Select at most `_MAX_CLIPS` rows, evenly spread over a list."""
    count = min(num_rows, _MAX_CLIPS)
    return (2 * np.arange(count) + 1) * num_rows // (2 * count)


def _why_no_neighbors(videos: VideoList, labels: NDArray[np.int64] | None) -> str:
    """Return why the accuracy of nearest neighbors can't be measured; empty if it can."""
    if videos.label_sets is not None:
        return f"the rows of {videos.source} have several labels"
    if labels is None:
        return f"the rows of {videos.source} have no labels"
    if (labels == labels[:1]).all():
        return f"the rows of {videos.source} have one label"
    return ""
