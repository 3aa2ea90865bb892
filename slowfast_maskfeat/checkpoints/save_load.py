"""Writing and reading checkpoint files, so that no kill leaves a broken one behind."""

from __future__ import annotations

import errno
import os
import pickle
import pickletools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slowfast_maskfeat.checkpoints import safetensors_file
from slowfast_maskfeat.files import PART_SUFFIX, atomic_write
from slowfast_maskfeat.log import first_line

SUFFIX = ".pyth"
_SUFFIXES = (SUFFIX, ".pth", ".pt", safetensors_file.SUFFIX)
_PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype)


def checkpoint_path(
    folder: str | os.PathLike[str], *, prefix: str = "", epoch: int, step: int = 0
) -> Path:
    """Where a checkpoint goes, by the field's naming.

    Args:
        folder: ``OUTPUT_DIR/checkpoints``.
        prefix: ``TASK``, such as ``ssl``; empty for none.
        epoch: Finished epochs.
        step: Steps done in the epoch after those; 0 at an epoch's end.

    Returns:
        ``{prefix_}checkpoint_epoch_00003.pyth`` or ``..._epoch_00003_step_0000120.pyth``.
    """
    within = f"_step_{step:07d}" if step else ""
    return Path(folder) / f"{_stem(prefix)}{epoch:05d}{within}{SUFFIX}"


def _stem(prefix: str) -> str:
    return f"{prefix}_checkpoint_epoch_" if prefix else "checkpoint_epoch_"


def find_checkpoints(folder: str | os.PathLike[str], prefix: str = "") -> list[Path]:
    """The checkpoints of one task in a folder, oldest first.

    Args:
        folder: Where to look; one that does not exist has none.
        prefix: The exact ``TASK``: ``ssl`` does not find those of ``ssl_eval``, nor "" either.

    Returns:
        Paths in the order of (epoch, step).
    """
    pattern = re.compile(
        re.escape(_stem(prefix)) + r"(\d{5,})(?:_step_(\d{7,}))?" + re.escape(SUFFIX)
    )
    found: list[tuple[int, int, Path]] = []
    if not Path(folder).is_dir():
        return []
    for path in Path(folder).iterdir():
        match = pattern.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2] or 0), path))
    return [path for _, _, path in sorted(found)]


def keep_last(folder: str | os.PathLike[str], prefix: str, n: int) -> list[Path]:
    """Delete all but the newest checkpoints of one task.

    Args:
        folder: Where they are.
        prefix: The exact ``TASK``.
        n: How many stay; 0 keeps all.

    Returns:
        The paths deleted.

    Raises:
        ValueError: If ``n`` is negative.
    """
    if n < 0:
        raise ValueError(f"the number of checkpoints to keep is {n}; 0 keeps all of them")
    removed = find_checkpoints(folder, prefix)[:-n] if n else []
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def save_checkpoint(path: str | os.PathLike[str], payload: Mapping[str, Any]) -> Path:
    """Write a checkpoint that is either there as a whole or not at all.

    It goes to a hidden temporary file in the same folder, to the disk, and then takes its name in
    one step. What an earlier, killed save left behind for the same task is deleted.

    Args:
        path: Where it goes; the folder is made if need be.
        payload: Tensors in dicts, lists, tuples and sets with plain numbers, strings, bytes and
            None, which is what :func:`load_checkpoint` reads without trusting the file.

    Returns:
        The path.

    Raises:
        TypeError: If the payload has something else in it; the text says where.
        OSError: If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    _check_plain(payload, "payload")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with atomic_write(path) as temporary:
        _write(temporary, payload)
    return path


def _write(path: Path, payload: Mapping[str, Any]) -> None:
    with open(path, "wb") as file:  # by name, torch would write that name into the file
        try:
            torch.save(dict(payload), file)
        except RuntimeError as error:
            # After a write that failed, torch trips over its own count of the bytes.
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
    # Exact types: a numpy float64 is a float to Python, but its pickle needs numpy's code.
    if isinstance(value, Tensor) or type(value) in _PLAIN_TYPES:
        return
    if isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
        return
    if type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
        return
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which could not be "
        "read back safely; turn it into tensors, plain numbers, strings, lists and dicts"
    )


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint on the CPU without running code from it.

    Args:
        path: A file of this package or of PySlowFast, any dict that ``torch.save`` wrote, or a
            safetensors file.

    Returns:
        The dict; of a safetensors file as ``read_safetensors`` makes it.

    Raises:
        ValueError: If it is not there, not readable, not a checkpoint, one of several parts or
            would need code of its own; the text says what would be right.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no checkpoint at {path}; {_what_is_there(path)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; the path of a file in it is right")
    if path.suffix == ".json":
        raise ValueError(
            f"{path} is the index of a checkpoint in several parts, which are not read; one file "
            "with all weights is right"
        )
    if path.suffix == safetensors_file.SUFFIX:
        return safetensors_file.read_safetensors(path)
    try:
        with open(path, "rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle lead torch's reader to any of them
        raise ValueError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, not a checkpoint; a dict with "
            "'model_state', or of names and tensors, is right"
        )
    return content


def _what_is_there(path: Path) -> str:
    if not path.parent.is_dir():
        return f"nor is there a folder {path.parent}"
    others = sorted(p.name for p in path.parent.iterdir() if p.suffix in _SUFFIXES)
    if not others:
        return f"{path.parent} holds none"
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"{path.parent} has {', '.join(others[:5])}{more}"


def _explain(path: Path, error: Exception) -> str:
    """What is the matter with a file that torch could not read, and what would be right."""
    # Of a zip file whose end is missing, torch looks for that end before the beginning.
    if isinstance(error, OSError) and error.errno != errno.EINVAL:
        return f"the checkpoint {path} cannot be read: {error.strerror}"
    wanted = re.search(r"(?:Unsupported global: )?GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and (wanted or "class" in str(error)):
        need = f"needs the code of {wanted[1]}" if wanted else "needs code of its own"
        return f"{path} {need} to be read, {_rewriting(path)}"
    if _is_plain_pickle(path):
        return f"{path} is a plain pickle, not what torch.save writes, {_rewriting(path)}"
    if isinstance(error, pickle.UnpicklingError):
        # torch's own text would advise to read it without care.
        return f"{path} is not a checkpoint; a file that torch.save wrote is right"
    return (
        f"{path} is not a complete checkpoint ({first_line(error)}); the file may be cut off: "
        "fetch or write it again"
    )


def _is_plain_pickle(path: Path) -> bool:
    """Whether a file is one pickle from end to end; it is taken apart, nothing of it is run."""
    try:
        with open(path, "rb") as file:
            for _ in pickletools.genops(file):
                pass
            return not file.read(1)
    except Exception:  # whatever bytes that are no pickle lead to
        return False


def _rewriting(path: Path) -> str:
    """How to make a file that runs code into one that does not, where that can do no harm."""
    folder = path.parent.resolve() / "rewritten"
    copy = folder / f"{path.stem}{SUFFIX}"
    source, box, target = (shlex.quote(str(p)) for p in (path.resolve(), folder, copy))
    return (
        "and reading such a file may run anything its author put in. If you trust it, rewrite it "
        "once where there is no network and nothing to lose (INSTALL.md, 'Old checkpoints'), and "
        f"load {target}: mkdir -p {box} && bwrap --unshare-all --new-session --ro-bind / / "
        f"--dev /dev --proc /proc --bind {box} {box} python tools/rewrite_checkpoint.py "
        f"--input {source} --output {target}"
    )
