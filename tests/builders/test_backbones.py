"""MODEL.ARCH: what it may be, and a backbone of another package in every model there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from helpers.toy_backbone import ToyBackbone
from torch import nn

from slowfast_maskfeat.backbones import Classifier, MaskedPredictor, MViT, NormedEncoder
from slowfast_maskfeat.builders import (
    build_mask_sampler,
    build_model,
    build_optimizer,
    build_task,
    register_backbone,
)
from slowfast_maskfeat.builders.backbones import (
    BACKBONES,
    backbone_width,
    build_backbone,
    prediction_grids,
    prediction_strides,
)
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.features.extraction import FeatureKind
from slowfast_maskfeat.runs.features import build_frozen_model
from slowfast_maskfeat.runs.model_info import measure_model
from slowfast_maskfeat.shapes import Grid

SIZE = {"DATA.NUM_FRAMES": 4, "DATA.TRAIN_CROP_SIZE": 32, "DATA.TEST_CROP_SIZE": 32}
CLASSIFY = {**SIZE, "MODEL.ARCH": "toy", "MODEL.MODEL_NAME": "MViT", "MODEL.NUM_CLASSES": 5}
PRETRAIN = {
    **SIZE,
    "MODEL.ARCH": "toy",
    "MODEL.MODEL_NAME": "MaskMViT",
    "MODEL.LOSS_FUNC": "multi_mse",
    "MASK.ENABLE": True,
    "MASK.TARGET": "hog",
    "AUG.MASK_RATIO": 0.4,
}
CPU = torch.device("cpu")


def config(options: dict[str, Any], **changes: Any) -> CfgNode:
    """`options` with further keys, in which two underscores stand for a dot."""
    options = {**options, **{key.replace("__", "."): value for key, value in changes.items()}}
    return load_config([], [str(word) for pair in options.items() for word in pair])


@pytest.fixture(autouse=True)
def toy() -> Iterator[None]:
    """MODEL.ARCH toy, whose width is a key of ours, for the time of a test."""
    register_backbone("toy", lambda cfg: ToyBackbone(cfg.MVIT.EMBED_DIM, has_cls=True))
    yield
    del BACKBONES["toy"]


def test_a_registered_backbone_is_built_by_its_name() -> None:
    cfg = config(CLASSIFY, MVIT__EMBED_DIM=20)
    assert isinstance(build_backbone(cfg), ToyBackbone)
    assert backbone_width(cfg) == 20


def test_it_classifies() -> None:
    cfg = config(CLASSIFY, MODEL__DROPOUT_RATE=0.0, MVIT__HEAD_INIT_SCALE=0.001)
    model = build_model(cfg)
    task = build_task(cfg, model)
    assert isinstance(model, Classifier)
    assert model.pooling == "class token"
    assert model.head.projection.weight.std() < 1e-4
    optimizer = build_optimizer(cfg, model)
    grouped = sum(len(group["params"]) for group in optimizer.param_groups)
    assert grouped == len(list(model.parameters()))
    pixels = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    output = task.step(model, ClipBatch(pixels, labels=torch.tensor([1, 4])))
    output.loss.backward()
    assert model.backbone.patches.weight.grad.any()


def test_it_is_pre_trained() -> None:
    cfg = config(PRETRAIN)
    assert prediction_strides(cfg) == [(2, 8, 8)]
    assert prediction_grids(cfg) == [Grid(2, 4, 4)]
    model = build_model(cfg)
    task = build_task(cfg, model)
    assert isinstance(model, MaskedPredictor)
    assert prediction_dims(cfg) == [27] == [linear.out_features for linear in model.pred_head]
    mask = build_mask_sampler(cfg)(np.random.default_rng(0))
    assert mask.shape == (2, 4, 4)
    pixels = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    output = task.step(model, ClipBatch(pixels, mask=mask.expand(2, -1, -1, -1)))
    assert int(output.weight) == 2 * int(mask.sum())
    output.loss.backward()
    assert model.backbone.mask_token.grad.any()


def test_the_classifier_of_a_pre_training_pools_the_mean() -> None:
    """No loss reaches the class token of a pre-training."""
    model = build_frozen_model(config(PRETRAIN), "", CPU).model
    assert isinstance(model, Classifier)
    assert model.pooling == "mean of the normed tokens"
    own = {"MODEL.ARCH": "maskmvit", "MVIT.DEPTH": 1, "MASK.PRETRAIN_DEPTH": [0]}
    model = build_frozen_model(config({**PRETRAIN, **own}), "", CPU).model
    assert isinstance(model, MViT)
    assert model.pooling == "norm of the mean token"


@pytest.mark.parametrize("arch", ["toy", "mvit"])
def test_mean_pooling_is_a_key_of_every_classifier(arch: str) -> None:
    cfg = config(CLASSIFY, MODEL__ARCH=arch, MVIT__USE_MEAN_POOLING=True)
    assert build_model(cfg).pooling.startswith("mean of" if arch == "toy" else "norm of the mean")
    assert build_model(config(CLASSIFY, MODEL__ARCH=arch)).pooling == "class token"


def test_its_features_are_taken() -> None:
    frozen = build_frozen_model(config(CLASSIFY), "", CPU)
    model = frozen.model
    clips = torch.rand(2, 3, 4, 32, 32)
    for of_tokens, take in ((False, model.features), (True, model.token_features)):
        shape = FeatureKind(pooling="none" if of_tokens else "").shape(model, (4, 32, 32))
        assert take(clips).shape[1:] == shape
    torch.testing.assert_close(
        model.features(clips), model.backbone.pooled(model.backbone.tokens(clips))
    )


def test_it_is_counted() -> None:
    info = measure_model(config(PRETRAIN))
    assert info.grid == (2, 4, 4)
    assert info.positions == "those of MODEL.ARCH toy"
    assert info.complexity.num_parameters == sum(
        parameter.numel() for parameter in build_model(config(PRETRAIN)).parameters()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASK__MAE_ON": True}, r"MASK\.MAE_ON must be False with MODEL\.ARCH 'toy', got True"),
        ({"MASK__HEAD_TYPE": "separate_xformer"}, r"MASK\.HEAD_TYPE must be 'separate' .*'toy'"),
        ({"MASK__DECODER_FIXED_SINCOS_POS": True}, r"MASK\.DECODER_FIXED_SINCOS_POS must be False"),
    ],
)
def test_keys_of_heads_that_it_does_not_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(config(PRETRAIN, **changes))


def test_its_tokens_must_cover_the_clip() -> None:
    with pytest.raises(ValueError, match=r"TRAIN_CROP_SIZE must be a multiple of 8, .* got 36"):
        prediction_grids(config(PRETRAIN, DATA__TRAIN_CROP_SIZE=36))


def test_a_clip_that_patches_do_not_cover_names_the_size_that_does_not_fit() -> None:
    own = {**PRETRAIN, "MODEL.ARCH": "maskmvit", "MVIT.DEPTH": 1, "MASK.PRETRAIN_DEPTH": [0]}
    with pytest.raises(ValueError, match=r"DATA\.NUM_FRAMES must be a multiple of 2, .* got 5"):
        prediction_grids(config(own, DATA__NUM_FRAMES=5))
    with pytest.raises(ValueError, match=r"MVIT\.PATCH_PADDING must be below half of"):
        prediction_grids(config(own, MVIT__PATCH_PADDING=[1, 5, 5]))


def test_it_detects_nothing() -> None:
    with pytest.raises(ValueError, match=r"MODEL\.ARCH must be 'mvit' with DETECTION\.ENABLE True"):
        build_model(config(CLASSIFY, DETECTION__ENABLE=True))


@pytest.mark.parametrize("arch", ["slowfast", "resnet", "MViT", ""])
def test_an_unknown_one_is_an_error_that_names_what_exists(arch: str) -> None:
    cfg = config(CLASSIFY, MODEL__ARCH=arch or "''")
    message = rf"MODEL\.ARCH must be 'mvit' or 'maskmvit' or 'toy', got '{arch}'"
    for build in (build_model, build_backbone, prediction_strides):
        with pytest.raises(ValueError, match=message):
            build(cfg)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {**PRETRAIN, "MODEL.ARCH": "mvit"},
            "MODEL.ARCH must be 'maskmvit' or 'toy' .*'MaskMViT', got 'mvit'",
        ),
        (
            {**CLASSIFY, "MODEL.ARCH": "maskmvit"},
            "MODEL.ARCH must be 'mvit' or 'toy' .*'MViT', got 'maskmvit'",
        ),
        (
            {**CLASSIFY, "MODEL.MODEL_NAME": "SlowFast"},
            "MODEL.MODEL_NAME must be .*'MViT', 'MaskMViT'.*, got 'SlowFast'",
        ),
    ],
)
def test_a_model_name_that_does_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(config(options))


def test_the_backbone_of_our_own_has_its_last_norm_and_no_head() -> None:
    backbone = build_backbone(config({**CLASSIFY, "MODEL.ARCH": "mvit", "MVIT.DEPTH": 1}))
    assert isinstance(backbone, NormedEncoder)
    assert not any(name.startswith("head.") for name, _ in backbone.named_parameters())


def test_the_backbone_of_our_own_takes_masks_if_asked_for() -> None:
    cfg = config({**CLASSIFY, "MODEL.ARCH": "mvit", "MVIT.DEPTH": 1})
    backbone = build_backbone(cfg, takes_masks=True).eval()
    clips = torch.randn(2, 3, cfg.DATA.NUM_FRAMES, *2 * [cfg.DATA.TRAIN_CROP_SIZE])
    first, *_ = backbone.grids(clips.shape[2:])
    mask = torch.zeros(2, *first, dtype=torch.bool)
    mask[1] = True
    with torch.no_grad():
        seen, masked = backbone.tokens(clips, mask), backbone.tokens(1 - clips, mask)
        plain = backbone.tokens(clips)
    torch.testing.assert_close(seen[0], plain[0])
    # All patches of the second clip are masked, so that its pixels do not matter.
    torch.testing.assert_close(seen[1], masked[1])
    assert not torch.allclose(seen[1], plain[1])


def test_a_name_is_registered_once() -> None:
    for name in ("mvit", "toy"):
        with pytest.raises(ValueError, match=f"MODEL.ARCH '{name}' is already registered"):
            register_backbone(name, lambda cfg: ToyBackbone())


class HalfBackbone(nn.Module):
    """Has some of what a backbone has."""

    width, has_cls, num_layers = 3, False, 1


def test_what_is_no_backbone_is_named_with_what_it_lacks(monkeypatch: Any) -> None:
    monkeypatch.setitem(BACKBONES, "half", type(BACKBONES["toy"])(lambda cfg: HalfBackbone()))
    with pytest.raises(ValueError, match=r"'half' .*HalfBackbone, which lacks layer_id, .*tokens"):
        build_model(config(CLASSIFY, MODEL__ARCH="half"))
