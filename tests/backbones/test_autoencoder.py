"""The masked autoencoder beyond golden numbers: what it sees, other sizes, refusals, loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.golden_rule import fill_with_golden_weights
from helpers.small_options import encoder_options
from helpers.tiny_cases import model_of, tiny_options
from torch import Tensor, nn

from slowfast_maskfeat.backbones import DecoderOptions, EncoderOptions, MaskedAutoencoder
from slowfast_maskfeat.backbones.position import sincos_positions
from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.checkpoints import load_weights, save_checkpoint
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.masks import random_mask
from slowfast_maskfeat.shapes import Grid

VARIANTS: list[dict[str, Any]] = [
    {},
    {"has_cls": False},
    {"separable_positions": True, "separable_decoder": True},
    {"sincos_positions": True},
    {"sincos_positions": True, "fixed_decoder": True},
]


def options(**changes: Any) -> EncoderOptions:
    """A small plain transformer on 2x4x4 tokens."""
    values: dict[str, Any] = {
        "clip_size": (4, 32, 32),
        "patch_kernel": (2, 8, 8),
        "patch_stride": (2, 8, 8),
        "patch_padding": (0, 0, 0),
        "width": 32,
        "num_heads": 2,
        "depth": 3,
    }
    return encoder_options(**values | changes)


def autoencoder(
    *, separable_decoder: bool = False, fixed_decoder: bool = False, **changes: Any
) -> MaskedAutoencoder:
    torch.manual_seed(0)
    model = MaskedAutoencoder(
        options(**changes),
        prediction_dim=7,
        decoder=DecoderOptions(depth=2, width=48, num_heads=3),
        separable_decoder_positions=separable_decoder,
        fixed_decoder_positions=fixed_decoder,
    )
    return fill_with_golden_weights(model).eval()  # type: ignore[return-value]


def masks(grid: Grid, batch: int = 2, ratio: float = 0.75) -> Tensor:
    generator = np.random.default_rng(4)
    return torch.stack([random_mask(grid, ratio, generator) for _ in range(batch)])


def clips(*size: int, batch: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, *size)


def tokens_into(module: nn.Module) -> list[int]:
    """A list that every later call of a block adds its number of tokens to."""
    counts: list[int] = []
    module.register_forward_pre_hook(lambda module, args: counts.append(args[0].shape[1]))
    return counts


@pytest.mark.parametrize("changes", VARIANTS)
def test_blocks_see_visible_tokens_only_and_the_decoder_all(changes: dict[str, Any]) -> None:
    model = autoencoder(**changes)
    front = int(model.has_cls)
    encoded = [tokens_into(block) for block in model.blocks]
    decoded = [tokens_into(block) for block in list(model.pred_head.transforms[0])[:-1]]
    (prediction,) = model(clips(4, 32, 32), masks(Grid(2, 4, 4)))
    assert encoded == [[8 + front]] * 3
    assert decoded == [[32 + front]] * 2
    assert prediction.shape == (2 * 24, 7)


@pytest.mark.parametrize("changes", VARIANTS)
def test_hidden_pixels_have_no_influence_and_visible_ones_have(changes: dict[str, Any]) -> None:
    model, mask = autoencoder(**changes), masks(Grid(2, 4, 4))
    pixels = mask.repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    first = clips(4, 32, 32)
    expected = model(first, mask)[0]
    changed = torch.where(pixels[:, None], first + 1.0, first)
    assert not torch.equal(first, changed)
    assert torch.equal(model(changed, mask)[0], expected)
    place = tuple(pixels[1].logical_not().nonzero()[0].tolist())
    changed[(1, 0, *place)] += 1.0
    result = model(changed, mask)[0]
    assert torch.equal(result[:24], expected[:24])  # the first clip is another's business
    assert not torch.equal(result[24:], expected[24:])


def test_rows_are_the_masked_tokens_in_the_order_of_their_places() -> None:
    """With a decoder of layer norm and projection alone a row follows from its place."""
    model = autoencoder()
    head = model.pred_head
    head.transforms[0] = nn.ModuleList([list(head.transforms[0])[-1]])
    mask = masks(Grid(2, 4, 4))
    (prediction,) = model(clips(4, 32, 32), mask)
    table = model.get_parameter("decoder_pos_embed")[0, 1:] + model.mask_token[0]
    rows = head.projections[0](head.transforms[0][0](table))
    expected = torch.cat([rows[hidden.flatten()] for hidden in mask])
    torch.testing.assert_close(prediction, expected)


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("size", [(8, 32, 32), (4, 48, 40), (1, 32, 32), (2, 24, 64)])
def test_any_clip_size_works(changes: dict[str, Any], size: tuple[int, int, int]) -> None:
    model = autoencoder(**changes)
    (grid,) = model.prediction_grids(size)
    assert grid == (max(size[0] // 2, 1), size[1] // 8, size[2] // 8)
    mask = masks(grid)
    (prediction,) = model(clips(*size), mask)
    assert prediction.shape == (int(mask.sum()), 7)
    assert prediction.isfinite().all()


@pytest.mark.parametrize("changes", VARIANTS[:3])
def test_another_size_is_the_model_of_that_size_with_these_weights(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """Positions of encoder and decoder are brought to a clip as a checkpoint's are to a model."""
    model = autoencoder(**changes)
    content = {"model_state": model.state_dict(), "token_grid": tuple(model.configured_grid)}
    path = save_checkpoint(tmp_path / "mae.pyth", content)
    other = autoencoder(clip_size=(8, 48, 48), **changes)
    report = load_weights(other, path, complete=True)
    assert {name for name in report.reshaped if name.startswith("dec")}
    mask = masks(Grid(4, 6, 6))
    expected = other(clips(8, 48, 48), mask)[0]
    torch.testing.assert_close(model(clips(8, 48, 48), mask)[0], expected, rtol=1e-4, atol=1e-5)


