"""Features of videos, images and frames, by a frozen network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import FeatureModel
from slowfast_maskfeat.builders.backbones import configured_clip_size
from slowfast_maskfeat.builders.data import (
    build_prediction_loader,
    build_test_views,
    build_validation_view,
    clip_seconds,
)
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.methods import build_feature_model, find_method
from slowfast_maskfeat.builders.model_size import check_model_size
from slowfast_maskfeat.builders.precision import autocast_precision
from slowfast_maskfeat.builders.trained_config import trained_config
from slowfast_maskfeat.builders.weights import load_first_weights
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import Overrides
from slowfast_maskfeat.datasets.excerpt_list import windows
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.runs.features import Excerpts, feature_network_of
from slowfast_maskfeat.runs.inputs import check_seconds, named_paths, open_frames
from slowfast_maskfeat.runs.load_trained import build_trained, config_of, named_device, read_trained
from slowfast_maskfeat.runs.predict import Source, list_excerpts, measuring
from slowfast_maskfeat.shapes import position_grid
from slowfast_maskfeat.videos.decode import DecodeError, Video
from slowfast_maskfeat.videos.excerpt import Excerpt

_ROUNDING = 5e-4  # seconds: as the least window is printed


class Embedding(NamedTuple):
    """The features of clips of a video.

    Attributes:
        path: of the video; "frames" for frames in memory.
        features: (C, D) float32; with pooling "none" (C, t, h, w, D), whose t are the time steps of
            the tokens. (0, ...) for a video that can't be decoded.
        times: (C, 2) float64, timestamps of each clip's first and last frame in seconds.
        reason: empty, or why the video, or some of its windows, could not be decoded.
    """

    path: str
    features: Tensor
    times: Tensor
    reason: str = ""


class Embedder:
    """Computes features of videos by a frozen network: of a pre-training or a classifier.

    Of a whole video they are those of all views of the model's test, of a window those of its
    center clip. Of a pre-training whose loss does not reach the class token the tokens are
    mean-pooled by default, and a new last norm normalizes them if it has trained none.

    Args:
        model: from `from_pretrained`, or a path that it loads.
        layer: block whose tokens are taken, from 0; negative: from the last, -1. They go through
            the last layer norm where they have its width.
        pooling: "mean" of the patch tokens, "cls" (the class token), "none" (every patch token), or
            "": as the classifier of the network takes them.
        device: "cpu" or "cuda", for a path.
        config: YAML file for weights without a configuration.
        overrides: keys and values, for a path: ["KEY", "VALUE", ...] or {"KEY": value}.

    Attributes:
        cfg: configuration of the network.
        model: the network, which a second `Embedder` can share.

    Raises:
        ValueError: the model has no features, such as a tokenizer, or no such block or class token;
            see `from_pretrained`.
    """

    def __init__(
        self,
        model: nn.Module | str | os.PathLike[str],
        *,
        layer: int = -1,
        pooling: str = "",
        device: str = "cpu",
        config: str | os.PathLike[str] | None = None,
        overrides: Overrides = (),
    ) -> None:
        if isinstance(model, nn.Module):
            self.cfg: CfgNode = config_of(model)
            self.model = _network_of(self.cfg, model)
        else:
            config_file = None if config is None else os.fspath(config)
            self.cfg, self.model = _load(model, device, config_file, overrides)
        self.model.cfg = self.cfg
        self._kind = FeatureKind(layer, pooling)
        self._kind.check(self.model, configured_clip_size(self.cfg))

    @property
    def pooling(self) -> str:
        """How the features are pooled, and after which block unless it is the last, in words."""
        return self._kind.describe(self.model, configured_clip_size(self.cfg))

    def __call__(
        self,
        source: Source | Sequence[str],
        *,
        window: float = 0.0,
        stride: float = 0.0,
        fps: float = 0.0,
    ) -> Embedding | list[Embedding]:
        """Embed a video, an image, frames, or several videos.

        Args:
            source: a video or image; a list of them; or frames (T, H, W, 3), uint8, RGB, as an
                array or tensor.
            window: seconds; embed each window of a video instead of the whole; an image is one
                window. 0 with a stride: the seconds that a clip spans.
            stride: seconds from one window to the next; 0: `window`.
            fps: of frames in memory; 0: DATA.TARGET_FPS.

        Returns:
            The features of all clips of the video; for several videos a list. A video of a list
            that can't be decoded has a reason.

        Raises:
            DecodeError: a single video, or a window of it, can't be decoded.
            ValueError: the frames have another shape or type, or a number is out of range.
        """
        videos: dict[int, list[Embedding]] = {}
        for number, embedding in self._parts(source, window, stride, fps):
            videos.setdefault(number, []).append(embedding)
        found = [_joined(videos[number]) for number in sorted(videos)]
        if not isinstance(source, (np.ndarray, Tensor, str, os.PathLike)):
            return found
        if found[0].reason:
            raise DecodeError(found[0].path, found[0].reason)
        return found[0]

    def stream(
        self,
        source: Source | Sequence[str],
        *,
        window: float = 0.0,
        stride: float = 0.0,
        fps: float = 0.0,
    ) -> Iterator[Embedding]:
        """Embed like a call, but yield each window, or each whole video, as it is done.

        Memory does not grow with the length or number of videos. What can't be decoded has a reason
        and no features.
        """
        for _, embedding in self._parts(source, window, stride, fps):
            yield embedding

    @torch.no_grad()
    def clip_features(self, clips: Tensor) -> Tensor:
        """Compute the features of clips (V, C, T, H, W), uint8 or normalized.

        Returns:
            (V, D), or (V, t, h, w, D), float32; at most TEST.BATCH_SIZE clips at once.
        """
        device = next(self.model.parameters()).device
        precision = autocast_precision(self.cfg, device)
        found = []
        with torch.autocast(device.type, precision, enabled=precision is not None):
            for part in clips.split(self.cfg.TEST.BATCH_SIZE):
                pixels = normalize(part.to(device), self.cfg.DATA.MEAN, self.cfg.DATA.STD)
                found.append(self._kind(self.model, pixels).float().cpu())
        return self._on_grid(torch.cat(found), clips.shape[2:])

    def _on_grid(self, features: Tensor, clip_size: Sequence[int]) -> Tensor:
        """Arrange tokens: (V, n, D) -> (V, t, h, w, D); pooled features stay."""
        if not self._kind.of_tokens:
            return features
        return features.unflatten(1, tuple(self._kind.grid(self.model, clip_size)))

    def _parts(
        self, source: Source | Sequence[str], window: float, stride: float, fps: float
    ) -> Iterator[tuple[int, Embedding]]:
        """Embed each window or whole video; also yield which of the given videos it is of."""
        if isinstance(source, (np.ndarray, Tensor)):
            return self._of_frames(open_frames(self.cfg, source, fps), window, stride)
        names = named_paths(source)
        excerpts = find_excerpts(self.cfg, names, window=window, stride=stride)
        return self._of_excerpts(excerpts) if names else iter(())

    def _of_frames(
        self, video: Video, window: float, stride: float
    ) -> Iterator[tuple[int, Embedding]]:
        window, split = _window(self.cfg, window, stride)
        views = build_validation_view(self.cfg) if window else build_test_views(self.cfg)
        spans = windows(video.duration, window, stride or window) if window else [None]
        for span in spans:
            part = video if span is None else Excerpt(video, span.begin, span.end)
            clips = views(part).permute(0, 4, 1, 2, 3)
            clips = clips.flip(1) if reverses_channels(self.cfg, split) else clips
            yield 0, Embedding(video.path, self.clip_features(clips), views.times(part))

    def _of_excerpts(self, excerpts: Excerpts) -> Iterator[tuple[int, Embedding]]:
        videos = excerpts.videos
        is_first = [span is None or not span.begin for span in videos.spans]
        numbers = np.cumsum(is_first) - 1
        loader = build_prediction_loader(self.cfg, videos, excerpts.split)
        loader.dataset.given_up.update(excerpts.reasons)
        (view,) = loader.dataset.views.kinds
        shape = (0, *self._kind.shape(self.model, view.clip_shape))
        nothing = self._on_grid(torch.zeros(shape), view.clip_shape)
        for batch in loader.epoch(0):
            done = self._of_batch(batch) if len(batch.clips) else {}
            lost = {video.row: video.reason for video in batch.lost}
            for row in sorted({*done, *lost}):
                features, times = done.get(row, (nothing, torch.zeros(0, 2, dtype=torch.float64)))
                reason = lost.get(row, "")
                yield int(numbers[row]), Embedding(videos.path(row), features, times, reason)

    def _of_batch(self, batch: ClipBatch) -> Mapping[int, tuple[Tensor, Tensor]]:
        """Compute the features and times of each row of a batch."""
        assert batch.index is not None
        assert batch.times is not None
        features = self.clip_features(batch.clips)
        rows = batch.index.unique_consecutive().tolist()
        return {
            row: (features[batch.index == row], batch.times[batch.index == row]) for row in rows
        }


def find_excerpts(
    cfg: CfgNode,
    paths: Sequence[str],
    *,
    window: float = 0.0,
    stride: float = 0.0,
    source: str = "the videos",
) -> Excerpts:
    """List whole videos, or their windows, to compute features of.

    Args:
        cfg: configuration of the network; not changed.
        paths: of videos and images.
        window: see `Embedder`.
        stride: see `Embedder`.
        source: for messages.

    Raises:
        ValueError: a number is out of range, or a window is shorter than a clip.
    """
    window, split = _window(cfg, window, stride)
    videos, reasons = list_excerpts(
        paths, **measuring(cfg), window=window, stride=stride, source=source
    )
    return Excerpts(videos, split, reasons)


def _window(cfg: CfgNode, window: float, stride: float) -> tuple[float, str]:
    """Return the seconds of a window, 0 for whole videos, and the split whose views are taken."""
    check_seconds(window=window, stride=stride)
    if not (window or stride):
        return 0.0, "test"
    least = clip_seconds(cfg, "val")
    if not (window or least):
        raise ValueError(
            "window must be given with a stride, since clips of this model span the whole video"
        )
    if window and window < least - _ROUNDING:
        raise ValueError(
            f"window must be at least {least:.3f} seconds, which a clip spans "
            f"({cfg.DATA.NUM_FRAMES} frames, sampling rate {cfg.DATA.SAMPLING_RATE} at "
            f"{cfg.DATA.TARGET_FPS} per second), got {window:g}; without it clips are side by side"
        )
    return window or least, "val"


def _load(
    path: str | os.PathLike[str],
    device: str,
    config_file: str | None,
    overrides: Overrides,
) -> tuple[CfgNode, FeatureModel]:
    """Load the network of a checkpoint; of a pre-training without what only its task needs."""
    torch_device = named_device(device)
    trained = read_trained(path)
    cfg = trained_config(trained.path, trained.content, config_file, overrides)
    if find_method(cfg).has_labels:
        model = build_trained(trained, cfg, torch_device).model
        return cfg, _network_of(cfg, model)
    check_model_size(lambda: build_feature_model(cfg), trained.path, trained.content)
    with torch.random.fork_rng(devices=[]):  # its first weights draw from torch's generator
        network = build_feature_model(cfg)
    load_first_weights(cfg, network, trained.path, average=True, content=trained.content)
    return cfg, network.to(torch_device).eval()


def _network_of(cfg: CfgNode, model: nn.Module) -> FeatureModel:
    """Return a classifier itself; of another model the network that a probe would use."""
    if isinstance(model, FeatureModel):
        return model.eval()
    content = {
        "model_state": model.state_dict(),
        "token_grid": list(position_grid(model) or ()),
    }
    device = next(model.parameters()).device
    return feature_network_of(cfg, content, f"the {type(model).__name__}").to(device)


def _joined(parts: Sequence[Embedding]) -> Embedding:
    """Join the windows of a video."""
    reasons = [part.reason for part in parts if part.reason]
    return Embedding(
        parts[0].path,
        torch.cat([part.features for part in parts]),
        torch.cat([part.times for part in parts]),
        reasons[0] if reasons else "",
    )
