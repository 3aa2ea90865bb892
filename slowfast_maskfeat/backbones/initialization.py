"""How the transformers start: as this field's video models, as MAE, as SimMIM, as BEiT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

STANDARD_DEVIATION = 0.02
ENCODER_BIAS = 0.02


def truncated_normal(tensor: Tensor) -> None:
    """Fill a tensor in place from a normal distribution of standard deviation 0.02.

    The published form cuts at +-2 absolute, a hundred standard deviations: not at all.

    Args:
        tensor: parameter to fill.
    """
    nn.init.trunc_normal_(tensor, std=STANDARD_DEVIATION)


def initialize_encoder(module: nn.Module) -> None:
    """Initialize one module of an encoder or classifier, for `nn.Module.apply`.

    Weights of linear layers and convolutions: normal, 0.02. Biases of linear layers and of layer
    norms start at 0.02, not at 0; those of convolutions keep torch's default. Published so.

    Args:
        module: module whose own parameters are set.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        truncated_normal(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, ENCODER_BIAS)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.constant_(module.bias, ENCODER_BIAS)


def initialize_predictor(module: nn.Module) -> None:
    """Initialize one module of a prediction head, for `nn.Module.apply`.

    As `initialize_encoder`, but biases start at 0.

    Args:
        module: module whose own parameters are set.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        truncated_normal(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def initialize_xavier(module: nn.Module) -> None:
    """Initialize one module of MAE, for `nn.Module.apply`.

    Weights of linear layers: uniform, so that forward and backward keep the variance (Glorot and
    Bengio, 2010); biases 0. A convolution starts as the linear layer on its patches that it is;
    its bias keeps torch's default. Source: the authors' code of MAE (He et al., 2022).

    Args:
        module: module whose own parameters are set.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight.data.flatten(1))  # a view of the weight
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def cut_normal(tensor: Tensor) -> None:
    """Fill a tensor in place from the normal distribution of 0.02, cut at one deviation."""
    nn.init.trunc_normal_(
        tensor, std=STANDARD_DEVIATION, a=-STANDARD_DEVIATION, b=STANDARD_DEVIATION
    )


def inverse_cut_normal(tensor: Tensor) -> None:
    """Fill a tensor in place from the distribution of `cut_normal`, with other draws.

    It inverts the distribution function, which is about a hundred times faster than the rejection
    there: seconds instead of minutes for a large model.
    """
    limit = math.erf(math.sqrt(0.5))
    with torch.no_grad():
        tensor.uniform_(-limit, limit).erfinv_().mul_(math.sqrt(2.0) * STANDARD_DEVIATION)
        tensor.clamp_(-STANDARD_DEVIATION, STANDARD_DEVIATION)


def initialize_cut_normal(
    module: nn.Module, *, fill: Callable[[Tensor], None] = cut_normal
) -> None:
    """Initialize one module of BEiT or of SimMIM's encoder, for `nn.Module.apply`.

    Weights of linear layers and convolutions: a cut normal distribution; all biases 0. Source: the
    authors' code of BEiT (Bao et al., 2022) and of SimMIM (Xie et al., 2022), for pre-training.

    Args:
        module: module whose own parameters are set.
        fill: fills a weight.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        fill(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def rescale_blocks(blocks: Iterable[nn.Module]) -> None:
    """Divide what block i (from 1) adds to its shortcut by sqrt(2 i).

    Source: BEiT (Bao et al., 2022), section 2.5, which SimMIM follows.

    Args:
        blocks: `MultiscaleBlock`s, in their order.
    """
    for number, block in enumerate(blocks, start=1):
        for name in ("attn.proj.weight", "mlp.fc2.weight"):
            block.get_parameter(name).div_(math.sqrt(2.0 * number))


class Initialization(NamedTuple):
    """How a network starts; each but the first and last is for `nn.Module.apply`.

    Attributes:
        token: fills a cls or mask token.
        positions: fills a table of learned absolute positions of the encoder.
        encoder: patches, blocks and the last norm of a classifier.
        classifier: the linear layer of a classifier, before its scale.
        to_decoder: the layers between an autoencoder's encoder and decoder.
        predictor: decoder blocks, norm and linear layer of a prediction.
        rescale: rescales the blocks of the encoder after that.
    """

    token: Callable[[Tensor], None]
    positions: Callable[[Tensor], None]
    encoder: Callable[[nn.Module], None]
    classifier: Callable[[nn.Module], None]
    to_decoder: Callable[[nn.Module], None]
    predictor: Callable[[nn.Module], None]
    rescale: Callable[[Iterable[nn.Module]], None]


def _as_it_is(module: object) -> None:
    """Leave what torch made."""


_initialize_beit = partial(initialize_cut_normal, fill=inverse_cut_normal)

# Values of MVIT.INIT. The published autoencoder leaves its encoder's last norm, and the layer
# after it, as torch makes them. BEiT's fine-tuning does not cut the classifier's distribution.
INITIALIZATIONS = {
    "published": Initialization(
        token=truncated_normal,
        positions=truncated_normal,
        encoder=initialize_encoder,
        classifier=initialize_encoder,
        to_decoder=_as_it_is,
        predictor=initialize_predictor,
        rescale=_as_it_is,
    ),
    "xavier": Initialization(
        token=truncated_normal,
        positions=truncated_normal,
        encoder=initialize_xavier,
        classifier=initialize_predictor,
        to_decoder=initialize_xavier,
        predictor=initialize_xavier,
        rescale=_as_it_is,
    ),
    "rescaled": Initialization(
        token=cut_normal,
        positions=truncated_normal,
        encoder=initialize_cut_normal,
        classifier=initialize_predictor,
        to_decoder=initialize_cut_normal,
        predictor=initialize_predictor,
        rescale=rescale_blocks,
    ),
    "beit": Initialization(
        token=inverse_cut_normal,
        positions=inverse_cut_normal,
        encoder=_initialize_beit,
        classifier=initialize_predictor,
        to_decoder=_initialize_beit,
        predictor=_initialize_beit,
        rescale=rescale_blocks,
    ),
}
