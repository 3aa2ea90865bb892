"""BEiT's options of a transformer: biases by relative position, and of queries and values only."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.load_tool import load_tool
from torch import Tensor, nn

from slowfast_maskfeat.backbones import (
    BlockOptions,
    DecoderOptions,
    EncoderOptions,
    MaskedAutoencoder,
    MaskedMViT,
    MViT,
)
from slowfast_maskfeat.backbones.relative_bias import RelativePositionBias, bias_index
from slowfast_maskfeat.shapes import Grid

plain_forms = load_tool("tools/plain_forms.py")

SHARED = "rel_pos_bias.relative_position_bias_table"
OWN = "attn.relative_position_bias_table"


def options(*, num_frames: int = 1, block: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Three blocks of two heads on 4x6 patches of 8x8 pixels."""
    given = {"position_bias": "shared", "layer_scale": 0.1, "key_bias": False, **(block or {})}
    return EncoderOptions(
        clip_size=(num_frames, 32, 48),
        patch_kernel=(1, 8, 8),
        patch_stride=(1, 8, 8),
        patch_padding=(0, 0, 0),
        width=16,
        num_heads=2,
        depth=3,
        block=BlockOptions(**given),
        absolute_positions=False,
        **changes,
    )


def classifier(**changes: Any) -> MViT:
    """A classifier with random weights of order 1."""
    torch.manual_seed(0)
    model = MViT(options(**changes), num_classes=5, mean_pooling=True).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def images(height: int = 32, width: int = 48) -> Tensor:
    return torch.randn(2, 3, 1, height, width, generator=torch.manual_seed(1))


@pytest.mark.parametrize("has_cls", [True, False])
def test_the_table_has_a_row_for_each_offset(has_cls: bool) -> None:
    """By a loop over queries and keys, on a grid of 2x3."""
    grid = Grid(1, 2, 3)
    index = bias_index(grid, has_cls=has_cls)
    places = [(row, column) for row in range(2) for column in range(3)]
    for query, (y, x) in enumerate(places):
        for key, (other_y, other_x) in enumerate(places):
            row = (y - other_y + 1) * 5 + (x - other_x + 2)
            assert index[query + has_cls, key + has_cls] == row
    if has_cls:
        assert index[0, 1:].tolist() == [15] * 6  # the class token looks at patches
        assert index[1:, 0].tolist() == [16] * 6  # patches look at it
        assert index[0, 0] == 17
    assert len(RelativePositionBias(grid, 2, has_cls=has_cls).relative_position_bias_table) == (
        18 if has_cls else 15
    )


def test_the_bias_is_added_to_scaled_scores() -> None:
    model = classifier()
    attention, grid = model.blocks[0].attn, model.configured_grid
    tokens = torch.randn(2, 25, 16)
    bias = model.shared_bias(grid)
    result, _ = attention(tokens, grid, bias)
    projected = tokens @ attention.qkv.weight.T
    query, key, value = projected.unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    query = query + attention.q_bias.view(2, 1, 8)
    value = value + attention.v_bias.view(2, 1, 8)
    scores = (query * 8**-0.5) @ key.transpose(-1, -2) + bias
    expected = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(result, attention.proj(expected))


@pytest.mark.parametrize("kind", ["shared", "block"])
def test_fused_attention_equals_the_explicit_form(kind: str) -> None:
    fast = classifier(block={"position_bias": kind}).double()
    plain = plain_forms.make_plain(deepcopy(fast))
    torch.testing.assert_close(fast(images().double()), plain(images().double()))


def test_tables_of_blocks_equal_a_shared_one_with_the_same_numbers() -> None:
    shared, own = classifier(), classifier(block={"position_bias": "block"})
    weights = shared.state_dict()
    table = weights.pop(SHARED)
    weights |= {f"blocks.{block}.{OWN}": table for block in range(3)}
    own.load_state_dict(weights)
    torch.testing.assert_close(own(images()), shared(images()))
    # On another grid, too: the tables are resized.
    torch.testing.assert_close(own(images(48, 40)), shared(images(48, 40)))
    assert not torch.allclose(own(images()), classifier(block={"position_bias": ""})(images()))


