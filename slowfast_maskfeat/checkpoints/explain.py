"""Why the weights in a file do not go with a model, as far as their names tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import NAMINGS, recognize


def explain_names(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path, *, renamed: bool
) -> str:
    """What to do about names of which too few are the model's.

    Args:
        found: The weights in the file.
        own: Those of the model.
        path: Of the file.
        renamed: Whether the names were brought here from those of another library.

    Returns:
        A sentence.
    """
    prefix = _common_prefix(found, own)
    if prefix:
        return (
            f"Its names have {prefix!r} in front: TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN "
            f"\"['{prefix}']\" removes that."
        )
    naming = "" if renamed else recognize(found)
    if naming:
        return (
            f"Its names look like {NAMINGS[naming].library}'s: python tools/convert_checkpoint.py "
            f"--cfg CFG --input {path} --output {path.with_name(f'{path.stem}_converted.pyth')} "
            "renames them."
        )
    return "Is it of this model?"


def _common_prefix(names: Sequence[str] | Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What stands in front of at least half of the model's names; empty where nothing does."""
    counts = Counter(prefix for name in names for prefix in _prefixes(name, own))
    prefix, count = counts.most_common(1)[0] if counts else ("", 0)
    return prefix if 2 * count >= len(own) else ""


def _prefixes(name: str, own: Container[str]) -> list[str]:
    """What can be taken away from a name so that one of the model's is left."""
    places = [place + 1 for place, letter in enumerate(name) if letter == "."]
    return [name[:place] for place in places if name[place:] in own]


def explain_classifier(
    own_head: Sequence[str],
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    refused: Mapping[str, str],
) -> str:
    """Why the classifier keeps its values.

    Args:
        own_head: Names of the model's classifier.
        own: The weights of the model.
        found: Those in the file.
        refused: Why some of the file's were not used, by name.

    Returns:
        The reason; empty where it does not keep them, or there is none.
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
