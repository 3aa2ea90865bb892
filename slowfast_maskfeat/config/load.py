"""Merge YAML files and KEY VALUE pairs over the defaults, check every value, and freeze."""

from __future__ import annotations

import ast
import datetime
import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat.config.check import check_values
from slowfast_maskfeat.config.defaults import default_config, flatten
from slowfast_maskfeat.config.inert import INERT_KEYS, INERT_SECTIONS, overruled
from slowfast_maskfeat.config.shipped import find_shipped, nearest_shipped
from slowfast_maskfeat.config.yaml_file import parse_yaml, read_yaml
from slowfast_maskfeat.files import expand_home
from slowfast_maskfeat.text import cut, quoted

# Where a run writes. It follows from the files and the command line of whoever starts it, never
# from a checkpoint, whose folder is that of its training.
_WRITTEN = ("OUTPUT_DIR", "TEST.SAVE_RESULTS_PATH", "TENSORBOARD.LOG_DIR", "DATA.SHARD_CACHE")

# Keys of former versions of this package, which are in their checkpoints, and what to set instead.
_REPLACED = {
    "AUG.GRAY_PROB": "DATA.COLOR_RND_GRAYSCALE with DATA.SSL_COLOR_JITTER True",
    "AUG.VIDEO_COLOR_JITTER": "DATA.SSL_COLOR_BRI_CON_SAT with DATA.SSL_COLOR_JITTER True",
}

# Where a configuration comes from, its sections, and warnings about them.
_Content = tuple[str, dict[str, Any], Sequence[str]]

_UNSET_FOLDER = "."  # OUTPUT_DIR in published files

# Types of the keys whose default is None.
_OPTIONAL_KINDS: dict[str, type] = {
    "AUG.COLOR_JITTER": float,
    "AUG.MAX_MASK_PATCHES_PER_BLOCK": int,
    "AUG.MIN_MASK_PATCHES_PER_BLOCK": int,
    "MVIT.POOL_KVQ_KERNEL": list,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": list,
    "SOLVER.CLIP_GRAD_L2NORM": float,
    "SOLVER.WEIGHT_DECAY_END": float,
    "SOLVER.CLIP_GRAD_VAL": float,
}

# Examples of the lists of strings whose default is empty.
_OF_TEXTS = {
    "AVA.TRAIN_PREDICT_BOX_LISTS": ["boxes.csv"],
    "LOG.TRACKERS": ["tensorboard", "wandb"],
    "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN": ["backbone."],
    "TRAIN.CHECKPOINT_LEAVE_OUT": ["head."],
}


