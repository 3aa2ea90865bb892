"""Classify the action in a video.

    maskfeat predict --checkpoint checkpoint_epoch_00100.pyth --video x.mp4

The checkpoint contains its configuration and class names; weights without a configuration need
--cfg. To compare outputs with another program, give both the same array of clips instead of a
video:

    maskfeat predict --checkpoint weights.pyth --cfg model.yaml --clips clips.npy \\
        --logits logits.npy
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor

from slowfast_maskfeat.builders import build_task
from slowfast_maskfeat.builders.data import build_test_views
from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.load_trained import load_trained
from slowfast_maskfeat.tasks import Classification
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import open_video


def main(arguments: Sequence[str]) -> int:
    """Print the top classes.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # training has already shown these warnings
    options = _parse(arguments)
    return exit_code(lambda: _predict_and_print(options), output=options.logits)


def _predict_and_print(options: argparse.Namespace) -> None:
    prediction, logits = predict(options)
    if options.logits:
        _save_array(options.logits, logits)
    if options.json:
        print(json.dumps(prediction))
    else:
        for row in prediction["top"]:
            name = printable(row["name"]).replace("\n", "\\n")  # a row is one line
            print(f"{row['score']:.4f}  {name}")
    if options.logits:
        print_written([options.logits], stream=sys.stderr if options.json else None)


@torch.no_grad()
def predict(options: argparse.Namespace) -> tuple[dict[str, Any], Tensor]:
    """Predict the top classes by the mean score of all clips.

    Returns:
        The prediction as written by --json, and the logits (V, K) of all clips.

    Raises:
        ValueError: The checkpoint is not a clip classifier, or the clips don't match it.
        DecodeError: The video can't be decoded.
    """
    device = options.device
    cfg, model, names = load_trained(
        options.checkpoint, device=device, config_file=options.cfg, pairs=options.opts
    )
    task = build_task(cfg, model)
    if not isinstance(task, Classification):
        raise ValueError(
            f"--checkpoint must be a clip classifier, got {options.checkpoint}; fine-tune a "
            "pre-trained model first, and use `maskfeat detect` for detectors"
        )
    clips = _read_clips(options.clips, cfg) if options.clips else _decode(options.video, cfg)
    chunks = clips.split(cfg.TEST.BATCH_SIZE)
    logits = torch.cat([task.logits(model, chunk.to(device)) for chunk in chunks]).cpu()
    scores = task.activation(logits).mean(0)
    best = scores.topk(min(options.top, len(scores)))
    prediction = {
        "video": options.clips or options.video,
        "num_views": len(clips),
        "top": [
            {
                "class": int(number),
                "name": names[number] if names else str(int(number)),
                "score": round(float(score), 6),
            }
            for score, number in zip(best.values, best.indices, strict=True)
        ],
    }
    return prediction, logits


def _decode(video: str, cfg: CfgNode) -> Tensor:
    """Decode the test views of a video: (V, C, T, H, W) uint8."""
    views = build_test_views(cfg)
    limit = cfg.DATA.MAX_IMAGE_PIXELS
    with open_video(video, cfg.DATA.DECODING_BACKEND, max_image_pixels=limit) as opened:
        clips = views(opened).permute(0, 4, 1, 2, 3)
    return clips.flip(1) if reverses_channels(cfg, "test") else clips


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


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {text}")
    return number


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint of a clip classifier")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--video", help="video file")
    source.add_argument(
        "--clips",
        help=".npy file of (clips, channels, frames, height, width), channels in the model's order",
    )
    parser.add_argument("--cfg", help="YAML file of the model, for weights without a configuration")
    parser.add_argument("--logits", help=".npy file to write the logits of each clip to")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines of text")
    parser.add_argument("--top", type=_count, default=5, help="number of classes to print")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        choices=["cpu", "cuda"],
    )
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)
