"""The interface of backbones, held by every network, and the models of any backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.golden_rule import fill_with_golden_weights, golden_randn
from helpers.small_options import encoder_options
from helpers.toy_backbone import ToyBackbone
from torch import Tensor, nn

from slowfast_maskfeat.backbones import (
    Backbone,
    Classifier,
    DecoderOptions,
    FeatureModel,
    LayeredModel,
    MaskedAutoencoder,
    MaskedModel,
    MaskedMViT,
    MaskedPredictor,
    MViT,
    MViTDetector,
    NormedEncoder,
    resize_mask,
)
from slowfast_maskfeat.backbones.complexity import count_complexity
from slowfast_maskfeat.engine.optimizer import parameter_groups
from slowfast_maskfeat.shapes import Grid

# Patches of 2x8x8 that do not overlap; width 16, doubled at block 1, whose queries are pooled.
MULTISCALE: dict[str, Any] = {
    "clip_size": (4, 32, 32),
    "patch_kernel": (2, 8, 8),
    "patch_stride": (2, 8, 8),
    "patch_padding": (0, 0, 0),
    "width": 16,
    "depth": 3,
    "pool_kernel": (3, 3, 3),
    "pool_q_stride": [[1, 1, 2, 2]],
    "dim_mul": [[1, 2.0]],
    "head_mul": [[1, 2.0]],
}
PLAIN = {**MULTISCALE, "pool_kernel": None, "pool_q_stride": [], "dim_mul": [], "head_mul": []}


def build(kind: str, **changes: Any) -> Any:
    """A network of each class, with golden weights, in evaluation mode."""
    torch.manual_seed(0)
    options = encoder_options(**MULTISCALE | changes)
    plain = encoder_options(**PLAIN | changes)
    builders = {
        "NormedEncoder": lambda: NormedEncoder(options),
        "MViT": lambda: MViT(options, num_classes=5),
        "MViTDetector": lambda: MViTDetector(options, num_classes=5),
        "MaskedMViT": lambda: MaskedMViT(options, prediction_depths=(2,), prediction_dims=(7,)),
        "MaskedAutoencoder": lambda: MaskedAutoencoder(
            plain, prediction_dim=7, decoder=DecoderOptions(depth=1, width=32, num_heads=2)
        ),
        "ToyBackbone": lambda: ToyBackbone(has_cls=changes.get("has_cls", True)),
    }
    return fill_with_golden_weights(builders[kind]()).eval()


KINDS = ["NormedEncoder", "MViT", "MViTDetector", "MaskedMViT", "MaskedAutoencoder", "ToyBackbone"]
WITH_MASK_TOKEN = ["MaskedMViT", "ToyBackbone"]


def clips_of(*size: int, batch: int = 2) -> Tensor:
    return golden_randn(1, (batch, 3, *size))


@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_network_is_a_backbone(kind: str, has_cls: bool) -> None:
    model = build(kind, has_cls=has_cls)
    assert isinstance(model, Backbone)
    assert model.has_cls is has_cls
    for size in ((4, 32, 32), (6, 64, 32)):
        *_, grid = model.grids(size)
        # Sizes are multiples of the stride, so that the tokens cover the clip exactly.
        covered = tuple(cells * step for cells, step in zip(grid, model.token_stride, strict=True))
        assert covered == size
        tokens = model.tokens(clips_of(*size))
        assert tokens.shape == (2, grid.num_tokens + has_cls, model.width)
        pooled = model.pooled(tokens)
        torch.testing.assert_close(pooled, tokens[:, 0] if has_cls else tokens.mean(dim=1))
    layers = {model.layer_id(name) for name, _ in model.named_parameters()}
    assert layers == set(range(model.num_layers + 1))
    assert model.no_weight_decay() <= {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kind", ["NormedEncoder", "MViT", "MaskedAutoencoder"])
def test_tokens_are_those_after_the_last_norm(kind: str) -> None:
    model, clips = build(kind), clips_of(4, 32, 32)
    nn.init.ones_(model.norm.weight)
    nn.init.zeros_(model.norm.bias)
    tokens = model.tokens(clips)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(tokens.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        tokens.var(-1, correction=0), torch.ones(tokens.shape[:2]), atol=1e-3, rtol=0
    )


def test_a_pre_training_without_a_last_norm_has_tokens_before_one() -> None:
    """The tokens that its head takes: those of a normed encoder with the same weights, unnormed."""
    masked, normed = build("MaskedMViT"), build("NormedEncoder")
    normed.load_state_dict(masked.state_dict(), strict=False)
    clips = clips_of(4, 32, 32)
    assert torch.equal(normed.norm(masked.tokens(clips)), normed.tokens(clips))


def hidden_mask() -> Tensor:
    """(2, 2, 4, 4): one token of the first clip, three of the second."""
    mask = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2, 3] = True
    mask[1, 0, :3, 0] = True
    return mask


@pytest.mark.parametrize("kind", WITH_MASK_TOKEN)
def test_masked_patches_are_replaced_by_the_mask_token(kind: str) -> None:
    model, mask, clips = build(kind), hidden_mask(), clips_of(4, 32, 32)
    pixels = resize_mask(mask, Grid(4, 32, 32))[:, None]
    tokens = model.tokens(clips, mask)
    assert torch.equal(model.tokens(torch.where(pixels, clips + 1.0, clips), mask), tokens)
    assert not torch.equal(model.tokens(torch.where(pixels, clips, clips + 1.0), mask), tokens)
    assert not torch.equal(model.tokens(clips), tokens)
    with torch.no_grad():
        model.mask_token += 1.0
    assert not torch.equal(model.tokens(clips, mask), tokens)


@pytest.mark.parametrize("kind", sorted({*KINDS} - {*WITH_MASK_TOKEN}))
def test_a_mask_without_a_mask_token_is_an_error_that_names_the_class(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} has no mask token"):
        build(kind).tokens(clips_of(4, 32, 32), hidden_mask())


def test_predictions_of_a_masked_model_are_of_its_tokens() -> None:
    model, mask, clips = build("MaskedMViT"), hidden_mask(), clips_of(4, 32, 32)
    assert isinstance(model, MaskedModel)
    *_, grid = model.grids((4, 32, 32))
    (prediction,) = model(clips, mask)
    chosen = model.tokens(clips, mask)[:, 1:][resize_mask(mask, grid).flatten(1)]
    expected = model.pred_head.projections[0](model.pred_head.transforms[0][0](chosen))
    torch.testing.assert_close(prediction, expected)


@pytest.mark.parametrize(
    ("has_cls", "mean_pooling", "pooling"),
    [
        (True, False, "class token"),
        (False, False, "mean of the normed tokens"),
        (True, True, "norm of the mean token"),
        (False, True, "norm of the mean token"),
    ],
)
def test_features_are_the_pooled_tokens_but_where_the_norm_follows_the_mean(
    has_cls: bool, mean_pooling: bool, pooling: str
) -> None:
    model, clips = build("MViT", has_cls=has_cls), clips_of(4, 32, 32)
    model.mean_pooling = mean_pooling
    assert isinstance(model, FeatureModel)
    assert model.pooling == pooling
    tokens = model.tokens(clips)
    features = model.features(clips)
    if mean_pooling:
        tokens, _ = model.encode(clips)
        torch.testing.assert_close(features, model.norm(tokens[:, int(has_cls) :].mean(dim=1)))
    else:
        torch.testing.assert_close(features, model.pooled(tokens))
        assert torch.equal(model.token_features(clips), tokens[:, int(has_cls) :])


@pytest.mark.parametrize("has_cls", [True, False])
def test_a_classifier_of_an_encoder_is_the_one_with_its_own_head(has_cls: bool) -> None:
    own = build("MViT", has_cls=has_cls)
    model = Classifier(build("NormedEncoder", has_cls=has_cls), 5).eval()
    state = {
        name if name.startswith("head.") else f"backbone.{name}": value
        for name, value in own.state_dict().items()
    }
    model.load_state_dict(state)  # strict: names are backbone.* and head.projection.*
    clips = clips_of(4, 32, 32)
    torch.testing.assert_close(model(clips), own(clips))
    torch.testing.assert_close(model.features(clips), own.features(clips))
    torch.testing.assert_close(model.token_features(clips), own.token_features(clips))
    assert isinstance(model, FeatureModel)
    assert (model.width, model.pooling) == (own.width, own.pooling)
    assert model.grids((4, 32, 32)) == own.grids((4, 32, 32))
    model.mean_pooling = True
    assert model.pooling == "mean of the normed tokens"
    torch.testing.assert_close(model.features(clips), own.token_features(clips).mean(dim=1))


def test_layers_of_a_model_of_a_backbone_are_the_backbones_and_the_head_the_last() -> None:
    for model in (Classifier(ToyBackbone(has_cls=True), 5), MaskedPredictor(ToyBackbone(), [7])):
        assert isinstance(model, LayeredModel)
        ids = {name: model.layer_id(name) for name, _ in model.named_parameters()}
        assert ids["backbone.patches.weight"] == ids["backbone.mask_token"] == 0
        assert ids["backbone.blocks.1.weight"] == 2
        heads = [name for name in ids if not name.startswith("backbone.")]
        assert heads
        assert {ids[name] for name in [*heads, "backbone.norm.weight"]} == {model.num_layers} == {3}
        tokens = {name for name in ids if name.endswith("_token")}
        assert model.no_weight_decay() == tokens
        groups = parameter_groups(
            model,
            weight_decay=0.1,
            zero_decay_1d=False,
            zero_decay_names=model.no_weight_decay(),
            layer_decay=0.5,
            layer_id=model.layer_id,
            num_layers=model.num_layers,
        )
        grouped = sum(len(group["params"]) for group in groups)
        assert grouped == len(list(model.parameters()))


@pytest.mark.parametrize("has_cls", [True, False])
def test_a_masked_predictor_predicts_at_the_masked_tokens_in_their_order(has_cls: bool) -> None:
    torch.manual_seed(0)
    model = MaskedPredictor(ToyBackbone(has_cls=has_cls), [7, 9])
    mask, clips = hidden_mask(), clips_of(4, 32, 32)
    assert isinstance(model, MaskedModel)
    assert model.prediction_grids((4, 32, 32)) == [Grid(2, 4, 4)] * 2
    predictions = model(clips, mask)
    assert [p.shape for p in predictions] == [(4, 7), (4, 9)]
    tokens = model.backbone.tokens(clips, mask)[:, int(has_cls) :].unflatten(1, (2, 4, 4))
    places = [(0, 1, 2, 3), (1, 0, 0, 0), (1, 0, 1, 0), (1, 0, 2, 0)]
    for prediction, linear in zip(predictions, model.pred_head, strict=True):
        expected = torch.stack([linear(tokens[place]) for place in places])
        torch.testing.assert_close(prediction, expected)
    sum(p.square().sum() for p in predictions).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_model_of_a_backbone_can_be_counted() -> None:
    """A row of patches and one of each block of ours; of a foreign one the rest is all."""
    clips = torch.empty(1, 3, 4, 32, 32, device="meta")
    with torch.device("meta"):
        own = MViT(encoder_options(**MULTISCALE), num_classes=5)
        wrapped = Classifier(NormedEncoder(encoder_options(**MULTISCALE)), 5)
        foreign = Classifier(ToyBackbone(), 5)
    expected, found = count_complexity(own, clips), count_complexity(wrapped, clips)
    assert [part.name for part in found.parts] == [
        *(f"backbone.{part.name}" for part in expected.parts[:-1]),
        "rest",
    ]
    assert [part.multiply_adds for part in found.parts[:-1]] == [
        part.multiply_adds for part in expected.parts[:-1]
    ]
    (rest,) = count_complexity(foreign, clips).parts
    assert rest.name == "rest"
    assert rest.num_parameters == sum(p.numel() for p in foreign.parameters())