def test_fixed_positions_of_the_decoder_are_those_of_its_width() -> None:
    table = {}
    for time, grid in ((True, Grid(2, 4, 4)), (False, Grid(1, 4, 4))):
        size = (4, 32, 32) if time else (2, 32, 32)
        model = MaskedAutoencoder(
            options(clip_size=size, sincos_positions=True, sincos_time=time),
            prediction_dim=7,
            decoder=DecoderOptions(depth=1, width=48, num_heads=3),
            fixed_decoder_positions=True,
        )
        table[time] = model.get_parameter("decoder_pos_embed")
        assert not table[time].requires_grad
        assert not table[time][:, 0].any()  # the cls token's
        assert torch.equal(table[time][:, 1:], sincos_positions(grid, 48, time=time))
    assert table[True].shape == (1, 33, 48)
    with pytest.raises(ValueError, match=r"DECODER_SEP_POS_EMBED and MASK\.DECODER_FIXED"):
        autoencoder(separable_decoder=True, fixed_decoder=True)


def test_positions_of_images_are_waves_of_column_and_row() -> None:
    """MAE's: channel k of each half is a sine, later a cosine, of frequency 10000 ** (-4 k / D)."""
    grid, width = Grid(1, 3, 5), 16
    waves = sincos_positions(grid, width, time=False).view(3, 5, 2, 2, 4)  # side, sine or cosine, k
    frequencies = 10000.0 ** -(torch.arange(4).double() * 4 / width)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        for side, place in enumerate((column, row)):
            expected = torch.stack(((place * frequencies).sin(), (place * frequencies).cos()))
            torch.testing.assert_close(waves[row, column, side], expected.float())
    with pytest.raises(ValueError, match=r"SINCOS_POS_TIME must be True .* 2 time steps"):
        sincos_positions(Grid(2, 3, 5), width, time=False)
    with pytest.raises(ValueError, match=r"EMBED_DIM must be a multiple of 4 .*got 18"):
        sincos_positions(grid, 18, time=False)


def test_images_are_clips_of_one_frame() -> None:
    patches = {"patch_kernel": (8, 8), "patch_stride": (8, 8), "patch_padding": (0, 0)}
    model = autoencoder(clip_size=(1, 32, 32), **patches)
    mask = masks(Grid(1, 4, 4))
    (prediction,) = model(clips(1, 32, 32), mask)
    assert prediction.shape == (2 * 12, 7)
    with pytest.raises(ValueError, match="PATCH_2D"):
        model(clips(2, 32, 32), mask)


def test_recomputing_blocks_changes_nothing() -> None:
    results = []
    for recompute in (False, True):
        model = autoencoder(activation_checkpoint=recompute, drop_path_rate=0.5).train()
        decoder_block = model.pred_head.transforms[0][0]
        runs = tokens_into(decoder_block), tokens_into(model.blocks[1])
        torch.manual_seed(3)
        loss = model(clips(4, 32, 32), masks(Grid(2, 4, 4)))[0].square().sum()
        loss.backward()
        assert [len(run) for run in runs] == [1 + recompute] * 2
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-5, atol=1e-5)


