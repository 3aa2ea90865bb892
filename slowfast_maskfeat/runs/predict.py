"""Classes of videos, images and frames, by a trained model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor, nn

from slowfast_maskfeat.builders.data import build_prediction_loader, build_test_views
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.methods import build_task
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import Overrides
from slowfast_maskfeat.curation.check_videos import measure_length
from slowfast_maskfeat.curation.jobs import Failure, run_threads
from slowfast_maskfeat.datasets.excerpt_list import ExcerptList, Span, windows
from slowfast_maskfeat.frozen import weights_sha256
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.metrics.accuracy import combine_views
from slowfast_maskfeat.runs.inputs import check_seconds, named_paths, open_frames
from slowfast_maskfeat.runs.load_trained import config_of
from slowfast_maskfeat.runs.pretrained import from_pretrained
from slowfast_maskfeat.tasks import Classification
from slowfast_maskfeat.videos.decode import DecodeError, Video
from slowfast_maskfeat.videos.excerpt import Excerpt
from slowfast_maskfeat.videos.media import is_image

Source = str | os.PathLike[str] | NDArray[np.uint8] | Tensor
"""A video or image file or address, or uint8 frames (T, H, W, 3) in RGB."""


class Prediction(NamedTuple):
    """The best classes of a video, or of a part of it.

    Attributes:
        path: of the video; "frames" for frames in memory.
        begin: seconds from the first frame of the video to the first frame that was seen; of a
            window, to its begin.
        end: likewise to the last frame, or to the end of the window.
        num_views: clips whose scores were combined.
        classes: numbers of the best classes, the best first; empty for a lost video.
        labels: their names; numbers as text if the model has no names.
        scores: their scores.
        reason: empty, or why the video could not be decoded.
    """

    path: str
    begin: float
    end: float
    num_views: int = 0
    classes: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    reason: str = ""


class Predictor:
    """Classifies videos by the scores of all views, combined as in the model's test.

    Args:
        model: from `from_pretrained`, or a path that it loads.
        device: "cpu" or "cuda", for a path.
        config: YAML file for weights without a configuration.
        names: names of the classes, instead of the model's.
        overrides: keys and values, for a path: ["KEY", "VALUE", ...] or {"KEY": value}.

    Raises:
        ValueError: the model is not a clip classifier, or there is another number of names; see
            `from_pretrained`.
    """

    def __init__(
        self,
        model: nn.Module | str | os.PathLike[str],
        *,
        device: str = "cpu",
        config: str | os.PathLike[str] | None = None,
        names: Sequence[str] = (),
        overrides: Overrides = (),
    ) -> None:
        if isinstance(names, str):
            raise ValueError(f"names must be a list of names, one for each class, got {names!r}")
        source = type(model).__name__
        if not isinstance(model, nn.Module):
            source = os.fspath(model)
            model = from_pretrained(model, device=device, config=config, overrides=overrides)
        self.cfg: CfgNode = config_of(model)
        task = build_task(self.cfg, model)
        if not isinstance(task, Classification):
            raise ValueError(
                f"the model must be a clip classifier, got {source}; fine-tune a pre-trained "
                "model first, and use `maskfeat detect` for detectors"
            )
        self._model, self._task = model.eval(), task
        self.names = tuple(names or getattr(model, "class_names", ()))
        num_classes = self.cfg.MODEL.NUM_CLASSES
        if names and len(names) != num_classes:
            raise ValueError(
                f"there must be as many names as classes of the model, {num_classes}, got "
                f"{len(names)}"
            )

    @property
    def weights_sha256(self) -> str:
        """Hash of the model's weights."""
        return weights_sha256(self._model.state_dict())

    def __call__(
        self,
        source: Source | Sequence[str],
        *,
        top: int = 5,
        window: float = 0.0,
        stride: float = 0.0,
        fps: float = 0.0,
    ) -> Prediction | list[Prediction]:
        """Classify a video, an image, frames, or several videos.

        Args:
            source: a video or image; a list of them; or frames (T, H, W, 3), uint8, RGB, as an
                array or tensor.
            top: number of classes, >= 1.
            window: seconds; classify each window of a video instead of the whole. An image is one
                window.
            stride: seconds from one window to the next; 0: `window`.
            fps: of frames in memory; 0: DATA.TARGET_FPS.

        Returns:
            The prediction; for several videos or with `window` a list. A video of a list that can't
            be decoded has no classes and a reason.

        Raises:
            DecodeError: a single video can't be decoded.
            ValueError: the frames have another shape or type, or a number is out of range.
        """
        _check_top(top)
        if isinstance(source, (np.ndarray, Tensor)):
            video = open_frames(self.cfg, source, fps)
            _check_windows(window, stride)
            if not window:
                return self._of_frames(video, None, top)
            spans = windows(video.duration, window, stride or window)
            return [self._of_frames(video, span, top) for span in spans]
        is_single = isinstance(source, (str, os.PathLike))
        videos, reasons = list_excerpts(
            named_paths(source), **measuring(self.cfg), window=window, stride=stride
        )
        by_row = dict(self.predict(videos, top=top, reasons=reasons))
        found = [by_row[row] for row in sorted(by_row)]  # lost ones come before others of a batch
        if not is_single:
            return found
        for prediction in found:
            if prediction.reason:
                raise DecodeError(prediction.path, prediction.reason)
        return found if window else found[0]

    def predict(
        self,
        videos: ExcerptList,
        *,
        top: int = 5,
        reasons: dict[int, str] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Prediction]]:
        """Classify samples, several at once; decoding is in the workers of DATA_LOADER.

        Args:
            videos: samples.
            top: number of classes.
            reasons: of samples that are known to be lost, by row.
            rows: the samples to classify; None: all.

        Yields:
            Row and prediction, also of lost samples; in each batch these come first.

        Raises:
            ValueError: `top` is no whole number >= 1.
        """
        _check_top(top)
        for row, logits, times, reason in self.logits(videos, reasons=reasons, rows=rows):
            span = videos.spans[row]
            begin, end = times if span is None else span
            blank = Prediction(videos.path(row), begin, end, reason=reason)
            yield row, blank if logits is None else self._best(logits, blank, top)

    @torch.no_grad()
    def logits(
        self,
        videos: ExcerptList,
        *,
        reasons: dict[int, str] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Tensor | None, Span, str]]:
        """Compute the logits of all views of each sample; see `predict`.

        Yields:
            Row; logits (V, K) or None; times of the first and last frame; reason.
        """
        loader = build_prediction_loader(self.cfg, videos)
        loader.dataset.given_up.update(reasons or {})
        if rows is not None:
            loader.keep_only(np.asarray(rows, np.int64))
        nowhere = Span(float("nan"), float("nan"))
        for batch in loader.epoch(0):
            for lost in batch.lost:
                yield lost.row, None, nowhere, lost.reason
            if len(batch.clips):
                yield from self._of_batch(batch)

    def clip_logits(self, clips: Tensor) -> Tensor:
        """Compute the logits (V, K) of clips (V, C, T, H, W), at most TEST.BATCH_SIZE at once."""
        device = next(self._model.parameters()).device
        chunks = clips.split(self.cfg.TEST.BATCH_SIZE)
        with torch.no_grad():
            logits = [self._task.logits(self._model, chunk.to(device)) for chunk in chunks]
        return torch.cat(logits).cpu()

    def best(self, logits: Tensor, path: str, top: int) -> Prediction:
        """Return the best classes of clips by their combined score.

        Args:
            logits: (V, K).
            path: of what they are of.
            top: number of classes.
        """
        return self._best(logits, Prediction(path, float("nan"), float("nan")), top)

    def _of_batch(self, batch: ClipBatch) -> Iterator[tuple[int, Tensor, Span, str]]:
        logits = self.clip_logits(batch.clips)
        assert batch.index is not None
        assert batch.times is not None
        for row in batch.index.unique_consecutive().tolist():
            of_row = batch.index == row
            times = batch.times[of_row]
            yield row, logits[of_row], Span(float(times.min()), float(times.max())), ""

    def _best(self, logits: Tensor, blank: Prediction, top: int) -> Prediction:
        of_views = self._task.activation(logits)
        scores = combine_views(of_views, self._task.ensemble)
        best = scores.topk(min(top, len(scores)))
        classes = tuple(best.indices.tolist())
        return blank._replace(
            num_views=len(logits),
            classes=classes,
            labels=tuple(self.names[n] if self.names else str(n) for n in classes),
            scores=tuple(best.values.tolist()),
        )

    def _of_frames(self, video: Video, span: Span | None, top: int) -> Prediction:
        views = build_test_views(self.cfg)
        part = video if span is None else Excerpt(video, span.begin, span.end)
        clips = views(part).permute(0, 4, 1, 2, 3)
        times = views.times(part)
        begin, end = span or (float(times.min()), float(times.max()))
        blank = Prediction(video.path, begin, end)
        clips = clips.flip(1) if reverses_channels(self.cfg, "test") else clips
        return self._best(self.clip_logits(clips), blank, top)


