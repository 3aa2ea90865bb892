"""Counting: the published figures of every model, sums by hand, and the plain forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.golden_rule import GOLDEN, golden_json
from helpers.load_tool import load_tool
from helpers.published_files import published_config
from helpers.small_options import encoder_options
from helpers.tiny_cases import model_of, tiny_options

from slowfast_maskfeat.backbones import EncoderOptions, MViT
from slowfast_maskfeat.backbones.complexity import count_complexity
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.shapes import Grid

make_plain = load_tool("tools/plain_forms.py").make_plain
LONG = ("MVITv2_L_40x3", "MVITv2_L_16x4")
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if any(part in name for part in LONG) else [])
    for name in sorted(path.stem for path in (GOLDEN / "models").glob("*.json"))
]
GROUPS = {  # how the published code names what it counts
    "scaled_dot_product_attention": "attention",
    "matmul": "attention",
    "einsum": "attention",
    "conv": "conv",
    "linear": "linear",
    "layer_norm": "layer_norm",
}


def by_group(counts: dict[str, float]) -> dict[str, float]:
    groups = dict.fromkeys(GROUPS.values(), 0.0)
    for name, count in counts.items():
        if name in GROUPS:
            groups[GROUPS[name]] += count
    return groups


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_published_ones(name: str) -> None:
    expected = golden_json(f"models/{name}.json")
    cost = measure_model(published_config(name)).complexity
    assert cost.num_parameters == expected["param_count"]
    assert cost.multiply_adds / 1e9 == pytest.approx(expected["gflops_macs"], rel=1e-3)
    theirs, ours = by_group(expected["gflops_by_op"]), by_group(cost.by_operator)
    # Where only masked or cls tokens are looked at, there are fewer norms and linear layers.
    for group, slack in (("attention", 1e-3), ("conv", 1e-6), ("linear", 1e-3)):
        assert ours[group] / 1e9 == pytest.approx(theirs[group], rel=slack), group
    assert 0.95 * theirs["layer_norm"] < ours["layer_norm"] / 1e9 <= 1.001 * theirs["layer_norm"]
    assert cost.attention / 1e9 == pytest.approx(theirs["attention"], rel=1e-3)
    assert sum(part.multiply_adds for part in cost.parts) == cost.multiply_adds
    assert sum(part.num_parameters for part in cost.parts) == cost.num_parameters
    blocks = [part for part in cost.parts if part.name.startswith("blocks.")]
    assert len(blocks) == len(expected["blocks"])


def small_options(**changes: Any) -> EncoderOptions:
    values: dict[str, Any] = {
        "clip_size": (4, 32, 32),
        "width": 12,
        "num_heads": 2,
        "depth": 1,
        "absolute_positions": False,
    }
    return encoder_options(**values | changes)


def small_classifier(**changes: Any) -> MViT:
    with torch.device("meta"):
        return MViT(small_options(**changes), num_classes=5)


def clips(*size: int) -> torch.Tensor:
    return torch.empty(1, 3, *(size or (4, 32, 32)), device="meta")


def test_a_plain_block_by_hand() -> None:
    """2x8x8 tokens and a cls token, width 12, 2 heads: 129 tokens."""
    cost = count_complexity(small_classifier(), clips())
    patch, block, rest = cost.parts
    assert patch.multiply_adds == 128 * 12 * 3 * 3 * 7 * 7
    attention = 2 * 129 * 129 * 12  # q.k and the weighted values, of all heads
    linear = 129 * (12 * 36 + 12 * 12 + 2 * 12 * 48)
    norms = 2 * 5 * 129 * 12  # five for each number
    assert block.attention == cost.attention == attention
    assert block.multiply_adds == attention + linear + norms
    assert block.grid_in == block.grid_out == Grid(2, 8, 8)
    assert rest.multiply_adds == 12 * 5 + 5 * 12
    assert rest.num_parameters == 12 + 2 * 12 + 12 * 5 + 5  # cls token, norm, classifier
    assert cost.unsupported["gelu"] == 1


def test_relative_positions_count_without_their_columns_and_padding() -> None:
    """Heads of 6 channels are computed at 6 + 2 + 8 + 8 = 24; positions cost 6 times 18 each."""
    options = {"rel_pos_spatial": True, "rel_pos_temporal": True}
    cost = count_complexity(small_classifier(**options), clips())
    products = 2 * 129 * 129 * 12
    positions = 128 * 12 * (2 + 8 + 8)
    assert cost.attention == pytest.approx(products + positions, rel=1e-4)
    assert cost.by_operator["scaled_dot_product_attention"] == products


@pytest.mark.parametrize(
    "changes",
    [
        {"rel_pos_spatial": True, "rel_pos_temporal": True, "residual_pooling": True},
        {"rel_pos_spatial": True, "dim_mul": [[1, 2.0]], "has_cls": False},
        {"pool_first": True, "pool_kernel": (1, 3, 3)},
        {"pool_first": True, "mode": "conv_unshared"},
    ],
)
def test_fast_forms_count_as_the_plain_ones(changes: dict[str, Any]) -> None:
    pooling = {
        "pool_kernel": (3, 3, 3),
        "pool_q_stride": [[0, 1, 1, 1], [1, 1, 2, 2]],
        "pool_kv_stride_adaptive": (1, 4, 4),
    }
    counts = []
    for plain in (False, True):
        model = small_classifier(**{**pooling, "depth": 2, **changes})
        if plain:
            make_plain(model, pooling=True)
        cost = count_complexity(model, clips())
        counts.append((cost.multiply_adds, cost.attention))
    assert counts[0] == pytest.approx(counts[1], rel=1e-4)


def test_another_size_costs_what_its_tokens_do() -> None:
    options = {"rel_pos_spatial": True, "rel_pos_temporal": True, "absolute_positions": True}
    model = small_classifier(**options)
    small, large = count_complexity(model, clips()), count_complexity(model, clips(4, 64, 32))
    assert large.parts[1].grid_in == Grid(2, 16, 8)
    assert large.by_operator["conv"] == 2 * small.by_operator["conv"]
    products = "scaled_dot_product_attention"
    assert large.by_operator[products] * 129**2 == small.by_operator[products] * 257**2


@pytest.mark.parametrize(("name", "is_mae"), [("pt_video_hog", False), ("mae_sincos_decsep", True)])
def test_a_mask_says_what_is_computed(name: str, is_mae: bool) -> None:
    """MaskFeat predicts at masked tokens, after the blocks; MAE encodes the others only."""
    with torch.device("meta"):
        model = model_of(tiny_options(name))
    few, many = (
        count_complexity(model, clips(8, 64, 64), torch.arange(16).reshape(1, 4, 2, 2) < masked)
        for masked in (4, 12)
    )
    assert few.parts[-1].multiply_adds < many.parts[-1].multiply_adds
    grids = [cost.parts[1].grid_in for cost in (few, many)]
    if is_mae:
        assert grids == [Grid(1, 1, 48), Grid(1, 1, 16)]  # of 64 tokens
        assert few.parts[1].multiply_adds > 2.5 * many.parts[1].multiply_adds
    else:
        assert grids[0] == grids[1]
        assert few.parts[1:-1] == many.parts[1:-1]


def test_counting_leaves_the_model_as_it_was() -> None:
    model = small_classifier().train()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    count_complexity(model, clips())
    assert model.training
    assert all(module.training for module in model.modules())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_a_model_with_values_is_refused() -> None:
    with pytest.raises(ValueError, match="'meta'"):
        count_complexity(MViT(small_options(), num_classes=5), clips())
    with pytest.raises(ValueError, match="'meta'"):
        count_complexity(small_classifier(), torch.zeros(1, 3, 4, 32, 32))