def test_without_a_class_token() -> None:
    model = classifier(block={"has_cls": False})
    assert model.state_dict()[SHARED].shape == (7 * 11, 2)
    assert model(images()).shape == (2, 5)
    assert model(images(48, 40)).shape == (2, 5)


def test_gradients_reach_all_rows_and_recomputed_blocks_have_the_same() -> None:
    gradients = []
    for recompute in (False, True):
        model = classifier(activation_checkpoint=recompute).train()
        model(images()).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    plain, recomputed = gradients
    assert (plain[SHARED].abs().sum(dim=1) > 0).all()
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient)


def test_tokens_of_layers_are_those_of_the_whole() -> None:
    model = classifier()
    (last,) = model.layer_tokens(images(), [2])
    torch.testing.assert_close(last, model.tokens(images())[:, 1:])


def test_biases_of_queries_and_values_equal_one_without_a_part_for_keys() -> None:
    separate, joint = classifier(), classifier(block={"key_bias": True})
    weights = separate.state_dict()
    for block in range(3):
        query, value = (weights.pop(f"blocks.{block}.attn.{part}_bias") for part in "qv")
        bias = torch.cat((query, torch.zeros_like(query), value))
        weights[f"blocks.{block}.attn.qkv.bias"] = bias
    joint.load_state_dict(weights)
    torch.testing.assert_close(joint(images()), separate(images()))


def test_separate_projections_have_no_bias_of_the_keys() -> None:
    names = classifier(block={"separate_projections": True}).state_dict()
    assert {f"blocks.0.attn.{part}.bias" for part in "qv"} <= set(names)
    assert not {name for name in names if name.endswith((".k.bias", "q_bias", "v_bias"))}
    none = classifier(block={"qkv_bias": False}).state_dict()
    assert not {name for name in none if name.endswith((".qkv.bias", "q_bias", "v_bias"))}


@pytest.mark.parametrize("decays", [True, False])
def test_the_mask_token_may_decay_and_tables_of_biases_do(decays: bool) -> None:
    given = options(decays_mask_token=decays)
    model = MaskedMViT(given, prediction_depths=[2], prediction_dims=[7])
    exempt = {"cls_token"} if decays else {"cls_token", "mask_token"}
    assert model.no_weight_decay() == exempt
    assert model.layer_id(SHARED) == model.num_layers


def test_a_decoder_has_no_biases_of_positions() -> None:
    model = MaskedMViT(
        options(),
        prediction_depths=[2],
        prediction_dims=[7],
        decoder=DecoderOptions(depth=1, width=16, num_heads=2),
    )
    (result,) = model(images(), torch.rand(2, 1, 4, 6) < 0.4)
    assert result.shape[1] == 7
    assert [name for name in model.state_dict() if "bias_table" in name] == [SHARED]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 2}, r"several time steps, got 'shared' and 2x4x6"),
        ({"pool_q_stride": [[1, 1, 2, 2]]}, r"MVIT\.POOL_Q_STRIDE, got 'shared'"),
        ({"pool_kv_stride": [[1, 1, 2, 2]]}, r"MVIT\.POOL_KV_STRIDE or"),
        ({"block": {"rel_pos_spatial": True}}, r"MVIT\.REL_POS_SPATIAL"),
        ({"head_mul": [[1, 2.0]]}, r"MVIT\.HEAD_MUL"),
    ],
)
def test_encoders_that_the_table_does_not_describe_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"MVIT\.REL_POS_BIAS must be ''.*{message}"):
        classifier(**changes)


def test_an_autoencoder_is_refused() -> None:
    given = replace(options(), absolute_positions=True)
    with pytest.raises(ValueError, match=r"MASK\.MAE_ON .*leave out MVIT\.REL_POS_BIAS"):
        MaskedAutoencoder(given, prediction_dim=7, decoder=DecoderOptions(depth=1, width=16))


def test_clips_of_several_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MVIT\.REL_POS_BIAS must be '' .* got 2x4x6"):
        classifier()(torch.randn(1, 3, 2, 32, 48))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared", "block"])
def test_compiled_model_gives_the_same(kind: str) -> None:
    model = classifier(block={"position_bias": kind})
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images()), model(images()), rtol=1e-3, atol=1e-4)
