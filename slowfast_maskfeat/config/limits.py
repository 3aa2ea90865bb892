"""Limits of numbers in a configuration, which may come from a file of anyone.

They are far above every published model, and keep a checkpoint from the internet from allocating
any amount of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LARGEST_INTEGER = 2**63 - 1
_LARGEST_FLOAT = 3.4e38  # of float32
_MOST_PIXELS = 2**30  # of a clip

_AT_MOST = {
    "AUG.NUM_SAMPLE": 1000,
    "AUG.RE_COUNT": 1000,
    "CONTRASTIVE.BOTTLENECK_DIM": 2**20,
    "CONTRASTIVE.DIM": 2**24,
    "CONTRASTIVE.MLP_DIM": 2**20,
    "CONTRASTIVE.NUM_MLP_LAYERS": 1000,
    "CONTRASTIVE.PATCH_DIM": 2**24,
    "CONTRASTIVE.PREDICTOR_DEPTHS": 1000,
    "DATA.SAMPLING_RATE": 100_000,
    "DATA.SSL_LOCAL_VIEWS": 1000,
    "DATA.TRAIN_CROP_NUM_SPATIAL": 1000,
    "DATA.TRAIN_CROP_NUM_TEMPORAL": 1000,
    "DATA.TRAIN_JITTER_SCALES": 2**15,
    "DETECTION.ROI_XFORM_RESOLUTION": 1000,
    "MASK.DECODER_DEPTH": 1000,
    "MASK.HOG_BINS": 1000,
    "MVIT.DEPTH": 1000,
    "TEST.NUM_ENSEMBLE_VIEWS": 10_000,
    "TEST.REPORT_VIDEOS": 1000,
}


def too_large(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Find keys whose numbers are beyond a limit.

    Args:
        values: dotted key -> value.

    Yields:
        Key, what is accepted, and the value.
    """
    for key, value in values.items():
        if any(abs(number) > _LARGEST_INTEGER for number in _numbers(value, int)):
            yield key, "of at most 63 bits", value
        if any(abs(number) > _LARGEST_FLOAT for number in _numbers(value, float)):
            yield key, f"at most {_LARGEST_FLOAT} in size", value
    for key, limit in _AT_MOST.items():
        if any(number > limit for number in _numbers(values[key], (int, float))):
            yield key, f"<= {limit}", values[key]
    num_frames = values["DATA.NUM_FRAMES"]
    for key in ("DATA.TRAIN_CROP_SIZE", "DATA.TEST_CROP_SIZE", "DATA.SSL_LOCAL_CROP_SIZE"):
        if num_frames * values[key] ** 2 > _MOST_PIXELS:
            largest = int((_MOST_PIXELS / num_frames) ** 0.5)
            yield key, f"<= {largest} with DATA.NUM_FRAMES {num_frames}", values[key]


def _numbers(value: Any, kind: type | tuple[type, ...]) -> Iterator[Any]:
    """Yield the numbers of a kind in a value, at any depth of lists."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item, kind)
    elif isinstance(value, kind):
        yield value
