"""Numbers, pictures and configuration of an offline wandb run, read from its transaction log."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from helpers.tiny_run import wait_for

_BLOCK, _PREFIX = 32768, 7  # bytes; each block has records, each with checksum, length and kind
_FULL, _LAST = 1, 4


class OfflineRun(NamedTuple):
    """A run: its facts, its configuration, and the rows of its history in their order."""

    run_id: str
    project: str
    name: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    step_metric: str
    exit_code: int | None
    files: list[Path]

    def values(self, name: str) -> list[tuple[int, Any]]:
        """The steps and values of a metric."""
        return [(row["step"], row[name]) for row in self.history if name in row]


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Read the ended runs in a folder `wandb` in the order of their starts."""
    runs: list[OfflineRun] = []

    def are_written() -> bool:  # by a process of wandb's, which may be a little behind
        runs[:] = [_read(path) for path in sorted(folder.glob("offline-run-*/*.wandb"))]
        return bool(runs) and all(run.exit_code is not None for run in runs)

    wait_for(are_written, seconds=30)
    return runs


def _read(path: Path) -> OfflineRun:
    from wandb.proto import wandb_internal_pb2

    facts: dict[str, Any] = {"run_id": "", "project": "", "name": "", "exit_code": None}
    config: dict[str, Any] = {}
    history, step_metric = [], ""
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(content)
        if record.HasField("run"):
            run = record.run
            facts |= {"run_id": run.run_id, "project": run.project, "name": run.display_name}
            config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif record.HasField("history"):
            row = {i.key or i.nested_key[0]: i.value_json for i in record.history.item}
            history.append({key: json.loads(value) for key, value in row.items()})
        elif record.HasField("metric"):
            step_metric = record.metric.step_metric or step_metric
        elif record.HasField("exit"):
            facts["exit_code"] = record.exit.exit_code
    files = sorted(p for p in (path.parent / "files").rglob("*") if p.is_file())
    return OfflineRun(**facts, config=config, history=history, step_metric=step_metric, files=files)


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a file in the log format of LevelDB, after a header of seven bytes."""
    assert content.startswith(b":W&B")
    place, whole = 7, b""
    while place + _PREFIX <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _PREFIX:
            place += left  # padding
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + _PREFIX : place + _PREFIX + length]
        place += _PREFIX + length
        if kind in (_FULL, _LAST):
            yield whole
            whole = b""
