"""Read YAML files: with `_BASE_`, lines in error messages, and warnings for duplicate keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from slowfast_maskfeat.config.defaults import default_config, flatten
from slowfast_maskfeat.config.shipped import is_shipped, nearest_shipped, shipped_path
from slowfast_maskfeat.files import expand_home, is_address, is_file, kind_of_file, open_text
from slowfast_maskfeat.text import cut, cut_quotes, printable, quoted

# The full name of a key, its node and that of its value.
_Entry = tuple[str, yaml.Node, yaml.Node]

# PyYAML's messages for a line that is indented too far, or not far enough.
_INDENTATION = ("mapping values are not allowed", "expected <block end>", "could not find expected")

# Limits far above any configuration, which has some 300 values, 6 levels and 20 kB.
_MAX_CHARACTERS = 2**18
_MAX_VALUES = 2**15  # with what its aliases stand for
_MAX_DEPTH = 32
_MAX_FILES = 100  # named by _BASE_, directly and indirectly
_MAX_BITS = 63  # of an integer


def is_yaml(word: str) -> bool:
    """Whether a word of a command line names a YAML file."""
    return word.lower().endswith((".yaml", ".yml"))


def split_words(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split the words of a command line into YAML files and KEY VALUE pairs, in any order.

    A YAML file, or the name of one in `configs/`, that follows a key is its value. Another word in
    the place of a key that does not look like one is taken for a file, so that a wrong name is
    reported as such.

    Args:
        words: such as `["a.yaml", "b.yaml", "KEY", "VALUE"]`.

    Returns:
        The files, and the keys and values.
    """
    files: list[str] = []
    pairs: list[str] = []
    for word in words:
        may_be_file = len(pairs) % 2 == 0
        names_file = may_be_file and (is_yaml(word) or is_shipped(word) or _may_be_name(word))
        (files if names_file else pairs).append(word)
    return files, pairs


def _may_be_name(word: str) -> bool:
    """Whether a word looks like the name of a file, and not like a key, a number or a list."""
    if "/" in word:
        return True
    if not word[:1].isalpha() or word.isupper() or ("." in word and word.lower() != word):
        return False
    known = {part for key, _ in flatten(default_config()) for part in key.split(".")}
    return known.isdisjoint(word.upper().split("."))


def read_yaml(file: str | os.PathLike[str]) -> tuple[dict[str, Any], list[str]]:
    """Read a file and the files it names under `_BASE_`, over which its own content is merged.

    Args:
        file: a path or an address. `_BASE_` is a path or a list of paths, relative to the file that
            names them, or names of files in `configs/`; later ones take precedence, as in fvcore.

    Returns:
        The merged content, and a sentence for each key that a file sets twice.

    Raises:
        ValueError: the file or a base is missing, is empty, is not YAML (the message has the line),
            is too large, or is not a mapping.
    """
    file = expand_home(os.fspath(file))
    if not is_file(file):
        kind = "" if is_address(file) else kind_of_file(file)
        if kind:
            raise ValueError(f"{file}: a configuration must be a file, but this is a {kind}")
        raise ValueError(
            f"no configuration file or shipped configuration named {quoted(file)}"
            f"{nearest_shipped(file)}"
        )
    return _read(file, (), [])


