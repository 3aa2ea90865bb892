"""The published initialisation of the transformers."""

from __future__ import annotations

from torch import Tensor, nn

STANDARD_DEVIATION = 0.02
ENCODER_BIAS = 0.02


def truncated_normal(tensor: Tensor) -> None:
    """Fills a tensor in place from a normal distribution of standard deviation 0.02.

    The published form cuts at +-2 absolute, a hundred standard deviations: not at all.

    Args:
        tensor: Parameter to fill.
    """
    nn.init.trunc_normal_(tensor, std=STANDARD_DEVIATION)


def initialise_encoder(module: nn.Module) -> None:
    """Initialises one module of an encoder or classifier, for `nn.Module.apply`.

    Weights of linear layers and convolutions: normal, 0.02. Biases of linear layers and of layer
    norms start at 0.02, not at 0; those of convolutions keep torch's default. Published so.

    Args:
        module: Module whose own parameters are set.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        truncated_normal(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, ENCODER_BIAS)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.constant_(module.bias, ENCODER_BIAS)


def initialise_predictor(module: nn.Module) -> None:
    """Initialises one module of a prediction head, for `nn.Module.apply`.

    As `initialise_encoder`, but biases start at 0.

    Args:
        module: Module whose own parameters are set.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
        truncated_normal(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