def test_bf16_autocast_stays_close() -> None:
    model, mask = autoencoder(), masks(Grid(2, 4, 4))
    with torch.no_grad():
        expected = model(clips(4, 32, 32), mask)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = model(clips(4, 32, 32), mask)[0]
    assert (prediction - expected).norm() < 0.1 * expected.norm()


@pytest.mark.slow
def test_compiled_model_gives_the_same() -> None:
    model, mask = autoencoder(), masks(Grid(2, 4, 4))
    expected = model(clips(4, 32, 32), mask)[0]
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(clips(4, 32, 32), mask)[0], expected, rtol=1e-3, atol=1e-4)
    more = masks(Grid(2, 4, 4), ratio=0.5)  # another number of tokens
    torch.testing.assert_close(
        compiled(clips(4, 32, 32), more)[0],
        model(clips(4, 32, 32), more)[0],
        rtol=1e-3,
        atol=1e-4,
    )
    compiled(clips(4, 32, 32), mask)[0].square().sum().backward()


def test_masks_of_unequal_size_are_refused() -> None:
    mask = masks(Grid(2, 4, 4))
    mask[1] |= mask[0]
    assert mask[1].sum() > mask[0].sum()
    visible = int(mask[1].logical_not().sum())
    with pytest.raises(ValueError, match=rf"got {visible} to 8 of 32 .*MASK\.MAE_RND_MASK"):
        autoencoder()(clips(4, 32, 32), mask)
    with pytest.raises(ValueError, match=r"hides all 32; .*AUG\.MASK_RATIO"):
        autoencoder()(clips(4, 32, 32), torch.ones_like(mask))
    with pytest.raises(ValueError, match=r"2x4x3 .*2x4x4.*AUG\.MASK_WINDOW_SIZE"):
        autoencoder()(clips(4, 32, 32), mask[..., :3])


