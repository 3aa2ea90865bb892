"""Write checkpoints atomically, and read them without running code from them."""

from __future__ import annotations

import argparse
import errno
import os
import pickle
import pickletools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints import safetensors_file
from slowfast_maskfeat.checkpoints.content import check_content
from slowfast_maskfeat.checkpoints.integrity import (
    DamagedError,
    raise_nonfinite,
    verify_records,
)
from slowfast_maskfeat.disk import make_folder
from slowfast_maskfeat.files import PART_SUFFIX, atomic_write, kind_of_file
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut, quoted

SUFFIX = ".pyth"
_SUFFIXES = (SUFFIX, ".pth", ".pt", safetensors_file.SUFFIX)
_NAME = re.compile(r"(?:(.+)_)?checkpoint_epoch_(\d{5,})(?:_step_(\d{7,}))?" + re.escape(SUFFIX))
_PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype)

# Whole training files of DINO, iBOT and others have their command line in it. It holds values of
# the types that are read anyway, and runs no code.
torch.serialization.add_safe_globals([argparse.Namespace])


class _Name(NamedTuple):
    """Parts of the name of a checkpoint, in the order in which checkpoints are sorted."""

    epoch: int
    step: int
    task: str


def _parse(path: Path) -> _Name | None:
    """Parse a name that `checkpoint_path` made; None for any other."""
    match = _NAME.fullmatch(path.name)
    return _Name(int(match[2]), int(match[3] or 0), match[1] or "") if match else None


def _named(folder: str | os.PathLike[str]) -> list[tuple[_Name, Path]]:
    """List the checkpoints of a folder, which need not exist, oldest first."""
    paths = Path(folder).iterdir() if Path(folder).is_dir() else ()
    return sorted((name, path) for path in paths if (name := _parse(path)))


def checkpoint_folder(run: str | os.PathLike[str]) -> Path:
    """Folder of the checkpoints in the folder of a run, `OUTPUT_DIR`."""
    return Path(run) / "checkpoints"


def folder_of_run(checkpoint: str | os.PathLike[str]) -> Path:
    """Folder of the run that wrote a checkpoint; the checkpoint's own folder if it was moved."""
    folder = Path(checkpoint).parent
    return folder.parent if folder == checkpoint_folder(folder.parent) else folder


def checkpoint_path(
    folder: str | os.PathLike[str], *, prefix: str = "", epoch: int, step: int = 0
) -> Path:
    """Path of a checkpoint, named as by PySlowFast.

    Args:
        folder: `OUTPUT_DIR/checkpoints`.
        prefix: `TASK`, such as `ssl`; empty for none.
        epoch: finished epochs.
        step: steps done in the current epoch; 0 at the end of an epoch.

    Returns:
        `{prefix_}checkpoint_epoch_00003.pyth` or `..._epoch_00003_step_0000120.pyth`.
    """
    within = f"_step_{step:07d}" if step else ""
    return Path(folder) / f"{_stem(prefix)}_epoch_{epoch:05d}{within}{SUFFIX}"


def best_path(folder: str | os.PathLike[str], *, prefix: str = "") -> Path:
    """Path of the best checkpoint of one task (`TRAIN.KEEP_BEST`), which stays.

    Args:
        folder: `OUTPUT_DIR/checkpoints`.
        prefix: `TASK`, such as `ssl`; empty for none.

    Returns:
        `{prefix_}checkpoint_best.pyth`; `find_checkpoints` does not list it.
    """
    return Path(folder) / f"{_stem(prefix)}_best{SUFFIX}"


def _stem(prefix: str) -> str:
    return f"{prefix}_checkpoint" if prefix else "checkpoint"


def find_checkpoints(folder: str | os.PathLike[str], prefix: str = "") -> list[Path]:
    """List the checkpoints of one task in a folder, oldest first.

    Args:
        folder: folder to search; it need not exist.
        prefix: the exact `TASK`: neither `ssl` nor "" finds those of `ssl_eval`.

    Returns:
        Paths in the order of (epoch, step).
    """
    return [path for name, path in _named(folder) if name.task == prefix]


