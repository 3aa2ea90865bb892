"""Entry points of `torch.hub.load`, such as

    torch.hub.load("path/to/slowfast_maskfeat", "from_pretrained", "checkpoint.pyth",
                   source="local")

Their arguments are those of the functions of the same names in `slowfast_maskfeat`.
"""

from slowfast_maskfeat import build_model as _build_model
from slowfast_maskfeat import from_pretrained, load_config

dependencies = ["torch", "pytorchvideo", "fvcore", "av"]
__all__ = ["from_pretrained", "network"]


def network(config, *overrides):
    """Build a network with random weights.

    Args:
        config: YAML file, or the name of a shipped one, such as "k400_MVITv2_S_16x4_FT".
        *overrides: keys and values: "MODEL.NUM_CLASSES", "10".
    """
    return _build_model(load_config([config], overrides))
