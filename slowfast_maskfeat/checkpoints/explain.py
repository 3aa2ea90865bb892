"""Explanations of why the weights of a file do not fit a model, from their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import NAMINGS, recognize
from slowfast_maskfeat.text import quoted


def explain_names(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, *, renamed: bool
) -> str:
    """Say what to do about a file in which too few names are the model's.

    Args:
        found: Weights of the file.
        own: Weights of the model.
        path: Path of the file.
        renamed: Whether the names were already converted from those of another library.

    Returns:
        A sentence.
    """
    prefix = _common_prefix(found, own)
    if prefix:
        return (
            f"Its names have the prefix {quoted(prefix)}, which "
            f'TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN "[{quoted(prefix)}]" removes.'
        )
    naming = "" if renamed else recognize(found)
    if naming:
        return (
            f"Its names look like those of {NAMINGS[naming].library}; convert it with python "
            f"tools/convert_checkpoint.py --cfg CFG --input {path} "
            f"--output {path.with_name(f'{path.stem}_converted.pyth')}"
        )
    return "Is it a checkpoint of this model?"


def _common_prefix(names: Sequence[str] | Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Prefix with which the file has at least half of the model's names; empty if none."""
    counts = Counter(prefix for name in names for prefix in _prefixes(name, own))
    prefix, count = counts.most_common(1)[0] if counts else ("", 0)
    return prefix if 2 * count >= len(own) else ""


def _prefixes(name: str, own: Container[str]) -> list[str]:
    """Prefixes of a name whose removal gives a name of the model."""
    places = [place + 1 for place, letter in enumerate(name) if letter == "."]
    return [name[:place] for place in places if name[place:] in own]


def explain_classifier(
    own_head: Sequence[str],
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    refused: Mapping[str, str],
) -> str:
    """Say why the classifier was not loaded.

    Args:
        own_head: Names of the model's classifier.
        own: Weights of the model.
        found: Weights of the file.
        refused: Why weights of the file were not used, by name.

    Returns:
        The reason; empty if it was loaded or the model has no classifier.
    """
    for name in own_head:
        if name not in found:
            return "the file has none"
        if name not in refused:
            continue
        theirs, ours = found[name].shape, own[name].shape
        if theirs[1:] == ours[1:] and theirs[0] != ours[0]:
            return f"the file has {theirs[0]} classes, the model {ours[0]}"
        return refused[name]
    return ""
