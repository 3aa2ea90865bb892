"""A last block whose MLP sees only the tokens that are predicted, against one that sees all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.load_tool import load_tool
from helpers.small_options import encoder_options
from torch import Tensor, nn

from slowfast_maskfeat.backbones import DecoderOptions, MaskedMViT
from slowfast_maskfeat.backbones.block import MultiscaleBlock
from slowfast_maskfeat.backbones.compiled import compiled
from slowfast_maskfeat.backbones.mlp import Mlp

plain_forms = load_tool("tools/plain_forms.py")


def model_of(**changes: Any) -> MaskedMViT:
    torch.manual_seed(0)
    decoder = changes.pop("decoder", None)
    depths = changes.pop("depths", [2])
    values: dict[str, Any] = {
        "clip_size": (4, 32, 32),
        "patch_kernel": (2, 8, 8),
        "patch_stride": (2, 8, 8),
        "patch_padding": (0, 0, 0),
        "width": 32,
        "num_heads": 2,
        "depth": 3,
        "drop_path_rate": 0.5,
    }
    model = MaskedMViT(
        encoder_options(**values | changes),
        prediction_depths=depths,
        prediction_dims=[5] * len(depths),
        decoder=decoder,
    )
    for parameter in model.parameters():  # no layer starts at zero
        nn.init.normal_(parameter, std=0.2)
    return model.train()


def masked_clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(6, 3, 4, 32, 32, generator=generator)
    mask = torch.rand(6, 2, 4, 4, generator=generator) < 0.4
    mask[2] = False  # a clip of which nothing is predicted
    return clips, mask


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"has_cls": False},
        {"depths": [0, 2]},
        {"activation_checkpoint": True},
        {"decoder": DecoderOptions(depth=2, width=16, num_heads=2)},
    ],
)
def test_predictions_and_gradients_are_those_of_all_tokens(changes: dict[str, Any]) -> None:
    """The same draws of drop path drop the same clips."""
    clips, mask = masked_clips()
    results = []
    for plain in (False, True):
        model = model_of(**changes)
        if plain:
            for block in model.modules():
                if type(block) is MultiscaleBlock:
                    block.__class__ = plain_forms.PlainBlock
        torch.manual_seed(7)
        predictions = model(clips, mask)
        after = torch.rand(3)
        sum(one.square().sum() for one in predictions).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((predictions, gradients, after))
    assert torch.equal(results[0][2], results[1][2])
    assert results[0][1].keys() == results[1][1].keys()
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["training", "evaluation", "blocks compiled"])
def test_only_predicted_tokens_go_through_the_last_mlp(case: str) -> None:
    clips, mask = masked_clips()
    model = model_of(drop_path_rate=0.0).train(case != "evaluation")
    shapes = []
    for module in model.modules():
        if isinstance(module, Mlp):
            module.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    if case == "blocks compiled":  # into one graph of all three
        model = compiled(model, "block", backend="eager")
    model(clips, mask)
    every = (6, 1 + 2 * 4 * 4, 32)
    last = (int(mask.sum()), 32) if case == "training" else every
    assert shapes == [every, every, last]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drop_path_of_rows_is_rounded_as_that_of_clips(dtype: torch.dtype) -> None:
    """1 / 0.9 in bfloat16 is 0.2 % too small for a factor, x / 0.9 is not on average."""
    block = model_of(drop_path_rate=0.1).blocks[-1]
    rows = torch.randn(6, 5, 32).to(dtype)
    torch.manual_seed(3)
    expected = block.drop_path(rows)
    torch.manual_seed(3)
    clips = torch.arange(6).repeat_interleave(5)
    dropped = block._drop_path_of_rows(rows.flatten(0, 1), clips, 6)
    assert torch.equal(dropped, expected.flatten(0, 1))