# Keys of strings that were True or False before, with the strings that these mean.
_OF_SWITCHES = {"TRAIN.COMPILE": {True: "model", False: ""}}


Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""YAML file or files, or names of shipped ones."""

Overrides = Sequence[str] | Mapping[str, Any]
"""Keys and their values: `["KEY", "VALUE", ...]` or `{"KEY": value}`."""


def load_config(files: Files, overrides: Overrides = ()) -> CfgNode:
    """Read the configuration of a run.

    Args:
        files: YAML file or files, or names of those in `configs/`; later ones take precedence.
            `_BASE_` in a file names one or more files to start from.
        overrides: `["KEY", "VALUE", ...]` or `{"KEY": value}`, which take precedence over the
            files.

    Returns:
        The frozen configuration: every key of `default_config`, nothing else.

    Raises:
        ValueError: a file is missing, empty or not YAML (the message has the line), a key is
            unknown (the message has its replacement or the nearest known one), a value is of the
            wrong type or out of range, or a pair is incomplete.
    """
    pairs = override_pairs(overrides)
    return _load(_read_files(_names(files), pairs), pairs)


def load_run_config(files: Files, overrides: Overrides = ()) -> CfgNode:
    """Read the configuration of a run, which has a folder of its own.

    OUTPUT_DIR is `default_folder` where it is not set; "." in a file, as in published ones, does
    not set it, but on the command line it means the current folder.

    Args:
        files: see `load_config`.
        overrides: see `load_config`.

    Raises:
        ValueError: see `load_config`.
    """
    names, pairs = _names(files), override_pairs(overrides)
    return _load(_read_files(names, pairs), pairs, folder=default_folder(names))


def override_pairs(overrides: Overrides) -> list[Any]:
    """Return keys and values in turn.

    Args:
        overrides: see `load_config`.

    Raises:
        ValueError: it is neither a mapping nor a list of keys and values.
    """
    if isinstance(overrides, Mapping):
        overrides = [word for pair in overrides.items() for word in pair]
    is_list = isinstance(overrides, Sequence) and not isinstance(overrides, (str, bytes))
    if not is_list or not all(isinstance(key, str) for key in overrides[::2]):
        raise ValueError(
            f"overrides must be ['KEY', 'VALUE', ...] or {{'KEY': value}}, got {quoted(overrides)}"
        )
    return list(overrides)


def _names(files: Files) -> list[str]:
    """Return file names as strings; a single one is a list of one."""
    if isinstance(files, (str, os.PathLike)):
        return [os.fspath(files)]
    return [os.fspath(file) for file in files]


def _read_files(files: Sequence[str], overrides: Sequence[str]) -> list[_Content]:
    """Read YAML files and import the modules that they and the overrides name."""
    found = map(find_shipped, files)
    contents: list[_Content] = [(file, *read_yaml(file)) for file in found]
    import_extensions(_imports(contents, overrides))
    return contents


def _meant_file(word: str) -> str:
    """A hint for a word that may be meant as the name of a shipped file."""
    return "" if "." in word or word.isupper() else nearest_shipped(word)


def default_folder(files: Sequence[str]) -> str:
    """Return the OUTPUT_DIR of runs that name none: `output/` and the name of the first file.

    Args:
        files: YAML files of the configuration.
    """
    return f"output/{PurePath(files[0]).stem}" if files else _UNSET_FOLDER


def parse_config(text: str, source: str, overrides: Overrides = ()) -> CfgNode:
    """Read the configuration stored in a checkpoint, except for where its training wrote.

    OUTPUT_DIR and the other keys of folders and files that a run writes have their defaults, unless
    `overrides` has them. Keys of former versions that others have replaced are left out.

    Args:
        text: YAML.
        source: name of the file, for messages.
        overrides: as in `load_config`.

    Raises:
        ValueError: as in `load_config`.
    """
    overrides = override_pairs(overrides)
    content, sentences = parse_yaml(text, source)
    trained_with = _module_names(content.pop("IMPORTS", None))
    left_out = {*_WRITTEN, *_REPLACED}
    content = {key: value for key, value in flatten(content) if key not in left_out}
    import_extensions(_imports([], overrides))
    missing = [name for name in trained_with if name not in sys.modules]
    hint = (
        f"{source} was trained with IMPORTS {quoted(missing)}, which is not imported from a "
        "checkpoint: if you trust these modules, name them with IMPORTS on the command line"
    )
    try:
        cfg = _load([(source, content, sentences)], overrides)
    except ValueError as error:
        if not missing:
            raise
        raise ValueError(f"{error}; {hint}") from error
    if missing:  # their rows may be missed later, where the model is built
        warnings.warn(hint, UserWarning, stacklevel=2)
    return cfg


def import_extensions(modules: Sequence[str]) -> None:
    """Import modules that add methods, targets, masks, data sets, backbones and keys.

    Args:
        modules: names, as in an import statement.

    Raises:
        ValueError: a module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except (ImportError, TypeError, ValueError) as error:  # the others also of a malformed name
            raise ValueError(
                f"IMPORTS: the module {quoted(name)} cannot be imported: {cut(str(error))}"
                f"{_remedy(name, error)}"
            ) from error


def _remedy(name: str, error: Exception) -> str:
    """The likely remedy of a failed import, or the line that failed."""
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        if name.endswith(".py"):
            return f"; IMPORTS takes the name of a module: {name.removesuffix('.py')}"
        return "; install it, or put its folder into PYTHONPATH"
    package = os.path.dirname(os.path.dirname(__file__)) + os.sep
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(package) and "importlib" not in frame.filename
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


def _imports(contents: Sequence[_Content], overrides: Sequence[str]) -> list[str]:
    """Find the value of IMPORTS before keys are known: later files win, pairs over files."""
    found: Any = []
    for _, content, _ in contents:
        found = content.get("IMPORTS", found)
    for key, value in zip(overrides[::2], overrides[1::2], strict=False):
        found = value if key == "IMPORTS" else found
    return _module_names(found)


