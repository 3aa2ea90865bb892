"""The outputs of a classifier mean the classes it was trained on, in their order."""

from __future__ import annotations

import os
from collections.abc import Sequence


def compare_class_names(
    theirs: Sequence[str],
    ours: Sequence[str],
    path: str | os.PathLike[str],
    *,
    may_start_anew: bool = False,
) -> str:
    """Whether a classifier's outputs mean the same classes in a checkpoint and in the data.

    Args:
        theirs: Names stored in the checkpoint; empty where it has none, which allows everything.
        ours: Names of the data set; likewise.
        path: Of the checkpoint, for messages.
        may_start_anew: Whether other classes are no error, since the classifier can be trained
            anew. The same ones in another order always are: nobody means that.

    Returns:
        Empty where the classifier fits, else what differs.

    Raises:
        ValueError: If it does not fit; the text says what to do.
    """
    theirs, ours = list(theirs), list(ours)
    if not theirs or not ours or theirs == ours:
        return ""
    if len(theirs) != len(ours):
        what = f"it has {len(theirs)} classes, the data set has {len(ours)}"
    else:
        number = next(n for n, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        what = f"its class {number} is {theirs[number]!r}, the data set's is {ours[number]!r}"
    if sorted(theirs) == sorted(ours):
        remedy = "the classes are the same in another order: bring classes.txt and the labels of "
        remedy += "the lists into the order of the checkpoint"
        if may_start_anew:
            remedy += ", or leave its classifier out by TRAIN.CHECKPOINT_LEAVE_OUT "
            remedy += "\"['head.']\""
        raise ValueError(f"{path}: {what}; {remedy}")
    if may_start_anew:
        return what
    raise ValueError(f"{path}: {what}; the same classes in the same order are wanted")
