"""Features with all that is needed to use them, as .npz or safetensors files."""

from __future__ import annotations

import json
import math
import os
import struct
import tempfile
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
# How safetensors calls what is in a file of features.
_SAFETENSORS_TYPES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "uint8": "U8",
}
_BLOCK_BYTES = 2**26  # written at once


@dataclass(frozen=True)
class Features:
    """Features of the clips of a list; C clips, those of lost videos left out.

    Attributes:
        features: (C, D) float32, or (C, n, D) float16 of tokens.
        rows: (C,) int64, row of the list that each clip is of.
        views: (C,) int64, which of the row's clips each is.
        times: (C, 2) float64, seconds of the video at which its first and last frame appear.
        labels: (C,) int64, or None.
        paths: of all rows of the list, the lost ones included.
        class_names: by number; empty where there are none.
        facts: what the features stand on: list and hash, checkpoint and hash, model, views, the
            versions of decoders, when they were made, how many videos were lost.
    """

    features: Tensor | FeatureRows
    rows: Tensor
    views: Tensor
    times: Tensor
    labels: Tensor | None
    paths: Sequence[str]
    class_names: Sequence[str]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)


def save_features(path: str | os.PathLike[str], features: Features) -> Path:
    """Write a file that is there whole or not at all.

    All of it are arrays, by the same names in both kinds of file. Texts are their UTF-8 bytes:
    `paths` one after the other, `path_ends` (videos,) int64 where each ends; `class_names` and
    `facts` as JSON. Features are read and written a block at a time.

    Args:
        path: ends in .npz or .safetensors; the folder is made if need be.
        features: what to write.

    Returns:
        The path.

    Raises:
        ValueError: another ending.
        OSError: the disk is full or the folder cannot be written.
    """
    target = check_suffix(path)
    arrays = _arrays(features)
    write = _write_npz if target.suffix == ".npz" else _write_safetensors
    with atomic_write(target) as temporary, open(temporary, "wb") as file:
        write(file, arrays)
    return target


def load_features(path: str | os.PathLike[str]) -> Features:
    """Read what `save_features` wrote, into memory.

    Raises:
        ValueError: it is no such file, or damaged.
        OSError: it is not there or cannot be read.
    """
    source = check_suffix(path)
    read = _read_npz if source.suffix == ".npz" else _read_safetensors
    try:
        tensors = read(source)
        return Features(
            **{name: tensors.get(name) for name in _TENSORS},  # type: ignore[arg-type]
            **{name: json.loads(tensors[name].numpy().tobytes()) for name in _JSON},
            paths=_cut(tensors["paths"].numpy().tobytes(), tensors["path_ends"].tolist()),
        )
    except (KeyError, ValueError, zipfile.BadZipFile, SafetensorError, EOFError) as error:
        raise ValueError(
            f"{source} is no complete file of features ({first_line(error)})"
        ) from error


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path.

    Raises:
        ValueError: it ends in neither .npz nor .safetensors.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: features are files that end in {' or '.join(SUFFIXES)}")
    return target


def check_writable(path: str | os.PathLike[str]) -> None:
    """See that `save_features` can write a file; the folder is made if need be.

    Raises:
        ValueError: another ending, a folder of that name, or the system lets nothing be written
            there.
    """
    target = check_suffix(path)
    if target.is_dir():
        raise ValueError(f"{target}: a file is to be written, but it is a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ValueError(f"{target} can't be written: {error.strerror or error}") from error


def _arrays(features: Features) -> dict[str, NDArray[np.generic] | FeatureRows]:
    """By name; the widest types first, which keeps safetensors aligned."""
    encoded = [path.encode("utf-8", "surrogateescape") for path in features.paths]
    ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
    found: dict[str, NDArray[np.generic] | FeatureRows] = {"path_ends": ends}
    for name in reversed(_TENSORS):
        value = getattr(features, name)
        if value is not None:
            found[name] = value.numpy() if isinstance(value, Tensor) else value
    found["paths"] = np.frombuffer(b"".join(encoded), np.uint8)
    for name in _JSON:
        value = getattr(features, name)
        text = json.dumps(list(value) if isinstance(value, tuple) else value)
        found[name] = np.frombuffer(text.encode(), np.uint8)
    return found


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
    # Its own `save` wants everything in memory. The format is a length, a header of JSON that is
    # padded to 8 bytes, and the arrays: https://huggingface.co/docs/safetensors.
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
    """The bytes of an array, those of some rows at a time."""
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


def _cut(text: bytes, ends: Sequence[int]) -> list[str]:
    begins = [0, *ends[:-1]]
    return [
        text[begin:end].decode("utf-8", "surrogateescape")
        for begin, end in zip(begins, ends, strict=False)
    ]