def _module_names(value: Any) -> list[str]:
    """Return a list of module names, also of a single one."""
    value = _parse(value)
    names = _words(value) if isinstance(value, str) and value else value or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"IMPORTS must be a list of module names, got {quoted(value)}")
    return list(names)


def _load(
    contents: Sequence[_Content], overrides: Sequence[str], *, folder: str = _UNSET_FOLDER
) -> CfgNode:
    cfg = default_config()
    inert: dict[str, str] = {}
    for source, content, _ in contents:
        for key, value in flatten(content):
            _merge(cfg, key, value, source=source, inert=inert)
    check_complete(overrides)
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _merge(cfg, key, value, source="command line", inert=inert)
    given_twice = [sentence for _, _, sentences in contents for sentence in sentences]
    for message in [*dict.fromkeys(given_twice), *inert.values(), *overruled(cfg)]:
        warnings.warn(message, UserWarning, stacklevel=3)
    check_values(cfg)
    _resolve_aliases(cfg)
    is_named = "OUTPUT_DIR" in overrides[::2]
    is_unset = os.path.normpath(cfg.OUTPUT_DIR) == _UNSET_FOLDER  # also of "" and "./"
    if not cfg.OUTPUT_DIR or (is_unset and not is_named):
        cfg.OUTPUT_DIR = folder
    cfg.freeze()
    return cfg


def stored_config(text: str, source: str) -> CfgNode:
    """Read the configuration stored in a checkpoint to compare it, not to run it.

    Keys and values that this version does not know are left out.

    Args:
        text: YAML.
        source: name of the file, for messages.

    Raises:
        ValueError: the text is not YAML.
    """
    cfg = default_config()
    for key, value in flatten(parse_yaml(text, source)[0]):
        with suppress(ValueError):
            _merge(cfg, key, value, source=source, inert={})
    _resolve_aliases(cfg)
    return cfg


def _resolve_aliases(cfg: CfgNode) -> None:
    """Replace aliases of published files by the values used here."""
    if cfg.DATA.DECODING_BACKEND == "torchvision":  # its decoder was removed from torchvision
        cfg.DATA.DECODING_BACKEND = "auto"


def check_complete(overrides: Sequence[str]) -> None:
    """Check that words are pairs of keys and values.

    Raises:
        ValueError: the last one has no value.
    """
    if len(overrides) % 2:
        raise ValueError(
            "command line: overrides must be pairs KEY VALUE separated by a space, but "
            f"{quoted(overrides[-1])} has no value{_meant_file(overrides[-1])}"
        )


def check_pair(key: str, value: Any, *, source: str) -> None:
    """Check that a key exists and that a value has its type.

    Args:
        key: dotted name.
        value: as in YAML.
        source: where it stands, for the message.

    Raises:
        ValueError: the key is unknown, or its value of another type.
    """
    _merge(default_config(), key, value, source=source, inert={})


def _merge(cfg: CfgNode, key: str, value: Any, *, source: str, inert: dict[str, str]) -> None:
    """Set one key of `cfg`, or record in `inert` why it has no effect."""
    value = text = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = _module_names(value) if key == "IMPORTS" else _parse(value)
    *sections, name = key.split(".")
    node: Any = cfg
    for section in sections:
        node = node.get(section) if isinstance(node, CfgNode) else None
    if isinstance(node, CfgNode) and name in node:
        if isinstance(node[name], CfgNode):
            if value is None:  # an empty section
                return
            raise ValueError(f"{source}: {key} is a section, not a key, got {quoted(value)}")
        if isinstance(node[name], str) and isinstance(text, str) and _is_plain(value):
            value = text  # such as 2024_11, a folder and not a number
        node[name] = _coerce(key, value, node[name], source)
        return
    if key in INERT_KEYS:
        neutral, reason = INERT_KEYS[key]
        inert.pop(key, None)  # a later neutral value withdraws the warning
        if _as_lists(value) not in neutral:
            inert[key] = f"{key}: {quoted(value)} has no effect: {reason}"
        return
    for section, (switch, reason) in INERT_SECTIONS.items():
        if key.startswith(section + "."):
            if key == f"{section}.{switch}":
                inert.pop(section, None)
            if switch is None or (key == f"{section}.{switch}" and value):
                inert[section] = f"{section}.* has no effect: {reason}"
            return
    hint = f"; use {_REPLACED[key]} instead" if key in _REPLACED else _nearest(key)
    raise ValueError(f"{source}: unknown key {quoted(key)}{hint}")


