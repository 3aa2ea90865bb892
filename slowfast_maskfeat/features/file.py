"""Feature files, .npz or safetensors: features with labels, paths and how they were extracted."""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slowfast_maskfeat.features.rows import FeatureRows
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import first_line

SUFFIXES = (".npz", ".safetensors")
_TENSORS = ("features", "rows", "views", "times", "labels")
_JSON = ("class_names", "facts")
# NumPy dtype -> dtype name in a safetensors header.
_SAFETENSORS_TYPES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "uint8": "U8",
}
_BLOCK_BYTES = 2**26  # bytes read and written at a time


@dataclass(frozen=True)
class Features:
    """Features of the C clips of a split, without clips of lost videos.

    Attributes:
        features: (C, D) float32, or (C, n, D) float16 for tokens.
        rows: (C,) int64, sample index of each clip.
        views: (C,) int64, view of the sample that each clip is.
        times: (C, 2) float64, timestamps in seconds of the clip's first and last frame.
        labels: (C,) int64, or None.
        paths: paths of all samples, including lost ones.
        class_names: class names by label; empty if there are none.
        facts: metadata: annotation file and hash, checkpoint and hash, model, views, decoder
            versions, date of extraction, number of lost videos.
        written: folder into which they were extracted; None if they were read from a file.
    """

    features: Tensor | FeatureRows
    rows: Tensor
    views: Tensor
    times: Tensor
    labels: Tensor | None
    paths: Sequence[str]
    class_names: Sequence[str]
    facts: dict[str, Any]
    written: Path | None = None

    def __len__(self) -> int:
        return len(self.features)


def save_features(path: str | os.PathLike[str], features: Features) -> Path:
    """Write features to a file atomically.

    Everything is stored as arrays, under the same names in both formats. Text is stored as UTF-8
    bytes: `paths` are concatenated, and `path_ends` (samples,) int64 has the end of each;
    `class_names` and `facts` are JSON. Features are read and written a block at a time.

    Args:
        path: output file ending in .npz or .safetensors; its folder is created.
        features: features to write.

    Returns:
        The path.

    Raises:
        ValueError: the path has another suffix.
        OSError: the disk is full or the folder can't be written.
    """
    target = check_suffix(path)
    arrays = _arrays(features)
    write = _write_npz if target.suffix == ".npz" else _write_safetensors
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        write(file, arrays)
    return target


def load_features(path: str | os.PathLike[str]) -> Features:
    """Read a file of `save_features` into memory.

    Raises:
        ValueError: the file is damaged or not a feature file.
        OSError: the file does not exist or can't be read.
    """
    source = check_suffix(path)
    read = _read_npz if source.suffix == ".npz" else _read_safetensors
    try:
        tensors = read(source)
        return Features(
            **{name: tensors.get(name) for name in _TENSORS},  # type: ignore[arg-type]
            **{name: json.loads(tensors[name].numpy().tobytes()) for name in _JSON},
            paths=_split_text(tensors["paths"].numpy().tobytes(), tensors["path_ends"].tolist()),
        )
    except (KeyError, ValueError, zipfile.BadZipFile, SafetensorError, EOFError) as error:
        raise ValueError(f"{source} is not a complete feature file: {first_line(error)}") from error


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """Check the suffix of a feature file and return its path.

    Raises:
        ValueError: the path ends in neither .npz nor .safetensors.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"feature file must end in {' or '.join(SUFFIXES)}, got {target}")
    return target


def _arrays(features: Features) -> dict[str, NDArray[np.generic] | FeatureRows]:
    """Name -> array of a feature file; the widest types first, which keeps safetensors aligned."""
    encoded = [path.encode("utf-8", "surrogateescape") for path in features.paths]
    ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
    arrays: dict[str, NDArray[np.generic] | FeatureRows] = {"path_ends": ends}
    for name in reversed(_TENSORS):
        value = getattr(features, name)
        if value is not None:
            arrays[name] = value.numpy() if isinstance(value, Tensor) else value
    arrays["paths"] = np.frombuffer(b"".join(encoded), np.uint8)
    for name in _JSON:
        value = getattr(features, name)
        text = json.dumps(list(value) if isinstance(value, tuple) else value)
        arrays[name] = np.frombuffer(text.encode(), np.uint8)
    return arrays


def _write_npz(file: IO[bytes], arrays: dict[str, NDArray[np.generic] | FeatureRows]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, value in arrays.items():
            header = {
                "descr": np.lib.format.dtype_to_descr(value.dtype),
                "fortran_order": False,
                "shape": value.shape,
            }
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                for block in _blocks(value):
                    entry.write(block)


def _write_safetensors(
    file: IO[bytes], arrays: dict[str, NDArray[np.generic] | FeatureRows]
) -> None:
    # safetensors' own `save` needs everything in memory. The format is the header's length, a JSON
    # header padded to 8 bytes, and the arrays: https://huggingface.co/docs/safetensors.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in arrays.items():
        begin, end = end, end + math.prod(value.shape) * value.dtype.itemsize
        kind = _SAFETENSORS_TYPES[value.dtype.name]
        header[name] = {"dtype": kind, "shape": value.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for value in arrays.values():
        for block in _blocks(value):
            file.write(block)


def _blocks(value: NDArray[np.generic] | FeatureRows) -> Iterator[bytes]:
    """Yield the bytes of an array, about `_BLOCK_BYTES` at a time."""
    row_bytes = math.prod(value.shape[1:]) * value.dtype.itemsize
    step = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    for start in range(0, len(value), step):
        yield np.asarray(value[start : start + step]).tobytes()


def _read_npz(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _split_text(text: bytes, ends: Sequence[int]) -> list[str]:
    starts = [0, *ends[:-1]]
    return [
        text[start:end].decode("utf-8", "surrogateescape")
        for start, end in zip(starts, ends, strict=False)
    ]
