"""The detector: what its configuration means, which boxes it takes, and what boxes read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.golden_rule import fill_with_golden_weights, golden_randn
from helpers.tiny_cases import model_of, tiny_options
from torch import Tensor, nn

from slowfast_maskfeat.backbones import MViTDetector
from slowfast_maskfeat.backbones.complexity import count_complexity
from slowfast_maskfeat.builders import build_optimizer
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.shapes import Grid


def detector(**changes: Any) -> nn.Module:
    """The tiny golden detector of stride 16; two underscores in a name stand for a dot."""
    model = model_of(tiny_options("ava_aligned", **changes))
    assert isinstance(model, MViTDetector)
    return fill_with_golden_weights(model).eval()


def clips_of(*size: int, batch: int = 2) -> Tensor:
    return golden_randn(3, (batch, 3, *size))


BOXES = torch.tensor(
    [[0, 3, 5, 40, 60], [1, 20, 2, 63, 30], [1, 0, 0, 64, 64], [0, 50, 50, 58, 62.0]]
)


def test_the_spatial_scale_is_derived() -> None:
    given, derived = detector(), detector(DETECTION__SPATIAL_SCALE_FACTOR=0)
    assert given.box_stride == derived.box_stride == 16
    with torch.no_grad():
        clips = clips_of(8, 64, 64)
        assert torch.equal(given(clips, BOXES), derived(clips, BOXES))


def test_a_spatial_scale_that_contradicts_the_model_names_both() -> None:
    with pytest.raises(
        ValueError, match=r"SPATIAL_SCALE_FACTOR must be 16, .*got 32: .*16x16 pixels"
    ):
        detector(DETECTION__SPATIAL_SCALE_FACTOR=32)
    with pytest.raises(ValueError, match="must be 8, or 0 to derive it, got 16"):
        detector(MVIT__POOL_Q_STRIDE=[[1, 1, 2, 2]])  # 8; the golden options say 16


def test_tokens_must_be_as_high_as_wide() -> None:
    strides = [[1, 1, 2, 2], [3, 1, 2, 1]]
    with pytest.raises(ValueError, match="16x8 pixels"):
        detector(MVIT__POOL_Q_STRIDE=strides, DETECTION__SPATIAL_SCALE_FACTOR=0)


def test_detection_and_pre_training_exclude_each_other() -> None:
    options = {"MODEL.MODEL_NAME": "MaskMViT", "MODEL.ARCH": "maskmvit", "DETECTION.ENABLE": True}
    with pytest.raises(
        ValueError, match=r"MODEL\.MODEL_NAME 'MaskMViT' requires .*got .*DETECTION\.ENABLE True"
    ):
        model_of(options)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_raw_scores_come_out_in_training_and_evaluation(activation: str) -> None:
    model, clips = detector(MODEL__HEAD_ACT=activation), clips_of(8, 64, 64)
    with torch.no_grad():
        evaluated = model(clips, BOXES)
        trained = model.train()(clips, BOXES)
    torch.testing.assert_close(trained, evaluated)
    assert evaluated.min() < 0
    assert evaluated.max() > 1


def test_boxes_come_in_any_order_and_read_their_own_clip() -> None:
    model, clips = detector(), clips_of(8, 64, 64)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        scores = model(clips, BOXES)
        torch.testing.assert_close(model(clips, BOXES[order]), scores[order])
        first = BOXES[BOXES[:, 0] == 0]
        torch.testing.assert_close(model(clips[:1], first), scores[BOXES[:, 0] == 0])


def test_clips_without_boxes_give_no_scores_and_no_gradient() -> None:
    model = detector()
    scores = model(clips_of(8, 64, 64), torch.zeros(0, 5))
    assert scores.shape == (0, 20)
    scores.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("size", [(8, 64, 64), (8, 96, 64), (8, 50, 115), (1, 80, 64), (5, 64, 72)])
def test_a_box_around_a_token_reads_that_token(size: tuple[int, int, int]) -> None:
    """In one bin, the only sample of a box of one stride is its center: the token itself."""
    model = detector(DETECTION__ROI_XFORM_RESOLUTION=1)
    clips = clips_of(*size)
    with torch.no_grad():
        tokens, grid = model.encode(clips)
        features = model.norm(tokens)[:, 1:].reshape(2, grid.t, grid.h, grid.w, -1).mean(1)
        assert (grid.h, grid.w) == (-(-size[1] // 16), -(-size[2] // 16))
        for row, column in ((0, 0), (1, grid.w - 1), (grid.h - 1, 2)):
            box = [1, 16 * column, 16 * row, 16 * column + 16, 16 * row + 16]
            scores = model(clips, torch.tensor([box], dtype=torch.float32))
            expected = model.head(features[1:, row, column])
            torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_every_parameter_is_trained() -> None:
    cfg = load_config([], ["DETECTION.ENABLE", "True", "MVIT.PATCH_PADDING", "[1, 3, 3]"])
    model = detector()
    optimizer = build_optimizer(cfg, model)
    grouped = sum(
        parameter.numel() for group in optimizer.param_groups for parameter in group["params"]
    )
    assert grouped == sum(parameter.numel() for parameter in model.parameters())
    model(clips_of(8, 64, 64), BOXES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_it_can_be_counted() -> None:
    with torch.device("meta"):
        model = model_of(tiny_options("ava_aligned"))
        clips = torch.zeros(1, 3, 8, 64, 64)
    counts = [
        count_complexity(
            model, clips, torch.tensor([[0, 0, 0, 64, 64.0]] * num_boxes)
        ).multiply_adds
        for num_boxes in (1, 3)
    ]
    # A box: 4 x 4 positions of 64 channels to 7 x 4, these to 7 x 7 bins, and 20 classes.
    expected = 2 * 64 * (7 * 4 * 4 + 7 * 7 * 4 + 20)
    assert counts[1] - counts[0] == pytest.approx(expected, rel=1e-3)


VIT = {
    "DETECTION.ENABLE": True,
    "DETECTION.ROI_XFORM_RESOLUTION": 1,
    "MODEL.NUM_CLASSES": 7,
    "DATA.NUM_FRAMES": 4,
    "DATA.TRAIN_CROP_SIZE": 64,
    "MVIT.DEPTH": 2,
    "MVIT.EMBED_DIM": 32,
    "MVIT.NUM_HEADS": 2,
    "MVIT.PATCH_KERNEL": [2, 16, 16],
    "MVIT.PATCH_STRIDE": [2, 16, 16],
    "MVIT.PATCH_PADDING": [0, 0, 0],
}
POSITIONS = {
    "separable": {"MVIT.SEP_POS_EMBED": True},
    "joint": {},
    "joint, no cls": {"MVIT.CLS_EMBED_ON": False},
    "sine waves": {"MVIT.USE_FIXED_SINCOS_POS": True},
    "relative": {
        "MVIT.USE_ABS_POS": False,
        "MVIT.REL_POS_SPATIAL": True,
        "MVIT.REL_POS_TEMPORAL": True,
    },
}


def vit(name: str) -> MViTDetector:
    model = model_of({**VIT, **POSITIONS[name]})
    assert isinstance(model, MViTDetector)
    return fill_with_golden_weights(model).eval()


@pytest.mark.parametrize("size", [(4, 64, 64), (4, 64, 96), (4, 70, 117), (2, 33, 64)])
@pytest.mark.parametrize("name", POSITIONS)
def test_a_vit_takes_whole_frames_and_sees_all_of_them(name: str, size: tuple[int, ...]) -> None:
    model = vit(name)
    assert model.box_stride == 16
    clips = clips_of(*size, batch=1)
    height, width = size[1:]
    corner = torch.tensor([[0, width - 8, height - 8, width, height]], dtype=torch.float32)
    clips.requires_grad_()
    scores = model(clips, torch.cat([corner, torch.tensor([[0, 0, 0, 16, 16.0]])]))
    assert scores.shape == (2, 7)
    scores[0].square().sum().backward()
    assert clips.grad is not None
    assert clips.grad[..., -1, -1].abs().sum() > 0
    if size[1:] == (64, 96):  # no multiple of the training's grid, but one of the stride
        with torch.no_grad():
            tokens, grid = model.encode(clips)
            features = model.norm(tokens)[:, int(model.has_cls) :]
            features = features.reshape(1, *grid, -1).mean(1)
        torch.testing.assert_close(scores[1:], model.head(features[:, 0, 0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["separable", "joint", "joint, no cls"])
def test_positions_of_other_frames_lie_between_the_learned_ones(name: str) -> None:
    """A table that grows by one from column to column is still a ramp on a wider grid."""
    model = vit(name)
    columns = torch.arange(4.0).repeat(4)[:, None].expand(16, 32)  # of a grid of 4 x 4
    with torch.no_grad():
        for parameter_name, table in model.named_parameters():
            if "pos_embed" in parameter_name or parameter_name == "cls_token":
                table.zero_()
        if name == "separable":
            model.pos_embed_spatial.copy_(columns[None])
        else:
            model.pos_embed[:, -32:].copy_(columns.repeat(2, 1)[None])
        grid = Grid(2, 4, 11)
        tokens = model.add_positions(torch.zeros(1, grid.num_tokens, 32), grid)
    ramp = tokens[0, int(model.has_cls) :].reshape(2, 4, 11, 32)
    expected = (torch.arange(11) + 0.5) * 4 / 11 - 0.5
    inner = slice(3, 8)  # where bicubic interpolation has neighbors on both sides
    torch.testing.assert_close(
        ramp[:, :, inner], expected[inner, None].expand(2, 4, 5, 32), rtol=0, atol=0.1
    )
    assert ramp[0, 0, :, 0].diff().min() >= 0