def _nearest(key: str) -> str:
    """A hint at the known key most similar to `key`; empty if there is none."""
    if key == "_BASE_":
        return "; it belongs in a file, and --cfg takes several files"
    known = [name for name, _ in flatten(default_config())] + [*INERT_KEYS, "_BASE_"]
    near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.6)
    if not near:
        last = key.rsplit(".", 1)[-1].upper()
        near = [name for name in known if name.rsplit(".", 1)[-1] == last][:1]
    return f"; did you mean {near[0]}?" if near else ""


_NEVER_PATHS = ("TASK", "DATA.PATH_LABEL_SEPARATOR", "TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN")
_LONGEST_LITERAL = 10_000  # characters of a value that may be a Python literal


def _parse(value: Any) -> Any:
    """Evaluate a string that is a Python literal, such as `1e-6`, `(3, 7, 7)` or `None`."""
    if not isinstance(value, str) or len(value) > _LONGEST_LITERAL:
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _is_plain(value: Any) -> bool:
    """Whether a literal stands for its own text where a string is expected."""
    return not (value is None or isinstance(value, (str, bool, list, tuple)))


def _as_lists(value: Any) -> Any:
    """Convert tuples to lists, at any depth."""
    if isinstance(value, (list, tuple)):
        return [_as_lists(item) for item in value]
    return value


def _coerce(key: str, value: Any, default: Any, source: str) -> Any:
    """Convert `value` to the type of its key.

    Raises:
        ValueError: it has another type.
    """
    if isinstance(value, bool) and key in _OF_SWITCHES:
        return _OF_SWITCHES[key][value]
    optional = key in _OPTIONAL_KINDS
    kind = _OPTIONAL_KINDS[key] if optional else type(default)
    example = _OF_TEXTS.get(key, default)
    has_texts = kind is list and bool(example) and isinstance(example[0], str)
    if has_texts and isinstance(value, str) and value:
        value = _words(value)
    if optional and value is None:
        return None
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is list and isinstance(value, (list, tuple)):
        if example and not all(_is_like(item, example[0]) for item in value):
            raise ValueError(
                f"{source}: {key} must be a list like {example!r}, got {quoted(value)}"
            )
        return [_with_home(key, item) for item in _as_lists(value)]
    if kind is list and isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    if kind is str and value is None:
        return ""
    if kind is str and (isinstance(value, str) or type(value) is datetime.date):
        return _with_home(key, str(value))
    if type(value) is kind:
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    hint = "; put quotes around it" if kind is str and is_number else ""
    raise ValueError(
        f"{source}: {key} must be {_kind_name(kind)} (default {default!r}), "
        f"got {quoted(value)}, {_kind_name(type(value))}{hint}"
    )


def _words(text: str) -> list[str]:
    """Split a list without quotes, `[a, b]`, as YAML has it; any other text is one word."""
    if not (text.startswith("[") and text.endswith("]")):
        return [text]
    return [word.strip().strip("'\"") for word in text[1:-1].split(",")]


def _with_home(key: str, value: Any) -> Any:
    """Replace `~` at the beginning of a string, which is a path then, by the home folder.

    Keys that are never paths keep it.

    Raises:
        ValueError: the home folder is unknown.
    """
    if not isinstance(value, str) or key in _NEVER_PATHS:
        return value
    try:
        return expand_home(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _is_like(item: Any, default: Any) -> bool:
    """Whether an item of a list is a number, as in the default, or a string."""
    if isinstance(default, (int, float)):
        return isinstance(item, (int, float)) and not isinstance(item, bool)
    return isinstance(item, type(default))


def _kind_name(kind: type) -> str:
    names = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
    return names.get(kind, "a list" if kind in (list, tuple) else kind.__name__)
