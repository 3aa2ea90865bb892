"""The detector: what its configuration means, which boxes it takes, and what boxes read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_rule import fill_with_golden_weights, golden_randn
from tiny_cases import model_of, tiny_options
from torch import Tensor, nn

from slowfast_maskfeat.backbones import MViTDetector
from slowfast_maskfeat.backbones.complexity import count_complexity
from slowfast_maskfeat.build import build_optimizer, build_task
from slowfast_maskfeat.build.run import run
from slowfast_maskfeat.config import load_config


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
    with pytest.raises(ValueError, match=r"SPATIAL_SCALE_FACTOR is 32 .*16x16 pixels"):
        detector(DETECTION__SPATIAL_SCALE_FACTOR=32)
    with pytest.raises(ValueError, match="or 0 to have it derived"):
        detector(MVIT__POOL_Q_STRIDE=[[1, 1, 2, 2]])  # 8; the golden options say 16


def test_tokens_must_be_as_high_as_wide() -> None:
    strides = [[1, 1, 2, 2], [3, 1, 2, 1]]
    with pytest.raises(ValueError, match="16x8 pixels"):
        detector(MVIT__POOL_Q_STRIDE=strides, DETECTION__SPATIAL_SCALE_FACTOR=0)


def test_detection_and_pre_training_exclude_each_other() -> None:
    options = {"MODEL.MODEL_NAME": "MaskMViT", "MODEL.ARCH": "maskmvit", "DETECTION.ENABLE": True}
    with pytest.raises(ValueError, match=r"DETECTION\.ENABLE is True .*takes 'MViT'"):
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
    """In one bin, the only sample of a box of one stride is its centre: the token itself."""
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


@pytest.mark.parametrize("loss", ["bce", "bce_logit"])
def test_only_the_model_exists_and_both_entries_say_so(loss: str, tmp_path: Any) -> None:
    pairs = ["DETECTION.ENABLE", "True", "MODEL.HEAD_ACT", "sigmoid", "MODEL.LOSS_FUNC", loss]
    cfg = load_config([], [*pairs, "NUM_GPUS", "0", "OUTPUT_DIR", str(tmp_path)])
    with pytest.raises(ValueError, match="training and testing detection is not in this version"):
        build_task(cfg)
    with pytest.raises(ValueError, match="training and testing detection is not in this version"):
        run(cfg)
