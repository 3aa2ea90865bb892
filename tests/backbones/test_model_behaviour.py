"""What models promise beyond numbers: other sizes, checkpointing, masks, layer ids, messages."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from helpers.golden_rule import fill_with_golden_weights, golden_parameter_groups
from helpers.small_options import encoder_options
from helpers.tiny_cases import config_of
from torch import Tensor

from slowfast_maskfeat.backbones import EncoderOptions, MaskedMViT, MViT, resize_mask
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.config import default_config, load_config
from slowfast_maskfeat.shapes import Grid


def options(**changes: Any) -> EncoderOptions:
    """A small MViTv2."""
    values: dict[str, Any] = {
        "clip_size": (4, 32, 32),
        "width": 16,
        "depth": 3,
        "pool_kernel": (3, 3, 3),
        "pool_q_stride": [[0, 1, 1, 1], [1, 1, 2, 2], [2, 1, 1, 1]],
        "pool_kv_stride_adaptive": (1, 4, 4),
        "dim_mul": [[1, 2.0]],
        "head_mul": [[1, 2.0]],
        "absolute_positions": False,
        "rel_pos_spatial": True,
        "rel_pos_temporal": True,
        "residual_pooling": True,
    }
    return encoder_options(**values | changes)


def classifier(**changes: Any) -> MViT:
    torch.manual_seed(0)
    model = MViT(options(**changes), num_classes=5)
    return fill_with_golden_weights(model)  # type: ignore[return-value]


def masked(**changes: Any) -> MaskedMViT:
    torch.manual_seed(0)
    model = MaskedMViT(options(**changes), prediction_depths=(0, 2), prediction_dims=(7, 9))
    return fill_with_golden_weights(model)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"absolute_positions": True},
        {"absolute_positions": True, "separable_positions": True},
        {"sincos_positions": True, "has_cls": False},
    ],
)
@pytest.mark.parametrize("size", [(4, 32, 32), (8, 32, 32), (4, 48, 40), (1, 32, 32), (6, 30, 34)])
def test_any_clip_size_works(changes: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = classifier(**changes).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_one_frame_fills_the_patch_of_a_video_model() -> None:
    """A 2-frame patch without padding meets an image: the same as the frame twice."""
    patches = {"patch_kernel": (2, 8, 8), "patch_stride": (2, 8, 8), "patch_padding": (0, 0, 0)}
    model = classifier(**patches).eval()
    image = torch.randn(1, 3, 1, 32, 32)
    torch.testing.assert_close(model(image), model(image.repeat(1, 1, 2, 1, 1)))
    assert model.patch_grid((1, 32, 32)) == Grid(1, 4, 4)


def test_activation_checkpointing_changes_nothing() -> None:
    results = []
    for recompute in (False, True):
        model = classifier(activation_checkpoint=recompute, drop_path_rate=0.5).train()
        torch.manual_seed(3)
        loss = model(torch.randn(3, 3, 4, 32, 32)).square().sum()
        loss.backward()
        results.append((loss, {n: p.grad for n, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 2)])
def test_only_chosen_blocks_are_computed_again(blocks: tuple[int, ...]) -> None:
    """Same loss and gradients, bit for bit, and each chosen block runs a second time."""
    results = []
    for options in ({}, {"activation_checkpoint": True, "checkpointed_blocks": blocks}):
        model = classifier(**options, depth=3, drop_path_rate=0.5).train()
        runs = [0, 0, 0]
        for number, block in enumerate(model.blocks):
            block.norm1.register_forward_hook(partial(_count, runs, number))
        torch.manual_seed(3)
        loss = model(torch.randn(3, 3, 4, 32, 32)).square().sum()
        loss.backward()
        results.append((loss, [p.grad for p in model.parameters()], runs))
    (loss, gradients, once), (same_loss, same_gradients, twice) = results
    assert once == [1, 1, 1]
    assert twice == [1 + (number in blocks) for number in range(3)]
    assert torch.equal(loss, same_loss)
    assert all(map(torch.equal, gradients, same_gradients))


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        (
            [16],
            r"MODEL.ACT_CHECKPOINT_BLOCKS must be block numbers below MVIT.DEPTH 16, got \[16\]",
        ),
        ([-1], r"MODEL.ACT_CHECKPOINT_BLOCKS must be block numbers >= 0, got .*-1"),
        ([0.5], r"MODEL.ACT_CHECKPOINT_BLOCKS must be block numbers >= 0, got .*0.5"),
    ],
)
def test_blocks_that_do_not_exist(blocks: list[float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build_model(load_config([], ["MODEL.ACT_CHECKPOINT_BLOCKS", str(blocks)]))


def _count(runs: list[int], number: int, *_: object) -> None:
    runs[number] += 1


def test_train_and_eval_give_the_same_scores_without_dropout() -> None:
    model, clips = classifier(), torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(model.train()(clips), model.eval()(clips))


def test_bf16_autocast_stays_close() -> None:
    model, clips = classifier().eval(), torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        expected = model(clips)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(clips)
    assert (logits - expected).norm() < 0.1 * expected.norm()


def test_masked_model_predicts_at_every_depth_in_token_order() -> None:
    model = masked().eval()
    mask = torch.rand(2, 2, 4, 4) < 0.4
    clips = torch.randn(2, 3, 4, 32, 32)
    predictions = model(clips, mask)
    grids = model.prediction_grids((4, 32, 32))
    assert grids == [Grid(2, 8, 8), Grid(2, 4, 4)]
    for prediction, grid, dim in zip(predictions, grids, (7, 9), strict=True):
        assert prediction.shape == (int(resize_mask(mask, grid).sum()), dim)
    # One clip alone gives that clip's rows, so rows come clip by clip.
    alone = model(clips[1:], mask[1:])[1]
    torch.testing.assert_close(predictions[1][int(mask[0].sum()) :], alone, rtol=1e-4, atol=1e-5)


def test_what_is_masked_does_not_reach_the_predictions() -> None:
    """With non-overlapping patches, pixels under the mask have no influence at all."""
    patches = {"patch_kernel": (2, 8, 8), "patch_stride": (2, 8, 8), "patch_padding": (0, 0, 0)}
    model = masked(**patches).eval()
    mask = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2, 3] = True
    clips = torch.randn(1, 3, 4, 32, 32)
    changed = clips.clone()
    changed[:, :, 2:4, 16:24, 24:32] += 1.0
    assert torch.equal(model(clips, mask)[0], model(changed, mask)[0])
    changed[:, :, 0, 0, 0] += 1.0
    assert not torch.equal(model(clips, mask)[0], model(changed, mask)[0])


def test_resize_mask_takes_the_nearest_cell() -> None:
    mask = torch.rand(2, 2, 4, 4) < 0.5
    for grid in (Grid(4, 8, 8), Grid(2, 4, 4), Grid(1, 2, 2), Grid(2, 16, 2)):
        expected = torch.nn.functional.interpolate(mask.float()[:, None], size=tuple(grid))
        assert torch.equal(resize_mask(mask, grid), expected[:, 0].bool())


def test_mask_that_does_not_fit_names_both_grids_and_the_key() -> None:
    with pytest.raises(ValueError, match=r"2x3x4.*2x8x8.*AUG\.MASK_WINDOW_SIZE"):
        masked()(torch.randn(1, 3, 4, 32, 32), torch.zeros(1, 2, 3, 4, dtype=torch.bool))


def test_layer_ids_are_the_published_ones() -> None:
    rows = golden_parameter_groups()["k400_MVITv2_S_16x4_FT"]
    model = classifier(depth=16, pool_q_stride=[], dim_mul=[], head_mul=[])
    for name, _, scale, _ in rows["rows"]:
        layer = model.layer_id(name)
        assert rows["layer_decay"] ** (model.num_layers - layer) == pytest.approx(scale)


def test_tokens_and_positions_are_exempt_from_weight_decay() -> None:
    """Where the published lists are whole, they are these; of relative positions all tables are."""
    published = golden_parameter_groups()
    v1 = classifier(
        absolute_positions=True,
        separable_positions=True,
        rel_pos_spatial=False,
        rel_pos_temporal=False,
    )
    expected = published["ZERO_DECAY_POS_CLS=True:K400_MVIT_B_16x4_CONV"]["no_decay_not_1d"]
    assert v1.no_weight_decay() == set(expected)
    vit = classifier(absolute_positions=True, rel_pos_spatial=False, rel_pos_temporal=False)
    expected = published["ZERO_DECAY_POS_CLS=True:in1k_VIT_B_MaskFeat_FT"]["no_decay_not_1d"]
    assert vit.no_weight_decay() == set(expected)
    tables = {f"blocks.{block}.attn.rel_pos_{axis}" for block in range(3) for axis in "thw"}
    assert classifier().no_weight_decay() == {"cls_token"} | tables
    assert masked().no_weight_decay() == {"cls_token", "mask_token"} | tables


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MVIT.EMBED_DIM": 17, "MVIT.NUM_HEADS": 2}, "width 17 is not divisible by its 2 heads"),
        ({"MVIT.POOL_Q_STRIDE": [[16, 1, 2, 2]]}, r"POOL_Q_STRIDE.*below MVIT\.DEPTH 16"),
        ({"MVIT.DIM_MUL": [[17, 2.0]]}, "DIM_MUL"),
        (
            {"MVIT.POOL_KV_STRIDE": [[0, 1, 2, 2]], "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 8, 8]},
            "POOL_KV_STRIDE_ADAPTIVE",
        ),
        ({"MVIT.PATCH_2D": True}, "PATCH_2D"),
        ({"MODEL.MODEL_NAME": "SlowFast"}, r"MODEL_NAME must be one of .*, got 'SlowFast'"),
        ({"MODEL.MODEL_NAME": "MaskMViT", "MASK.PRETRAIN_DEPTH": [16]}, "PRETRAIN_DEPTH"),
        ({"MODEL.MODEL_NAME": "MaskMViT", "MASK.PRED_HOG": True}, "4x4 pixels.*PRETRAIN_DEPTH"),
    ],
)
def test_errors_name_the_key(changes: dict[str, Any], message: str) -> None:
    cfg = config_of(changes)
    cfg.MODEL.ARCH = cfg.MODEL.MODEL_NAME.lower()
    cfg.MASK.ENABLE = cfg.MODEL.MODEL_NAME == "MaskMViT"
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_model(cfg)


@pytest.mark.parametrize(
    ("key", "value"),
    [("MVIT.MODE", "median"), ("MVIT.NORM", "batchnorm"), ("MASK.HEAD_TYPE", "joint")],
)
def test_a_value_that_no_network_has_is_an_error_of_the_configuration(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{key}.*{value}"):
        load_config([], [key, value])


def test_prediction_dims_follow_stride_and_target() -> None:
    cfg = default_config()
    cfg.MODEL.ARCH, cfg.MODEL.MODEL_NAME = "maskmvit", "MaskMViT"
    cfg.MVIT.POOL_Q_STRIDE = [[1, 1, 2, 2], [3, 2, 2, 2]]
    cfg.MASK.PRETRAIN_DEPTH = [2, 5]
    cfg.MASK.PRED_HOG = True
    assert prediction_dims(cfg) == [27, 108]
    cfg.MASK.TARGET = "pixels"
    assert prediction_dims(cfg) == [3 * 8 * 8, 3 * 16 * 16]
    cfg.MASK.TIME_STRIDE_LOSS = False
    assert prediction_dims(cfg) == [3 * 8 * 8 * 2, 3 * 16 * 16 * 4]


def test_clips_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, C, T, H, W\)"):
        classifier()(torch.randn(2, 3, 32, 32))
    image_model = classifier(
        patch_kernel=(7, 7), patch_stride=(4, 4), patch_padding=(3, 3), clip_size=(1, 32, 32)
    )
    with pytest.raises(ValueError, match="PATCH_2D"):
        image_model(torch.randn(2, 3, 4, 32, 32))


def test_layer_scale_of_the_head_is_applied_once() -> None:
    torch.manual_seed(0)
    plain = MViT(options(), num_classes=5)
    torch.manual_seed(0)
    scaled = MViT(options(), num_classes=5, head_init_scale=0.001)
    torch.testing.assert_close(
        scaled.head.projection.weight, plain.head.projection.weight * 0.001, rtol=1e-5, atol=0.0
    )
    torch.testing.assert_close(
        scaled.head.projection.bias, torch.full((5,), 2e-5), rtol=1e-5, atol=0.0
    )


def test_initial_biases_are_the_published_ones() -> None:
    state = MaskedMViT(options(), prediction_depths=(2,), prediction_dims=(9,)).state_dict()
    for name, tensor in state.items():
        if not name.endswith("bias") or name == "patch_embed.proj.bias":
            continue
        expected = 0.0 if name.startswith("pred_head") else 0.02
        assert torch.equal(tensor, torch.full_like(tensor, expected)), name
    assert state["mask_token"].std() > 0


@pytest.mark.slow
def test_compiled_model_gives_the_same() -> None:
    model, clips = masked(), torch.randn(2, 3, 4, 32, 32)
    mask = torch.rand(2, 2, 4, 4) < 0.4
    expected: list[Tensor] = model(clips, mask)
    compiled = torch.compile(model, backend="aot_eager")  # captures all, needs no C++ compiler
    for result, wanted in zip(compiled(clips, mask), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-3, atol=1e-4)
    sum(p.square().sum() for p in compiled(clips, mask)).backward()  # type: ignore[union-attr]


def test_layer_scale_weighs_what_the_blocks_add() -> None:
    """At 0 a block is its skip path; at 1 it is the block without a scale."""
    plain, scaled = classifier().eval(), classifier(layer_scale=0.5).eval()
    scales = {name for name, _ in scaled.named_parameters() if "gamma_" in name}
    assert scales == {f"blocks.{block}.gamma_{part}" for block in range(3) for part in (1, 2)}
    state = scaled.state_dict()
    clips = torch.randn(2, 3, 4, 32, 32)
    scaled.load_state_dict(
        plain.state_dict() | {name: torch.ones_like(state[name]) for name in scales}
    )
    torch.testing.assert_close(scaled(clips), plain(clips))
    scaled.load_state_dict(
        {
            **scaled.state_dict(),
            "blocks.2.gamma_1": torch.zeros(32),
            "blocks.2.gamma_2": torch.zeros(32),
        }
    )
    tokens, grid = torch.randn(1, 33, 32), Grid(2, 4, 4)
    assert torch.equal(scaled.blocks[2](tokens, grid)[0], tokens)


def test_layer_scale_starts_at_its_value() -> None:
    model = MViT(options(layer_scale=1e-4), num_classes=5)
    for name, parameter in model.named_parameters():
        if "gamma_" in name:
            assert torch.equal(parameter, torch.full_like(parameter, 1e-4))