def parse_yaml(text: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Parse YAML without `_BASE_`.

    Args:
        text: YAML; may be empty.
        source: name of the file, for messages.

    Returns:
        The content, with sections for dotted keys (`TRAIN.BATCH_SIZE: 8`) and the last of several
        values of a key; and a sentence for each key that is set twice with different values.

    Raises:
        ValueError: it is not YAML, an alias contains itself, a value does not fit its tag (the
            message has the line), it is too large or nested too deep, also by its aliases, it is
            not a mapping, or a name is both a section and a key.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(
            f"{source}: a configuration must have at most {_MAX_CHARACTERS} characters; is this "
            "another file?"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, []
        _measure(node, source, 0, (), {})
        twice = _keep_last(loader, node, source)
        twice |= _find_twice(loader, _leaves(node), source)
        content = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(_explain(error, text, source)) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{source}: must be a mapping of sections and keys, got {quoted(content, 80)}"
        )
    return _in_sections(content, source), list(twice.values())


class _Loader(yaml.SafeLoader):
    """A SafeLoader with bounded nesting, whose errors are all YAML errors with the line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, as the base class does."""
        if self._depth > _MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {_MAX_DEPTH} levels", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct the value of a node, as the base class does."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        # Values that do not fit their tag: the base class raises whatever its conversion raises.
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            raise _not_a(node) from error
        if type(value) is int and value.bit_length() > _MAX_BITS:
            raise _not_a(node)
        return value


def _not_a(node: yaml.Node) -> yaml.YAMLError:
    kind = node.tag.rpartition(":")[2]
    return yaml.constructor.ConstructorError(
        None, None, f"a value is not a valid {cut(kind)}", node.start_mark
    )


def _read(file: str, above: tuple[str, ...], done: list[str]) -> tuple[dict[str, Any], list[str]]:
    if file in above:
        raise ValueError(f"{file}: its _BASE_ leads back to the file itself")
    if above and not is_file(file):
        missing = cut_quotes(file)
        raise ValueError(
            f"{above[-1]}: its _BASE_ names a file that does not exist: {missing}"
            f"{nearest_shipped(file)}"
        )
    done.append(file)
    if len(done) > _MAX_FILES:
        raise ValueError(f"{done[0]}: its _BASE_ must lead to at most {_MAX_FILES} files")
    with open_text(file) as opened:
        text = opened.read(_MAX_CHARACTERS + 1)
    content, twice = parse_yaml(text, file)
    if not content:
        raise ValueError(f"{file}: a configuration must have sections or keys, got none")
    bases = content.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{file}: _BASE_ must be a path or a list of paths, got {quoted(bases)}")
    merged: dict[str, Any] = {}
    for base in bases:
        below, below_twice = _read(_beside(file, base), (*above, file), done)
        _lay_over(merged, below, f"{file} and its _BASE_")
        twice = below_twice + twice
    _lay_over(merged, content, f"{file} and its _BASE_")
    return merged, twice


def _beside(file: str, base: str) -> str:
    """Path of a base, relative to the folder of the file, or of a shipped file by its name."""
    base = expand_home(base)
    if is_address(base) or os.path.isabs(base):
        return base
    path = os.path.normpath(os.path.join(os.path.dirname(file), base))
    return path if is_file(path) else shipped_path(base) or path


def _in_sections(content: Mapping[Any, Any], source: str, depth: int = 0) -> dict[str, Any]:
    """Replace dotted keys by nested sections."""
    nested: dict[str, Any] = {}
    for name, value in content.items():
        parts = str(name).split(".")
        if depth + len(parts) > _MAX_DEPTH:
            raise ValueError(
                f"{source}: a key must have at most {_MAX_DEPTH} sections, got {_key(str(name))}"
            )
        if isinstance(value, dict):
            value = _in_sections(value, source, depth + len(parts))
        for part in reversed(parts):
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
                raise ValueError(f"{where}: {_key(name)} must not be both a section and a key")
        else:
            below[name] = value


class _Extent(NamedTuple):
    """Size of a node with all that its aliases stand for."""

    num_values: int
    depth: int


def _measure(
    node: yaml.Node,
    source: str,
    line: int,
    above: tuple[yaml.Node, ...],
    known: dict[yaml.Node, _Extent],
) -> _Extent:
    """Measure a node; each one is visited once, although aliases may repeat it without end.

    Args:
        node: the node.
        source: name of the file, for messages.
        line: of the node, counted from 0.
        above: nodes around it.
        known: sizes so far; new ones are added.

    Raises:
        ValueError: a node contains itself through an alias, or aliases make it too large or deep.
    """
    if node in above:
        raise ValueError(f"{source}:{line + 1}: an alias (*) must not refer to a node around it")
    if node not in known:
        below = [
            _measure(child, source, child_line, (*above, node), known)
            for child, child_line in _children(node, line)
        ]
        known[node] = _Extent(
            1 + sum(extent.num_values for extent in below),
            1 + max((extent.depth for extent in below), default=0),
        )
    extent = known[node]
    if extent.num_values > _MAX_VALUES or len(above) + extent.depth > _MAX_DEPTH:
        raise ValueError(
            f"{source}:{line + 1}: a configuration must have at most {_MAX_VALUES} values and "
            f"{_MAX_DEPTH} levels, with what its aliases (*) stand for"
        )
    return extent


def _children(node: yaml.Node, line: int) -> Iterator[tuple[yaml.Node, int]]:
    """Yield the nodes in a node with their lines, counted from 0."""
    if isinstance(node, yaml.SequenceNode):
        yield from ((item, line) for item in node.value)
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            yield key_node, key_node.start_mark.line
            yield value_node, key_node.start_mark.line


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


def _key(name: str) -> str:
    """A key of a file as it can be printed."""
    return cut(printable(name))


def _find_twice(loader: yaml.SafeLoader, entries: Iterable[_Entry], source: str) -> dict[str, str]:
    """Return a sentence for each key that is set twice with different values."""
    found: dict[str, str] = {}
    first: dict[str, yaml.Node] = {}
    for key, key_node, value_node in entries:
        nodes = first.setdefault(key, value_node), value_node
        one, other = (loader.construct_object(node, deep=True) for node in nodes)
        if one != other:
            found[key] = (
                f"{source}:{key_node.start_mark.line + 1}: {_key(key)} is set twice, to "
                f"{quoted(one, 60)} and {quoted(other, 60)}; the last is used"
            )
    return found


def _explain(error: yaml.YAMLError, text: str, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if mark is None:
        return f"{source}: not valid YAML: {cut(problem)}"
    lines = text.splitlines()
    line = lines[mark.line].strip() if mark.line < len(lines) else "the end of the file"
    hint = ""
    if problem.startswith(_INDENTATION):
        hint = "; check the indentation of this line and the one above it"
    return f"{source}:{mark.line + 1}: not valid YAML: {cut(problem)} at {quoted(line)}{hint}"
