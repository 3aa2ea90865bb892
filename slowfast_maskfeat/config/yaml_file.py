"""Read YAML files: with `_BASE_`, lines in error messages, and warnings for duplicate keys."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from slowfast_maskfeat.files import expand_home, is_file, open_text

# The full name of a key, its node and that of its value.
_Entry = tuple[str, yaml.Node, yaml.Node]

# PyYAML's messages for a line that is indented too far, or not far enough.
_INDENTATION = ("mapping values are not allowed", "expected <block end>", "could not find expected")


def is_yaml(word: str) -> bool:
    """Whether a word of a command line names a YAML file."""
    return word.lower().endswith((".yaml", ".yml"))


def read_yaml(file: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Read a file and the files it names under `_BASE_`, over which its own content is merged.

    Args:
        file: a path or an address. `_BASE_` is a path or a list of paths, relative to the file that
            names them; later ones take precedence, as in fvcore.

    Returns:
        The merged content, and a sentence for each key that a file sets twice.

    Raises:
        ValueError: the file or a base is missing, is not YAML (the message has the line), or is not
            a mapping.
    """
    file = expand_home(os.fspath(file))
    if not is_file(file):
        raise ValueError(f"{file}: no such configuration file")
    return _read(file, ())


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Parse YAML without `_BASE_`.

    Args:
        text: YAML; may be empty.
        source: name of the file, for messages.

    Returns:
        The content, with sections for dotted keys (`TRAIN.BATCH_SIZE: 8`) and the last of several
        values of a key; and a sentence for each key that is set twice with different values.

    Raises:
        ValueError: it is not YAML, an alias contains itself (the message has the line), it is not a
            mapping, or a name is both a section and a key.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, []
        _refuse_loops(node, source)
        twice = _keep_last(loader, node, source)
        twice |= _find_twice(loader, _leaves(node), source)
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(_explain(error, text, source)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{source}: must be a mapping of sections and keys, got {content!r:.80}")
    return _in_sections(content, source), list(twice.values())


def _read(file: str, above: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    if file in above:
        raise ValueError(f"{file}: its _BASE_ leads back to the file itself")
    if above and not is_file(file):
        raise ValueError(f"{above[-1]}: its _BASE_ names a file that does not exist: {file}")
    with open_text(file) as opened:
        text = opened.read()
    content, twice = parse_yaml(text, file)
    bases = content.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{file}: _BASE_ must be a path or a list of paths, got {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        below, below_twice = _read(_beside(file, base), (*above, file))
        _lay_over(merged, below, f"{file} and its _BASE_")
        twice = below_twice + twice
    _lay_over(merged, content, f"{file} and its _BASE_")
    return merged, twice


def _beside(file: str, base: str) -> str:
    """Path of a base; relative paths start at the folder of the file."""
    base = expand_home(base)
    if "://" in base or os.path.isabs(base):
        return base
    return os.path.normpath(os.path.join(os.path.dirname(file), base))


def _in_sections(content: Mapping[Any, Any], source: str) -> dict[str, Any]:
    """Replace dotted keys by nested sections."""
    nested: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            value = _in_sections(value, source)
        for part in reversed(str(name).split(".")):
            value = {part: value}
        _lay_over(nested, value, source)
    return nested


def _lay_over(below: dict[str, Any], content: Mapping[str, Any], where: str) -> None:
    """Merge `content` into `below`, section by section; an empty section changes nothing."""
    for name, value in content.items():
        under = below.get(name)
        if under is None:
            below[name] = value
        elif isinstance(under, dict) and isinstance(value, dict):
            _lay_over(under, value, where)
        elif isinstance(under, dict) or isinstance(value, dict):
            if value is not None:
                raise ValueError(f"{where}: {name} must not be both a section and a key")
        else:
            below[name] = value


def _refuse_loops(
    node: yaml.Node, source: str, line: int = 0, above: tuple[yaml.Node, ...] = ()
) -> None:
    """Reject a node that contains itself through an alias; `line` counts from 0."""
    if node in above:
        raise ValueError(f"{source}:{line + 1}: an alias (*) must not refer to a node around it")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_loops(item, source, line, above)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            _refuse_loops(value_node, source, key_node.start_mark.line, above)


def _keep_last(
    loader: yaml.SafeLoader, node: yaml.Node, source: str, prefix: str = ""
) -> dict[str, str]:
    """Keep the last of equal keys of a mapping, at its position; sections are kept as a whole.

    Returns:
        As `_find_twice`, for this mapping and those in it.
    """
    if not isinstance(node, yaml.MappingNode):
        return {}
    found: dict[str, str] = {}
    for key_node, value_node in node.value:
        found |= _keep_last(loader, value_node, source, f"{prefix}{key_node.value}.")
    keys = [
        (f"{prefix}{key_node.value}", key_node, value_node)
        for key_node, value_node in node.value
        if _is_key(key_node)
    ]
    last: dict[object, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, value_node in node.value:
        identity = key_node.value if _is_key(key_node) else key_node
        last.pop(identity, None)
        last[identity] = key_node, value_node
    node.value = list(last.values())
    return found | _find_twice(loader, keys, source)


def _is_key(node: yaml.Node) -> bool:
    """Whether a node is a key; `<<`, which merges another mapping, is not."""
    return isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:merge"


def _leaves(node: yaml.Node, prefix: str = "") -> Iterator[_Entry]:
    """Yield every value that is not a section, with its full key."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        if isinstance(value_node, yaml.MappingNode):
            yield from _leaves(value_node, f"{prefix}{key_node.value}.")
        elif _is_key(key_node):
            yield f"{prefix}{key_node.value}", key_node, value_node


def _find_twice(loader: yaml.SafeLoader, entries: Iterable[_Entry], source: str) -> dict[str, str]:
    """Return a sentence for each key that is set twice with different values."""
    found: dict[str, str] = {}
    first: dict[str, yaml.Node] = {}
    for key, key_node, value_node in entries:
        nodes = first.setdefault(key, value_node), value_node
        one, other = (loader.construct_object(node, deep=True) for node in nodes)
        if one != other:
            found[key] = (
                f"{source}:{key_node.start_mark.line + 1}: {key} is set twice, to "
                f"{reprlib.repr(one)} and {reprlib.repr(other)}; the last is used"
            )
    return found


def _explain(error: yaml.YAMLError, text: str, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return f"{source}: not valid YAML: {problem}"
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else "the end of the file"
    hint = ""
    if problem.startswith(_INDENTATION):
        hint = "; check the indentation of this line and the one above it"
    return f"{source}:{mark.line + 1}: not valid YAML: {problem} at {line!r}{hint}"