def find_tasks(folder: str | os.PathLike[str]) -> list[str]:
    """List the tasks (`TASK`) that have checkpoints in a folder, which need not exist."""
    return sorted({name.task for name, _ in _named(folder)})


def keep_last(folder: str | os.PathLike[str], prefix: str, n: int) -> list[Path]:
    """Delete all but the newest checkpoints of one task.

    Args:
        folder: folder of the checkpoints.
        prefix: the exact `TASK`.
        n: number of checkpoints to keep (`TRAIN.KEEP_CHECKPOINTS`); 0 keeps all.

    Returns:
        The deleted paths.

    Raises:
        ValueError: if `n` is negative.
    """
    if n < 0:
        raise ValueError(f"TRAIN.KEEP_CHECKPOINTS must be >= 0 (0 keeps all), got {n}")
    removed = find_checkpoints(folder, prefix)[:-n] if n else []
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def save_checkpoint(path: str | os.PathLike[str], payload: Mapping[str, Any]) -> Path:
    """Write a checkpoint atomically.

    It is written to a hidden temporary file in the same folder, flushed to disk and then renamed.
    Temporary files left behind by killed saves of the same task are deleted.

    Args:
        path: output file; its folder is created if needed.
        payload: tensors, plain numbers, strings, bytes and None in dicts, lists, tuples and sets:
            the types that `load_checkpoint` reads without trusting the file.

    Returns:
        The path.

    Raises:
        TypeError: if the payload contains another type; the message says where.
        ValueError: if weights in it are not finite; older files are then unchanged.
        OSError: if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    _check_plain(payload, "payload")
    raise_nonfinite(payload, path)
    make_folder(path.parent)
    _remove_leftovers(path)
    with atomic_write(path) as temporary:
        _write(temporary, payload)
    return path


def _write(path: Path, payload: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:  # given a path, torch would write its name into the file
        try:
            torch.save(dict(payload), file)
        except RuntimeError as error:
            # After a failed write torch raises an error of its own about the number of bytes.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def _remove_leftovers(path: Path) -> None:
    stem = re.split(r"\d{5,}", path.name, maxsplit=1)[0]
    for leftover in path.parent.iterdir():
        name = leftover.name
        if name.startswith(f".{stem}") and name.endswith(f"{SUFFIX}{PART_SUFFIX}"):
            leftover.unlink(missing_ok=True)


def _check_plain(value: Any, where: str) -> None:
    # Exact types: NumPy's float64 is a subclass of float, but its pickle needs NumPy's code.
    if isinstance(value, Tensor) or type(value) in _PLAIN_TYPES:
        return
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{quoted(key)}]")
        return
    if type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
        return
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be read "
        "back safely; convert it to tensors, plain numbers, strings, lists and dicts"
    )


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint on the CPU without running code from it.

    Args:
        path: a file of this package or of PySlowFast, any dict written by `torch.save`, or a
            safetensors file.

    Returns:
        The dict; of a safetensors file, that of `read_safetensors`. The options of a command line
        (`argparse.Namespace`) are a dict.

    Raises:
        ValueError: if the file is missing, unreadable, not a checkpoint, damaged, split into
            several files, or needs code of its own, or its parts are of wrong types; the message
            says what to do, and names the newest undamaged checkpoint before a damaged one.
    """
    path = Path(path)
    _require_file(path)
    try:
        content = _read(path)
    except DamagedError as error:
        before = newest_undamaged_before(path)
        hint = f"; the newest undamaged checkpoint before it is {before}: {_USE}" if before else ""
        raise DamagedError(f"{error}{hint}") from error
    check_content(content, path)
    return content


_USE = "use that one, or move the damaged file out of the folder to resume from that one"


def newest_undamaged_before(path: Path) -> Path | None:
    """Find the checkpoint of the same task to use instead of a damaged one.

    Args:
        path: a checkpoint named as by `checkpoint_path`.

    Returns:
        The newest older one in its folder whose checksums match; None if there is none.
    """
    own = _parse(path)
    if own is None:
        return None
    for name, other in reversed(_named(path.parent)):
        if name.task == own.task and name < own and _is_undamaged(other):
            return other
    return None


