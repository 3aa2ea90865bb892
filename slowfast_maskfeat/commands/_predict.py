"""Predictions of videos, printed or written."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output, only_writer, pairs_of
from slowfast_maskfeat.commands._predict_table import predict_all, write_predictions
from slowfast_maskfeat.datasets import named_by
from slowfast_maskfeat.datasets.class_names import read_names
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.inputs import input_paths
from slowfast_maskfeat.runs.load_trained import load_trained
from slowfast_maskfeat.runs.predict import Prediction, Predictor, list_excerpts, measuring
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import DecodeError


def predict(options: argparse.Namespace) -> int:
    """Print the best classes, or write them to a table.

    Args:
        options: of `maskfeat predict`.

    Returns:
        The exit code: 0, or 1 if a video of several could not be decoded.

    Raises:
        ValueError: the checkpoint is no clip classifier, an input is malformed, or the output
            exists or can't be written.
        DecodeError: a single video can't be decoded.
    """
    if options.logits:
        check_output(Path(options.logits), options, option="--logits")
    if not options.output:
        return _predict(options)
    check_output(options.output, options)
    with only_writer(options.output):
        return _predict(options)


def _predict(options: argparse.Namespace) -> int:
    predictor = _load(options)
    if options.clips:
        logits = predictor.clip_logits(_read_clips(options.clips, predictor.cfg))
        best = predictor.best(logits, options.clips, options.top)
        return _show([best], options, logits)
    cfg = predictor.cfg
    paths = input_paths(cfg, options.video, "--video", pairs=pairs_of(options))
    videos, reasons = list_excerpts(
        paths,
        **measuring(cfg),
        window=options.window,
        stride=options.stride,
        source=" ".join(options.video),
    )
    if options.output:
        return write_predictions(predictor, videos, reasons, options)
    if len(videos) > 1:
        if options.logits:
            raise ValueError(f"--logits requires one video or --clips, got {len(videos)} samples")
        rows = range(len(videos))
        return _show(predict_all(predictor, videos, reasons, options, rows), options)
    ((_, of_video, times, reason),) = predictor.logits(videos, reasons=reasons)
    if of_video is None:
        raise DecodeError(videos.path(0), reason)
    span = videos.spans[0] or times
    best = predictor.best(of_video, videos.path(0), options.top)
    return _show([best._replace(begin=span.begin, end=span.end)], options, of_video)


def _load(options: argparse.Namespace) -> Predictor:
    names = read_names(options.names) if options.names else ()
    trained = load_trained(
        options.checkpoint, device=options.device, config_file=options.cfg, pairs=pairs_of(options)
    )
    with named_by(options.checkpoint):
        predictor = Predictor(trained.model, names=names)
    if not predictor.names:
        print(
            f"{options.checkpoint} has no class names: classes are numbers; --names gives a file "
            "with a name per line",
            file=sys.stderr,
        )
    return predictor


def _show(
    found: Sequence[Prediction], options: argparse.Namespace, logits: Tensor | None = None
) -> int:
    """Print the predictions; of a single one the logits are written if requested."""
    if options.logits and logits is not None:
        _save_array(options.logits, logits)
    if options.json:
        rows = [_as_dict(prediction) for prediction in found]
        print(json.dumps(rows[0] if len(rows) == 1 else rows))
    else:
        for prediction in found:
            if len(found) > 1:
                print(_heading(prediction))
            for label, score in zip(prediction.labels, prediction.scores, strict=True):
                name = printable(label).replace("\n", "\\n")  # a row is one line
                print(f"{score:.4f}  {name}")
    if options.logits:
        print_written([options.logits], stream=sys.stderr if options.json else None)
    return 1 if any(prediction.reason for prediction in found) else 0


def _heading(prediction: Prediction) -> str:
    span = f" {prediction.begin:.2f}-{prediction.end:.2f} s" if prediction.begin >= 0 else ""
    return printable(
        f"{prediction.path}{span}:{' ' if prediction.reason else ''}{prediction.reason}"
    )


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    named = zip(prediction.classes, prediction.labels, prediction.scores, strict=True)
    row: dict[str, Any] = {"video": prediction.path, "num_views": prediction.num_views}
    if prediction.begin >= 0:
        row |= {"begin": round(prediction.begin, 3), "end": round(prediction.end, 3)}
    row["top"] = [
        {"class": number, "name": name, "score": round(score, 6)} for number, name, score in named
    ]
    return row | ({"error": prediction.reason} if prediction.reason else {})


def _read_clips(path: str, cfg: CfgNode) -> Tensor:
    """Read clips (V, C, T, H, W), uint8 or normalized float32, from a .npy file."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"--clips: {path} can't be read as a .npy array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"--clips must be a .npy file of one array, got the archive {path}")
    channels = cfg.DATA.INPUT_CHANNEL_NUM[0]
    if (
        array.ndim != 5
        or not len(array)
        or array.shape[1] != channels
        or (array.dtype != np.uint8 and array.dtype.kind != "f")
    ):
        raise ValueError(
            f"--clips must be (clips, {channels} channels, frames, height, width), uint8 or floats "
            f"already normalized, got {array.dtype} of shape {array.shape} in {path}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"--clips must be finite, got NaN or infinity in {path}")
    return torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))


def _save_array(path: str, logits: Tensor) -> None:
    """Write an array atomically."""
    try:
        with atomic_write(Path(path)) as temporary, open(temporary, "wb") as file:
            np.save(file, logits.numpy())
    except OSError as error:
        raise ValueError(f"--logits: {path} can't be written: {error.strerror}") from error
