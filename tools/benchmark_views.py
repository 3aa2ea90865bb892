"""Cost of the views of a sample against each of its crops alone, for `benchmark_data.py`."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark import exhaust, loader_of
from benchmark_report import Row, take_turns
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from PIL import Image

from slowfast_maskfeat.builders.contrastive_views import contrastive_views
from slowfast_maskfeat.clips import ClipLoader, MultiView, SameFrames, ViewSpec
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import OpenedRow
from slowfast_maskfeat.videos.video import Video

NUM_LOCAL = 4
# Areas, colors, blur and solarization of DINO (main_dino.py of the official code); in time as SVT.
RECIPE = {
    "DATA.TRAIN_JITTER_SCALES_RELATIVE": [0.4, 1.0],
    "DATA.SSL_COLOR_JITTER": True,
    "DATA.SSL_COLOR_BRI_CON_SAT": [0.4, 0.4, 0.2],
    "DATA.COLOR_RND_GRAYSCALE": 0.2,
    "DATA.SSL_MOCOV2_AUG": True,
    "DATA.SSL_BLUR_PROB": [1.0, 0.1, 0.5],
    "DATA.SSL_SOLARIZE_PROB": [0.0, 0.2, 0.0],
    "DATA.SSL_LOCAL_VIEWS": NUM_LOCAL,
}
_IMAGES = {"DATA.NUM_FRAMES": 1, "DATA.TRAIN_CROP_NUM_SPATIAL": 2}
_VIDEOS = {"DATA.TRAIN_CROP_NUM_TEMPORAL": 2, "DATA.SSL_GLOBAL_SPAN": [0.9, 1.0]}


class DecodedVideo(Video):
    """A video whose frames are in memory."""

    backend = "memory"

    def __init__(self, video: Video) -> None:
        super().__init__(
            video.path, timestamps=video.timestamps, fps=video.fps, duration=video.duration
        )
        self._frames = video.frames(range(video.num_frames))

    def _decode(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        return self._frames[indices]

    def close(self) -> None:
        """Keep the frames."""


def write_images(folder: Path, *, num_images: int, size: tuple[int, int]) -> None:
    """Write JPEG files of smooth random colors with grain, and their annotation file `train.csv`.

    Args:
        folder: output folder.
        num_images: number of images.
        size: (height, width) in pixels.
    """
    generator = np.random.default_rng(0)
    height, width = size
    for number in range(num_images):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = generator.integers(-8, 9, smooth.shape)
        picture = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.jpg", quality=90)
    rows = (f"{folder / str(number)}.jpg,0\n" for number in range(num_images))
    (folder / "train.csv").write_text("".join(rows))


def views_config(cfg: CfgNode, *, images: bool) -> CfgNode:
    """Configuration of 2 global and 4 local views, of the clip shape of `cfg`.

    Args:
        cfg: configuration; it is not changed.
        images: clips of one frame.
    """
    data = cfg.DATA
    options: dict[str, object] = {
        "DATA.NUM_FRAMES": data.NUM_FRAMES,
        "DATA.SAMPLING_RATE": data.SAMPLING_RATE,
        "DATA.TRAIN_CROP_SIZE": data.TRAIN_CROP_SIZE,
        "DATA.SSL_LOCAL_CROP_SIZE": round(data.TRAIN_CROP_SIZE * 96 / 224),
        **RECIPE,
        **(_IMAGES if images else _VIDEOS),
    }
    return load_config([], [str(word) for pair in options.items() for word in pair])


def crops_alone(specs: tuple[ViewSpec, ...]) -> list[tuple[ViewSpec, int]]:
    """Each different crop as the only view of a sample, and how many views have it."""
    alone = []
    for spec in specs:
        temporal = spec.temporal
        if isinstance(temporal, SameFrames):
            first = specs[0].temporal
            sampling = temporal.sampling or (
                first.sampling if isinstance(first, SameFrames) else first
            )
            assert sampling is not None
            temporal = sampling
        if spec.colors:
            for view in range(spec.count):
                one = {"augmentation": spec.augmentation_of(view), "colors": ()}
                alone.append((replace(spec, **one, count=1, temporal=temporal), 1))
        else:
            alone.append((replace(spec, count=1, temporal=temporal), spec.count))
    return alone


def measure_views(
    cfg: CfgNode, folder: Path, num_rows: int, repeats: int, *, images: bool
) -> list[dict[str, Any]]:
    """Cost of all views against the sum of their crops alone, in this process.

    Args:
        cfg: from `views_config`.
        folder: folder of `train.csv`.
        num_rows: its rows.
        repeats: timed rounds.
        images: as in `views_config`.

    Returns:
        Records with decoding, where each crop alone decodes for itself, and from decoded frames.
    """
    specs = contrastive_views(cfg)
    counts = {"views": 0, **{f"crop {n}": c for n, (_, c) in enumerate(crops_alone(specs))}}
    views = [specs, *((spec,) for spec, _ in crops_alone(specs))]
    opened = _decoded(loader_of(cfg, folder, num_rows, 0), num_rows)
    records = []
    for is_decoded in (False, True):
        forms: dict[str, Callable[[int], object]] = {}
        for name, kinds in zip(counts, views, strict=True):
            loader = loader_of(cfg, folder, num_rows, 0)
            loader.dataset.views = MultiView(tuple(kinds))
            if is_decoded:
                loader.dataset.open = opened.__getitem__  # type: ignore[method-assign]

            def load(number: int, loader: ClipLoader = loader) -> None:
                exhaust(loader.epoch(number))

            forms[name] = load
        rows = take_turns(forms, repeats, torch.device("cpu"))
        records.append(
            {
                "clips": "images" if images else "videos",
                "decoded_before": is_decoded,
                "samples_per_second": num_rows / statistics.median(rows["views"].values),
                "of_crops": _of_sum(rows, counts, lambda row: row.values),
                "of_crops_cpu_time": _of_sum(rows, counts, lambda row: row.cpu),
            }
        )
    return records


def _decoded(loader: ClipLoader, num_rows: int) -> dict[int, OpenedRow]:
    """Decode all frames of all rows."""
    opened = {}
    for row in range(num_rows):
        with loader.dataset.open(row).video as video:
            opened[row] = OpenedRow(DecodedVideo(video))
    return opened


def _of_sum(
    rows: dict[str, Row], counts: dict[str, int], values: Callable[[Row], list[float]]
) -> float:
    """Cost of all views over the sum of the crops, median over the rounds."""
    ratios = []
    for number, cost in enumerate(values(rows["views"])):
        alone = sum(count * values(rows[name])[number] for name, count in counts.items())
        ratios.append(cost / alone)
    return statistics.median(ratios)
