"""Tables of names, for conversion in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from slowfast_maskfeat.shapes import Grid


class ModelFacts(NamedTuple):
    """Facts about the model here that do not follow from names and shapes of its weights.

    Attributes:
        grid: patch tokens along time, rows and columns.
        mean_pooling: whether the classifier takes the mean of the tokens, before the last layer
            norm (MVIT.USE_MEAN_POOLING).
        class_token: whether it has a class token, for files whose weights do not tell.
        residual_pooling: whether pooled queries are added to the attention output.
        color_first: whether a predicted patch has the order (color, row, column), published for
            images, or (frame, row, column, color).
    """

    grid: Grid
    mean_pooling: bool = False
    class_token: bool = True
    residual_pooling: bool = False
    color_first: bool = False


class NameTable:
    """Prefixes of names in another library and here; the rest of a name is the same in both.

    Args:
        pairs: (theirs, ours). `*` stands for a number, at the same position in both. If several
            of theirs have the same one of ours, all are read and the first is written.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = [(_pattern(theirs), ours) for theirs, ours in pairs]
        self._to_theirs = [(_pattern(ours), theirs) for theirs, ours in pairs]

    def to_published(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename theirs to ours; names that are not in the table are kept."""
        renamed = {}
        for name, value in weights.items():
            renamed[_translate(name, self._to_ours) or name] = value
        return renamed

    def from_published(self, weights: Mapping[str, Tensor], library: str) -> dict[str, Tensor]:
        """Rename ours to theirs.

        Args:
            weights: tensors by name.
            library: name of the library, for messages.

        Raises:
            ValueError: a name has no counterpart.
        """
        renamed, left_over = {}, []
        for name, value in weights.items():
            translated = _translate(name, self._to_theirs)
            if translated is None:
                left_over.append(name)
            else:
                renamed[translated] = value
        if left_over:
            shown = ", ".join(left_over[:4]) + (", ..." if len(left_over) > 4 else "")
            raise ValueError(
                f"{library} has no names for {len(left_over)} weights of this model ({shown}); "
                "docs/checkpoints.md lists the models that can be converted"
            )
        return renamed


def _pattern(beginning: str) -> re.Pattern[str]:
    return re.compile(re.escape(beginning).replace(r"\*", r"(\d+)") + r"(?=\.|$)")


def _translate(name: str, rows: Iterable[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, other in rows:
        match = pattern.match(name)
        if match:
            for number in match.groups():
                other = other.replace("*", number, 1)
            return other + name[match.end() :]
    return None


def require(condition: bool, library: str, what: str) -> None:
    """Check that a library has a model like the one to convert.

    Args:
        condition: condition on the model.
        library: name of the library.
        what: the condition in words, about the library's model.

    Raises:
        ValueError: the condition does not hold.
    """
    if not condition:
        raise ValueError(f"{library} has no model like this one: {what}")


def require_patches(weights: Mapping[str, Tensor], num_axes: int, library: str) -> None:
    """Check that the patches are those of images or of videos, as in the library.

    Args:
        weights: tensors by published name.
        num_axes: 2 for images, 3 for videos.
        library: name of the library.

    Raises:
        ValueError: the patches have another number of axes.
    """
    kernel = weights.get("patch_embed.proj.weight")
    found = 0 if kernel is None else kernel.ndim - 2
    kind = "two-dimensional (MVIT.PATCH_2D True)" if num_axes == 2 else "three-dimensional"
    require(found == num_axes, library, f"its patches are {kind}, those here have {found} axes")