def _is_undamaged(path: Path) -> bool:
    try:
        _require_file(path)
        with open(path, "rb") as file:
            if not file.read(1):
                return False
            file.seek(0)
            verify_records(file)
    except Exception:  # whatever `zipfile` raises on damaged bytes
        return False
    return True


def _require_file(path: Path) -> None:
    """Refuse a path that is not one of a regular file, without opening it.

    Raises:
        ValueError: if there is none or it is something else, such as a FIFO, which would wait.
    """
    try:
        kind = kind_of_file(path)
        there = "" if kind else _what_is_there(path)
    except OSError as error:
        raise ValueError(
            f"the checkpoint {cut(str(path))} cannot be read: {error.strerror}"
        ) from error
    if not kind:
        raise ValueError(f"there is no checkpoint at {path}; {there}")
    if kind != "file":
        raise ValueError(f"the path of a checkpoint must be that of a file, but {path} is a {kind}")
    if path.suffix == ".json":
        raise ValueError(
            f"{path} is the index of a checkpoint in several files, which is not supported; use "
            "one file with all weights"
        )


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == safetensors_file.SUFFIX:
        return safetensors_file.read_safetensors(path)
    try:
        with open(path, "rb") as file:
            verify_records(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except DamagedError as error:
        raise DamagedError(f"{path} is damaged: {error}; download or write it again") from error
    except Exception as error:  # on bytes that are not a pickle, torch's reader can raise anything
        raise _explained(path, error) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must hold a dict with 'model_state', or of names and tensors, got a "
            f"{type(content).__name__}"
        )
    return {
        name: vars(value) if isinstance(value, argparse.Namespace) else value
        for name, value in content.items()
    }


def _what_is_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    others = sorted(p.name for p in path.parent.iterdir() if p.suffix in _SUFFIXES)
    if not others:
        return f"{path.parent} contains no checkpoints"
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"{path.parent} contains {', '.join(others[:5])}{more}"


def _explained(path: Path, error: Exception) -> ValueError:
    """The error for a file that torch could not read, which says why and what to do."""
    # In a truncated zip file torch seeks to a position before its beginning, which gives EINVAL.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return ValueError(f"the checkpoint {path} cannot be read: {error.strerror}")
    code = re.search(r"(?:Unsupported global: )?GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and (code or "class" in str(error)):
        need = f"needs the code of {cut(code[1])}" if code else "needs code of its own"
        return ValueError(f"{path} {need} to be read, {_rewriting(path)}")
    if _is_plain_pickle(path):
        return ValueError(
            f"{path} is a plain pickle, not a file written by torch.save, {_rewriting(path)}"
        )
    if isinstance(error, pickle.UnpicklingError):
        # torch's own message suggests reading the file without that protection.
        return DamagedError(f"{path} is not a checkpoint: it was not written by torch.save")
    return DamagedError(
        f"{path} is not a complete checkpoint ({cut(first_line(error))}); if it is truncated, "
        "download or write it again"
    )


def _is_plain_pickle(path: Path) -> bool:
    """Whether a file is a single pickle; it is parsed without running anything in it."""
    try:
        with open(path, "rb") as file:
            for _ in pickletools.genops(file):
                pass
            return not file.read(1)
    except Exception:  # on bytes that are not a pickle, pickletools can raise anything
        return False


def _rewriting(path: Path) -> str:
    """Say how to convert a file that runs code into one that does not, in a sandbox."""
    folder = path.parent.resolve() / "rewritten"
    copy = folder / f"{path.stem}{SUFFIX}"
    source, box, target = (shlex.quote(str(p)) for p in (path.resolve(), folder, copy))
    return (
        "and reading such a file may run any code its author put into it. If you trust it, rewrite "
        "it once in a sandbox without network (INSTALL.md, 'Old checkpoints'), and "
        f"load {target}: mkdir -p {box} && bwrap --unshare-all --new-session --ro-bind / / "
        f"--dev /dev --proc /proc --bind {box} {box} python -m slowfast_maskfeat rewrite "
        f"--checkpoint {source} --output {target}"
    )
