"""How weights start as MAE's and SimMIM's authors have it; the published form is golden."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.initialization import (
    STANDARD_DEVIATION,
    cut_normal,
    inverse_cut_normal,
)
from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.config import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs/masked_ssl"
# Of a normal distribution that is cut at one deviation: 1 - 2 phi(1) / (2 Phi(1) - 1), its root.
CUT = 0.5396


def model(name: str) -> nn.Module:
    """The model of a file, two blocks of 96 channels deep."""
    small = ["MVIT.DEPTH", "2", "MVIT.EMBED_DIM", "96", "MVIT.NUM_HEADS", "3"]
    if name.endswith("_PT"):
        small += ["MASK.PRETRAIN_DEPTH", "[1]", "MASK.DECODER_EMBED_DIM", "64"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cfg = load_config([str(CONFIGS / f"{name}.yaml")], small)
    torch.manual_seed(0)
    return build_model(cfg)


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """Weights of linear layers and convolutions, (out, in)."""
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return {n: m.weight.detach().flatten(1) for n, m in model.named_modules() if type(m) in kinds}


def check_rest(model: nn.Module, *, except_for: str = "") -> None:
    """Norms are the identity and all biases 0."""
    for name, parameter in model.named_parameters():
        if name.endswith(".bias") and name != except_for:
            assert not parameter.any(), name
        if "norm" in name and name.endswith(".weight"):
            assert (parameter == 1).all(), name


def test_mae_starts_from_glorots_uniform_weights() -> None:
    """(out + in) weights of a layer, convolution of the patches included, say the width."""
    mae = model("in1k_VIT_B_MAE_PT")
    found = kernels(mae)
    assert {"patch_embed.proj", "decoder_embed", "pred_head.projections.0"} <= set(found)
    for name, weight in found.items():
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.98 * bound < weight.abs().max() <= bound, name
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
    check_rest(mae, except_for="patch_embed.proj.bias")  # which the authors leave to torch
    for token in (mae.cls_token, mae.mask_token):
        assert float(token.detach().std()) == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("name", ["in1k_VIT_B_SimMIM_PT", "k400_VIT_B_16x4_SimMIM_PT"])
def test_simmim_starts_with_blocks_that_add_less_the_deeper_they_are(name: str) -> None:
    simmim = model(name)
    found = kernels(simmim)
    found.pop("pred_head.projections.0")  # of no block and no patch
    for layer, weight in found.items():
        scale = 1.0
        if layer.endswith(("attn.proj", "mlp.fc2")):
            scale = 1 / math.sqrt(2 * (int(layer.split(".")[1]) + 1))
        assert weight.abs().max() <= 0.02 * scale * (1 + 1e-6), layer
        assert weight.std() == pytest.approx(0.02 * CUT * scale, rel=0.03), layer
    check_rest(simmim)
    assert simmim.cls_token.abs().max() <= 0.02
    assert simmim.mask_token.abs().max() <= 0.02
    for block in simmim.blocks:
        assert (block.gamma_1 == 0.1).all()
        assert (block.gamma_2 == 0.1).all()


@pytest.mark.parametrize("name", ["in1k_VIT_B_MAE_FT", "in1k_VIT_B_SimMIM_FT"])
def test_the_classifier_after_them_starts_near_zero(name: str) -> None:
    """A normal distribution of 0.02 times 0.001; its bias and the norm's are 0."""
    classifier = model(name)
    assert float(kernels(classifier)["head.projection"].std()) == pytest.approx(2e-5, rel=0.03)
    assert not classifier.head.projection.bias.any()
    assert not classifier.norm.bias.any()


def test_both_cut_normal_distributions_are_the_same() -> None:
    """Quantiles of one million draws each; the largest are at the cut."""
    torch.manual_seed(0)
    shares = torch.linspace(0, 1, 21)
    found = []
    for fill in (cut_normal, inverse_cut_normal):
        values = torch.empty(1000, 1000)
        fill(values)
        found.append(torch.quantile(values.flatten(), shares))
    torch.testing.assert_close(found[0], found[1], rtol=0.0, atol=1e-4)
    assert float(found[1].abs().max()) <= STANDARD_DEVIATION
