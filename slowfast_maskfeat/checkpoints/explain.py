"""Explanations of why the weights of a file do not fit a model, from their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from slowfast_maskfeat.checkpoints.file_weights import BACKBONE
from slowfast_maskfeat.checkpoints.naming import NAMINGS, recognize
from slowfast_maskfeat.checkpoints.positions import TABLES
from slowfast_maskfeat.checkpoints.report import HEAD_NAMES
from slowfast_maskfeat.text import quoted

# Weights that a configuration may add to the blocks: the ends of their names, the key and value
# without them, and their name in messages.
_OPTIONAL = (
    ((".relative_position_bias_table",), 'MVIT.REL_POS_BIAS ""', "relative position biases"),
    ((".gamma_1", ".gamma_2"), "MVIT.LAYER_SCALE 0.0", "layer scale"),
)
_POSITIONS = "pos_embed"
_PATCHES = ("patch_embed.proj.weight",)
_LAST_OF_MLP = ".mlp.fc2.weight"


def explain_names(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    path: Path,
    *,
    renamed: bool,
    misfits: str,
) -> str:
    """Say what to do about a file in which too few names are the model's.

    Args:
        found: weights of the file.
        own: weights of the model.
        path: path of the file.
        renamed: whether the names were already converted from those of another library.
        misfits: result of `explain_misfits`.

    Returns:
        A sentence.
    """
    naming = "" if renamed else recognize(found)
    if naming:
        return (
            f"Its names look like those of {NAMINGS[naming].library}; convert it with maskfeat "
            f"convert --cfg CFG --checkpoint {path} "
            f"--output {path.with_name(f'{path.stem}_converted.pyth')}"
        )
    prefix = _common_prefix(found, own)
    if prefix:
        return (
            f"Its names have the prefix {quoted(prefix)}, which "
            f'TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN "[{quoted(prefix)}]" removes.'
        )
    of_options = _explain_options(found, own)
    if of_options or not misfits:
        return of_options or "Is it a checkpoint of this model?"
    return f"{misfits[0].upper()}{misfits[1:]}"


def _explain_options(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Name the keys without which the model has optional weights that the file lacks.

    Empty if the file also lacks others of the backbone.
    """
    absent = [option for option in _OPTIONAL if not any(name.endswith(option[0]) for name in found)]
    missing = [name for name in own if name not in found and not name.startswith(HEAD_NAMES)]
    lacking = [option for option in absent if any(name.endswith(option[0]) for name in missing)]
    # Tables of all blocks can come from a shared one.
    ends = tuple(end for option in _OPTIONAL for end in option[0])
    # A fine-tuning can start with a new last norm.
    if not lacking or not all(name.endswith(ends) or name.startswith("norm.") for name in missing):
        return ""
    adds_positions = _POSITIONS in found and _POSITIONS not in own
    keys = ["MVIT.USE_ABS_POS True"] * adds_positions + [key for _, key, _ in lacking]
    positions = "absolute positions, but " if adds_positions else ""
    lacks = " and ".join(f"no {what}" for _, _, what in lacking)
    return f"It has {positions}{lacks}; for a model like that, set {' '.join(keys)}"


def explain_misfits(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], filled: Container[str]
) -> str:
    """Say which weights of the backbone have another shape in a file, and cannot be reshaped.

    They may be few, so that the share of filled weights does not tell, and yet be a block's only
    way to the next.

    Args:
        found: weights of the file.
        own: weights of the model.
        filled: names of those that are filled.

    Returns:
        A clause; empty if there are none.
    """
    misfits = [
        name
        for name in own
        if name in found and name not in filled and not name.startswith(HEAD_NAMES)
    ]
    if not misfits:
        return ""
    name = misfits[0]
    more = f", and {len(misfits) - 1} more" if len(misfits) > 1 else ""
    return (
        f"shapes differ: {name} is {tuple(found[name].shape)} in the file, "
        f"{tuple(own[name].shape)} in the model{more}{_explain_width(found, own, misfits)}"
    )


def explain_gaps(
    own: Mapping[str, Tensor],
    filled: Container[str],
    *,
    fixed_tables: Container[str],
    left_out: Sequence[str],
) -> str:
    """Say that a file lacks the patch embedding, or all position tables.

    Args:
        own: weights of the model.
        filled: names of those that are filled.
        fixed_tables: names of position tables that are not learned.
        left_out: names in the file that were excluded.

    Returns:
        A clause; empty if it lacks neither.
    """
    excluded = {name.removeprefix(BACKBONE) for name in left_out}
    for names, what in ((_PATCHES, "patch embedding"), (TABLES, "position tables")):
        needed = [name for name in names if name in own and name not in fixed_tables]
        is_filled = any(name in filled or name in excluded for name in names)
        if needed and not is_filled:
            return f"it has no {what} ({', '.join(needed)})"
    return ""


def _explain_width(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], misfits: Sequence[str]
) -> str:
    """Name MVIT.DIM_MUL_IN_ATT where only one of the two widens tokens in its MLPs."""
    for name in misfits:
        theirs, ours = found[name].shape, own[name].shape
        if name.endswith(_LAST_OF_MLP) and theirs[1:] == ours[1:]:
            return f"; set MVIT.DIM_MUL_IN_ATT {theirs[0] < ours[0]}"
    return ""


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
        own_head: names of the model's classifier.
        own: weights of the model.
        found: weights of the file.
        refused: why weights of the file were not used, by name.

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
