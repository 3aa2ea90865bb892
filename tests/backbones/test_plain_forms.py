"""A whole MViTv2 in masked pre-training: its fast forms against the plain ones."""

from __future__ import annotations

from copy import deepcopy

import torch
from helpers.load_tool import load_tool
from helpers.small_options import encoder_options
from torch import nn

from slowfast_maskfeat.backbones import MaskedMViT

plain_forms = load_tool("tools/plain_forms.py")


def model_of() -> MaskedMViT:
    """Pools with strides below and above the kernel, relative positions, two widths, drop path."""
    torch.manual_seed(0)
    options = encoder_options(
        clip_size=(4, 64, 64),
        width=16,
        depth=4,
        num_heads=1,
        absolute_positions=False,
        rel_pos_spatial=True,
        rel_pos_temporal=True,
        residual_pooling=True,
        pool_kernel=(3, 3, 3),
        pool_q_stride=[[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1], [3, 1, 1, 1]],
        pool_kv_stride_adaptive=(1, 8, 8),
        dim_mul=[[1, 2.0]],
        head_mul=[[1, 2.0]],
        drop_path_rate=0.3,
    )
    model = MaskedMViT(options, prediction_depths=[3], prediction_dims=[7])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.train()


def test_predictions_and_gradients_agree_to_rounding() -> None:
    fast = model_of()
    plain = plain_forms.make_plain(deepcopy(fast), pooling=True)
    clips = torch.randn(3, 3, 4, 64, 64)
    mask = torch.rand(3, 2, 8, 8) < 0.4
    results = []
    for model in (fast, plain):
        torch.manual_seed(1)
        (prediction,) = model(clips, mask)
        prediction.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append({"prediction": prediction.detach(), **gradients})
    ours, theirs = results
    assert ours.keys() == theirs.keys()
    # Gradients that are 0 but for rounding, as of the keys' bias, have nothing to be relative to.
    norm = torch.stack([one.norm() for one in theirs.values()]).norm()
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() < 1e-5 * expected.norm() + 1e-7 * norm, name


def test_every_layer_has_a_plain_form() -> None:
    model = plain_forms.make_plain(model_of(), pooling=True)
    kinds = {type(module).__name__ for module in model.modules()}
    assert {"PlainBlock", "ExplicitAttention", "PlainMlp", "PlainPool"} <= kinds
    assert not {"MultiscaleBlock", "PoolingAttention", "Mlp", "DepthwisePool"} & kinds
