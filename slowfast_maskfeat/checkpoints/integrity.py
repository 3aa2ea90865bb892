"""Detection of damaged checkpoints, by the checksums in the files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints.report import shorten
from slowfast_maskfeat.text import cut

_ZIP_START = b"PK\x03\x04"
_STATES = ("model_state", "task_state")
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class DamagedError(ValueError):
    """A checkpoint whose content differs from what was written, or is not complete."""


def verify_records(file: BinaryIO) -> None:
    """Compare the records of a file of `torch.save` with their CRC-32 checksums.

    `torch.load` does not. Files without checksums pass: those of torch before 1.6, and those of
    `torch.serialization.set_crc32_options(False)`, whose checksums are all 0.

    Args:
        file: the open file; its position is at the beginning again afterwards.

    Raises:
        DamagedError: if a record is damaged, or compressed, which torch does not do and which can
            exceed the memory.
        Exception: if the list of records is damaged, whatever `zipfile` raises.
    """
    is_zip = file.read(len(_ZIP_START)) == _ZIP_START
    file.seek(0)
    if not is_zip:
        return
    try:
        with zipfile.ZipFile(file) as archive:
            _verify(archive, file.seek(0, 2))
    finally:
        file.seek(0)


def _verify(archive: zipfile.ZipFile, file_size: int) -> None:
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise DamagedError("its records are compressed, which torch.save does not do")
    if sum(record.file_size for record in records) > file_size:
        raise DamagedError("its records have more bytes than the file")
    if not any(record.CRC for record in records):
        return
    name = archive.testzip()
    if name is not None:
        raise DamagedError(f"its record {cut(name)!r} does not match its checksum")


def nonfinite_weights(payload: Mapping[str, Any]) -> list[str]:
    """Names of the weights in a checkpoint that have an infinity or NaN.

    These are the weights of the model, of the task and of their average. The state of an optimizer
    does not count: its second moments may overflow to infinity without harm.

    Args:
        payload: content of a checkpoint.
    """
    states = [payload.get(key) for key in _STATES]
    average = payload.get("average_state")
    states.append(average.get("weights") if isinstance(average, Mapping) else None)
    found: dict[str, None] = {}
    for state in states:
        if isinstance(state, Mapping):
            found.update(dict.fromkeys(_nonfinite(state.items())))
    return list(found)


def raise_nonfinite(payload: Mapping[str, Any], path: Path) -> None:
    """Refuse to write weights that are not finite.

    Args:
        payload: content of a checkpoint.
        path: the file to be written.

    Raises:
        ValueError: if `nonfinite_weights` finds some.
    """
    names = nonfinite_weights(payload)
    if names:
        raise ValueError(
            f"the weights must be finite to be saved, got infinity or NaN in {shorten(names)}: "
            f"{path} was not written, and older files are unchanged; if a training has diverged, "
            "start it again from its last checkpoint with a lower SOLVER.BASE_LR"
        )


def other_kind(value: Tensor) -> str:
    """Return the dtype or layout that keeps a tensor from being loaded; "" for dense floats."""
    if value.is_nested:
        return "nested tensors"
    other = value.dtype if value.dtype not in _NUMBERS else value.layout
    return "" if other is torch.strided else str(other).removeprefix("torch.")


def _nonfinite(weights: Iterable[tuple[Any, Any]]) -> list[str]:
    floats = [
        (str(name), value.detach())
        for name, value in weights
        if isinstance(value, Tensor) and not other_kind(value)  # others are never loaded
    ]
    if not floats:
        return []
    device = floats[0][1].device
    finite = torch.stack([torch.isfinite(value).all().to(device) for _, value in floats])
    return [name for (name, _), fine in zip(floats, finite.tolist(), strict=True) if not fine]
