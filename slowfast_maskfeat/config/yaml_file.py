"""Read YAML files with their `_BASE_`, the line of a mistake, and what stands in them twice."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping
from typing import Any

import yaml
from iopath.common.file_io import g_pathmgr

# What PyYAML says of a line that is indented too far, or not far enough.
_INDENTATION = ("mapping values are not allowed", "expected <block end>", "could not find expected")


def read_yaml(file: str) -> tuple[dict[str, Any], list[str]]:
    """The content of a file over that of the files it names under `_BASE_`.

    Args:
        file: a path, or what iopath opens. `_BASE_` has one path or a list of which later ones
            win, relative to the file that names them, as fvcore reads it.

    Returns:
        The merged content, and a sentence for each key that one file gives twice.

    Raises:
        ValueError: the file or a base is missing, is no YAML (with the line), or no mapping.
    """
    if not g_pathmgr.isfile(file):
        raise ValueError(f"{file}: there is no such configuration file")
    return _read(file, ())


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """The content of YAML without `_BASE_`.

    Args:
        text: YAML; empty for no content.
        source: where it comes from, for messages.

    Returns:
        The content, in which the last of two equal keys wins, and a sentence for each key that is
        given twice with different values.

    Raises:
        ValueError: it is no YAML (with the line), or no mapping.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        twice: dict[str, str] = {}
        _find_twice(loader, node, source, "", twice)
        content = loader.construct_document(node) if node is not None else {}
    except yaml.YAMLError as error:
        raise ValueError(_explain(error, text, source)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{source}: a mapping of sections and keys is wanted")
    return content, list(twice.values())


def _read(file: str, above: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    if file in above:
        raise ValueError(f"{file}: its _BASE_ can't be read: it leads back to the file itself")
    if above and not g_pathmgr.isfile(file):
        raise ValueError(f"{above[-1]}: its _BASE_ can't be read: there is no {file}")
    try:
        with g_pathmgr.open(file) as opened:
            text = opened.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not valid YAML: it is no text ({error})") from error
    content, twice = parse_yaml(text, file)
    bases = content.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{file}: _BASE_: {bases!r}: a path or a list of paths is wanted")
    merged: dict[str, Any] = {}
    for base in bases:
        below, below_twice = _read(_beside(file, base), (*above, file))
        _lay_over(merged, below, file)
        twice = below_twice + twice
    _lay_over(merged, content, file)
    return merged, twice


def _beside(file: str, base: str) -> str:
    """The path of a base: relative ones start at the folder of the file."""
    base = os.path.expanduser(base)
    if "://" in base or os.path.isabs(base):
        return base
    return os.path.normpath(os.path.join(os.path.dirname(file), base))


def _lay_over(below: dict[str, Any], content: Mapping[str, Any], file: str) -> None:
    """Put `content` over `below`, section by section."""
    for name, value in content.items():
        if not isinstance(value, dict) or name not in below:
            below[name] = value
        elif isinstance(below[name], dict):
            _lay_over(below[name], value, file)
        else:
            raise ValueError(
                f"{file}: its _BASE_ can't be read: {name} is a section there or here, but not both"
            )


def _find_twice(
    loader: yaml.SafeLoader, node: yaml.Node | None, source: str, prefix: str, found: dict[str, str]
) -> None:
    """Note the keys that a mapping gives twice with different values: YAML keeps the last."""
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, yaml.Node] = {}
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        _find_twice(loader, value_node, source, f"{key}.", found)
        if key not in first:
            first[key] = value_node
            continue
        one, other = (loader.construct_object(n, deep=True) for n in (first[key], value_node))
        if one != other:
            found[key] = (
                f"{source}:{key_node.start_mark.line + 1}: {key} is given twice, "
                f"{reprlib.repr(one)} and {reprlib.repr(other)}: the last is used"
            )


def _explain(error: yaml.YAMLError, text: str, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return f"{source}: not valid YAML: {problem}"
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else "the end of the file"
    hint = ""
    if problem.startswith(_INDENTATION):
        hint = "; it, or the line above it, is indented unlike the lines around it"
    return f"{source}:{mark.line + 1}: not valid YAML: {problem} at {line!r}{hint}"