def build(**changes: Any) -> nn.Module:
    return model_of(tiny_options("mae_sincos_decsep", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MVIT__POOL_Q_STRIDE": [[1, 1, 2, 2]]}, r"MVIT\.POOL_Q_STRIDE$"),
        ({"MVIT__POOL_KV_STRIDE": [[0, 1, 2, 2]]}, r"MVIT\.POOL_KV_STRIDE"),
        ({"MVIT__POOL_KV_STRIDE_ADAPTIVE": [1, 2, 2]}, "POOL_KV_STRIDE_ADAPTIVE"),
        ({"MVIT__DIM_MUL": [[1, 2.0]]}, r"MVIT\.DIM_MUL$"),
        (
            {"MVIT__REL_POS_SPATIAL": True, "MVIT__REL_POS_TEMPORAL": True},
            r"MVIT\.REL_POS_SPATIAL, MVIT\.REL_POS_TEMPORAL",
        ),
        ({"MVIT__USE_ABS_POS": False}, r"MVIT\.USE_ABS_POS or MVIT\.USE_FIXED_SINCOS_POS"),
        ({"MASK__PRETRAIN_DEPTH": [1]}, r"PRETRAIN_DEPTH must be \[2\] .*got \[1\]"),
        ({"MASK__PRETRAIN_DEPTH": [1, 2]}, r"PRETRAIN_DEPTH must be \[2\] .*got \[1, 2\]"),
        ({"MASK__DECODER_EMBED_DIM": 48}, r"DECODER_EMBED_DIM must .*DECODER_NUM_HEADS 0, got 48"),
        ({"MASK__DECODER_NUM_HEADS": 7}, r"DECODER_NUM_HEADS must divide the width 64 .*got 7"),
    ],
)
def test_what_no_model_can_be_made_of_names_its_key(changes: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(**changes)


def test_heads_of_the_decoder() -> None:
    """As published one for every 64 channels; 16 as in the paper if the key says so."""

    def num_heads(**changes: Any) -> int:
        return build(**changes).pred_head.transforms[0][0].attn.num_heads  # type: ignore

    assert num_heads() == 1
    assert num_heads(MASK__DECODER_EMBED_DIM=512) == 8
    assert num_heads(MASK__DECODER_EMBED_DIM=512, MASK__DECODER_NUM_HEADS=16) == 16
    assert num_heads(MASK__MAE_ON=False, MASK__DECODER_NUM_HEADS=4) == 4


def test_blocks_of_a_head_behind_all_tokens_have_the_width_of_the_decoder() -> None:
    """The first of them widens, as published; their perceptrons and biases are the encoder's."""
    changes = {"MASK__DECODER_DEPTH": 2, "MASK__DECODER_NUM_HEADS": 4, "MVIT__MLP_RATIO": 2.0}
    model = build(MASK__MAE_ON=False, MVIT__QKV_BIAS=False, **changes)
    shapes = {name: list(p.shape) for name, p in model.pred_head.transforms[0].named_parameters()}
    assert shapes["0.attn.proj.weight"] == [32, 32]
    assert shapes["0.proj.weight"] == [64, 32]
    assert shapes["0.mlp.fc2.weight"] == [64, 64]
    assert shapes["1.mlp.fc1.weight"] == [128, 64]
    assert shapes["2.weight"] == [64]
    assert "1.attn.qkv.bias" not in shapes


@pytest.mark.parametrize("changes", [{"HEAD_TYPE": "separate"}, {"DECODER_DEPTH": 0}])
def test_a_decoder_without_blocks_is_refused(changes: dict[str, Any]) -> None:
    """Nothing would carry what is visible to the masked tokens."""
    with pytest.raises(ValueError, match=r"MASK\.MAE_ON requires a decoder: .*DECODER_DEPTH"):
        build(**{f"MASK__{key}": value for key, value in changes.items()})


@pytest.mark.parametrize("hog", [True, False])
@pytest.mark.parametrize("image", [True, False])
def test_every_target_and_input_takes_a_step(hog: bool, image: bool) -> None:
    changes: dict[str, Any] = {"MASK__PRED_HOG": hog}
    if image:
        changes |= {"DATA__NUM_FRAMES": 1, "MVIT__PATCH_2D": True, "MASK__TIME_STRIDE_LOSS": True}
        changes |= {"MVIT__PATCH_KERNEL": [16, 16], "MVIT__PATCH_STRIDE": [16, 16]}
        changes |= {"MVIT__PATCH_PADDING": [0, 0]}
    pairs = tiny_options("mae_sincos_decsep", **changes).items()
    cfg = load_config([], [str(word) for pair in pairs for word in pair])
    model = fill_with_golden_weights(build_model(cfg))
    task = build_task(cfg, model)
    grid = Grid(1 if image else 4, 4, 4)
    pixels = torch.randint(0, 256, (2, 3, 1 if image else 8, 64, 64), dtype=torch.uint8)
    output = task.step(model, ClipBatch(pixels, mask=masks(grid)))
    assert int(output.weight) == int(masks(grid).sum())
    output.loss.backward()
    silent = {name for name, p in model.named_parameters() if p.grad is None}
    assert silent == set()
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_the_decoder_is_the_last_layer_and_every_position_is_exempt() -> None:
    model = autoencoder(separable_positions=True, separable_decoder=True)
    last = {name for name, _ in model.named_parameters() if model.layer_id(name) == 4}
    assert {"mask_token", "decoder_embed.weight", "norm.weight", "dec_pos_embed_class"} <= last
    assert model.layer_id("cls_token") == model.layer_id("pos_embed_class") == 0
    parts = ("class", "spatial", "temporal")
    tables = {f"{front}_{part}" for front in ("pos_embed", "dec_pos_embed") for part in parts}
    assert model.no_weight_decay() == {"cls_token", "mask_token"} | tables
    assert "decoder_pos_embed" in autoencoder().no_weight_decay()


def test_a_classifier_takes_the_encoder_and_passes_over_the_decoder(tmp_path: Path) -> None:
    source = build()
    path = save_checkpoint(tmp_path / "mae.pyth", {"model_state": source.state_dict()})
    plain = {"MODEL__ARCH": "mvit", "MODEL__MODEL_NAME": "MViT", "MASK__ENABLE": False}
    classifier = build(**plain, MVIT__USE_MEAN_POOLING=True)
    report = load_weights(classifier, path)
    assert report.coverage == 1.0
    assert not report.reshaped
    assert report.missing == ("head.projection.weight", "head.projection.bias")
    fronts = {name.partition(".")[0] for name in report.unexpected}
    tables = {f"dec_pos_embed_{part}" for part in ("class", "spatial", "temporal")}
    assert fronts == {"mask_token", "decoder_embed", "pred_head"} | tables
    assert "not in the model" not in str(report)
    assert torch.equal(classifier.norm.weight, source.norm.weight)
