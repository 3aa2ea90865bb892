"""Comparison of the class names of a checkpoint and of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence

from slowfast_maskfeat.text import quoted


def compare_class_names(
    theirs: Sequence[str],
    ours: Sequence[str],
    path: str | os.PathLike[str],
    *,
    may_start_anew: bool = False,
) -> str:
    """Compare the classes of a checkpoint's classifier with those of a data set.

    Args:
        theirs: names stored in the checkpoint; empty for unknown ones, which are accepted.
        ours: names of the data set; likewise.
        path: path of the checkpoint, for messages.
        may_start_anew: whether different classes are accepted, since the classifier can be trained
            from scratch. The same classes in another order are always an error.

    Returns:
        The difference; empty if there is none.

    Raises:
        ValueError: if the classes differ and that is not accepted; the message says what to do.
    """
    theirs, ours = list(theirs), list(ours)
    if not theirs or not ours or theirs == ours:
        return ""
    if len(theirs) != len(ours):
        what = f"it has {len(theirs)} classes, the data set has {len(ours)}"
    else:
        number = next(n for n, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        what = f"its class {number} is {quoted(theirs[number])}, "
        what += f"the data set's is {quoted(ours[number])}"
    if sorted(theirs) == sorted(ours):
        remedy = "the classes are the same in another order: put classes.txt and the labels of the "
        remedy += "lists into the order of the checkpoint"
        if may_start_anew:
            remedy += ", or do not load its classifier: TRAIN.CHECKPOINT_LEAVE_OUT \"['head.']\""
        raise ValueError(f"{path}: {what}; {remedy}")
    if may_start_anew:
        return what
    raise ValueError(f"{path}: {what}; the classes and their order must be the same")
