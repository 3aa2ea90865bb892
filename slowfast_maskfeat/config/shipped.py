"""The configuration files that come with the package, found by name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path, PurePath

_SUFFIX = ".yaml"


def shipped_folder() -> Path:
    """Return the folder `configs`: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def is_shipped(name: str) -> bool:
    """Whether a name, such as `k400_VIT_B_16x4_FT` or `demo/pretrain`, is of a shipped file."""
    return bool(_named(name))


def shipped_file(name: str, key: str) -> str:
    """Find a configuration file by its path, or one in `configs/` by its name.

    Args:
        name: path; or the name of a file in `configs/`, with or without folder and suffix.
        key: that has the name, for messages.

    Raises:
        ValueError: there is no such file; the message lists the networks in `configs/teachers/`
            and similar names in `configs/`.
    """
    file = find_shipped(name)
    if not os.path.isfile(file):
        known = ", ".join(sorted(path.stem for path in shipped_folder().glob("teachers/*.yaml")))
        raise ValueError(
            f"{key} must be a YAML file or the name of one in configs/ ({known}), got {name!r}"
            f"{nearest_shipped(name)}"
        )
    return file


def find_shipped(name: str) -> str:
    """Return the path of the shipped file of a name; the name itself if it is not one's.

    Args:
        name: path, or name of a file in `configs/`; a file that exists is itself.

    Raises:
        ValueError: several files have the name.
    """
    return name if os.path.isfile(name) else shipped_path(name) or name


def shipped_path(name: str) -> str:
    """Return the path of the shipped file of a name, whatever the current folder has; or "".

    Raises:
        ValueError: several files have the name.
    """
    found = _named(name)
    if len(found) > 1:
        names = " or ".join(f"{path.parent.name}/{path.stem}" for path in found)
        raise ValueError(f"{name} is the name of several configurations: {names}")
    return str(found[0]) if found else ""


def nearest_shipped(name: str) -> str:
    """A hint at the names in `configs/` most similar to `name`; empty if there is none."""
    names = {path.stem for path in shipped_folder().glob(f"*/*{_SUFFIX}")}
    names = {stem for stem in names if not stem.startswith("_")}
    near = difflib.get_close_matches(Path(name).name.removesuffix(_SUFFIX), sorted(names), n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _named(name: str) -> list[Path]:
    """Files in `configs/` of a name such as `a`, `a.yaml`, `demo/a` or `configs/demo/a.yaml`."""
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        return []
    parts = path.parts[1:] if path.parts[0] == "configs" else path.parts
    file = parts[-1] if parts[-1].endswith(_SUFFIX) else parts[-1] + _SUFFIX
    folders = {folder.name: folder for folder in shipped_folder().iterdir() if folder.is_dir()}
    if len(parts) == 1:
        paths = [folder / file for folder in folders.values()]
    else:
        first = folders.get(parts[0])
        paths = [] if first is None else [first.joinpath(*parts[1:-1], file)]
    return sorted(path for path in paths if os.path.isfile(path))  # also for a name too long