class Measuring(TypedDict):
    """How durations are measured, see `list_excerpts`."""

    threads: int
    timeout: float


def measuring(cfg: CfgNode) -> Measuring:
    """Return how a configuration measures the durations of videos.

    Args:
        cfg: configuration; uses DATA_LOADER.NUM_WORKERS and DATA.DECODE_TIMEOUT.
    """
    timeout = cfg.DATA.DECODE_TIMEOUT or 60.0
    return Measuring(threads=max(cfg.DATA_LOADER.NUM_WORKERS, 1), timeout=timeout)


def list_excerpts(
    paths: Sequence[str],
    *,
    window: float = 0.0,
    stride: float = 0.0,
    threads: int = 1,
    timeout: float = 60.0,
    source: str = "the videos",
) -> tuple[ExcerptList, dict[int, str]]:
    """List the samples of a prediction: videos, or their windows.

    Args:
        paths: of videos and images.
        window: seconds of a window; 0: whole videos, which are not opened here. An image is a
            sample as a whole.
        stride: seconds from one window to the next; 0: `window`.
        threads: that measure the durations.
        timeout: seconds for the duration of a video.
        source: for messages.

    Returns:
        The samples; and row -> reason of videos whose duration can't be measured, or that would
        have too many windows.

    Raises:
        ValueError: a number is negative, or there is a stride without a window.
    """
    _check_windows(window, stride)
    if not window:
        return ExcerptList(paths, [None] * len(paths), source), {}
    all_paths: list[str] = []
    spans: list[Span | None] = []
    reasons: dict[int, str] = {}
    films = dict.fromkeys(path for path in paths if not is_image(path))
    lengths = _measure(list(films), threads, timeout)
    for path in paths:
        length = lengths.get(path)
        parts: list[Span | None] = [None]
        if isinstance(length, Failure):
            reasons[len(all_paths)] = length.reason
        elif length is not None:
            try:
                parts = [*windows(length, window, stride or window)]
            except ValueError as error:  # a file may have a wrong duration
                reasons[len(all_paths)] = str(error)
        all_paths += [path] * len(parts)
        spans += parts
    return ExcerptList(all_paths, spans, source), reasons


def _check_windows(window: float, stride: float) -> None:
    check_seconds(window=window, stride=stride)
    if stride and not window:
        raise ValueError(f"stride must be 0 without a window, got {stride:g}")


def _check_top(top: int) -> None:
    if not isinstance(top, Integral) or isinstance(top, bool) or top < 1:
        raise ValueError(f"top must be a whole number >= 1, got {top!r}")


def _measure(paths: Sequence[str], threads: int, timeout: float) -> dict[str, float | Failure]:
    """Measure durations; a video on which a decoder hangs fails."""
    found: dict[str, float | Failure] = {}
    progress = Progress(len(paths), "measuring", enabled=len(paths) > 1)
    for path, length in run_threads(measure_length, paths, threads=threads, timeout=timeout):
        found[path] = length
        progress.update()
    progress.close()
    return found
