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
        recognises: Whether weights are named so, from names and shapes.
        to_published: From their names to the published ones.
        from_published: The other way; a ValueError where they have no such model.
    """

    library: str
    recognises: Callable[[Mapping[str, Tensor]], bool]
    to_published: Conversion
    from_published: Conversion


# The first that recognises weights is taken.
NAMINGS = {
    "timm": Naming("timm", timm.recognises, timm.to_published, timm.from_published),
    "torchvision": Naming(
        "torchvision",
        torchvision.recognises,
        torchvision.to_published,
        torchvision.from_published,
    ),
    "videomae": Naming(
        "Hugging Face", videomae.recognises, videomae.to_published, videomae.from_published
    ),
    "vitmae": Naming("Hugging Face", vitmae.recognises, vitmae.to_published, vitmae.from_published),
}


def recognise(weights: Mapping[str, Tensor]) -> str:
    """The key in `NAMINGS` of how weights are named; empty where none fits."""
    return next((name for name, naming in NAMINGS.items() if naming.recognises(weights)), "")


__all__ = ["NAMINGS", "Conversion", "ModelFacts", "Naming", "recognise"]
