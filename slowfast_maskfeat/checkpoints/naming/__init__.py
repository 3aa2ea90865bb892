"""Names of weights in other libraries: one file per library, listed in `NAMINGS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from slowfast_maskfeat.checkpoints.naming import (
    beit,
    hf_beit,
    mmaction,
    timm,
    torchvision,
    videomae,
    videomae_code,
    vitmae,
)
from slowfast_maskfeat.checkpoints.naming.beit import with_own_heads
from slowfast_maskfeat.checkpoints.naming.table import ModelFacts

Conversion = Callable[[Mapping[str, Tensor], ModelFacts], dict[str, Tensor]]


class Naming(NamedTuple):
    """Names of another library for the weights of a model that exists here too.

    Attributes:
        library: name of the library, for messages.
        recognizes: whether weights have these names, from names and shapes.
        to_published: converts weights from these names to the published ones.
        from_published: the reverse; a ValueError if the library has no such model.
    """

    library: str
    recognizes: Callable[[Mapping[str, Tensor]], bool]
    to_published: Conversion
    from_published: Conversion


# The first that recognizes the weights is used.
NAMINGS = {
    "beit": Naming("BEiT's code", beit.recognizes, beit.to_published, beit.from_published),
    "hf_beit": Naming(
        "Hugging Face", hf_beit.recognizes, hf_beit.to_published, hf_beit.from_published
    ),
    "mmaction": Naming(
        "mmaction2", mmaction.recognizes, mmaction.to_published, mmaction.from_published
    ),
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
    "videomae_code": Naming(
        "VideoMAE's code",
        videomae_code.recognizes,
        videomae_code.to_published,
        videomae_code.from_published,
    ),
    "vitmae": Naming("Hugging Face", vitmae.recognizes, vitmae.to_published, vitmae.from_published),
}


def recognize(weights: Mapping[str, Tensor]) -> str:
    """Find the key in `NAMINGS` for the names of weights; empty if there is none."""
    return next((name for name, naming in NAMINGS.items() if naming.recognizes(weights)), "")


__all__ = ["NAMINGS", "Conversion", "ModelFacts", "Naming", "recognize", "with_own_heads"]
