"""Names of weights in other libraries: one file each, found through `NAMINGS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import timm, torchvision, videomae, vitmae
from slowfast_maskfeat.checkpoints.naming.table import ModelFacts

Conversion = Callable[[Mapping[str, Tensor], ModelFacts], dict[str, Tensor]]


class Naming(NamedTuple):
    """How another library names the weights of a model that exists here too.

    Attributes:
        library: Its name, for messages.
        recognizes: Whether weights are named so, from names and shapes.
        to_published: From their names to the published ones.
        from_published: The other way; a ValueError where they have no such model.
    """

    library: str
    recognizes: Callable[[Mapping[str, Tensor]], bool]
    to_published: Conversion
    from_published: Conversion


# The first that recognizes weights is taken.
NAMINGS = {
    "timm": Naming("timm", timm.recognizes, timm.to_published, timm.from_published),
    "torchvision": Naming(
        "torchvision",
        torchvision.recognizes,
        torchvision.to_published,
        torchvision.from_published,
    ),
    "videomae": Naming(
        "Hugging Face", videomae.recognizes, videomae.to_published, videomae.from_published
    ),
    "vitmae": Naming("Hugging Face", vitmae.recognizes, vitmae.to_published, vitmae.from_published),
}


def recognize(weights: Mapping[str, Tensor]) -> str:
    """The key in `NAMINGS` of how weights are named; empty where none fits."""
    return next((name for name, naming in NAMINGS.items() if naming.recognizes(weights)), "")


__all__ = ["NAMINGS", "Conversion", "ModelFacts", "Naming", "recognize"]
