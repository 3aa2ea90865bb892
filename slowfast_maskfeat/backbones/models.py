"""Models of any `Backbone` that has no heads of its own: a classifier and a masked predictor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from slowfast_maskfeat.backbones.base import Backbone, FeatureModel, MaskedModel
from slowfast_maskfeat.backbones.heads import ClassificationHead
from slowfast_maskfeat.backbones.initialization import initialize_predictor
from slowfast_maskfeat.backbones.masking import resize_mask, take_masked
from slowfast_maskfeat.shapes import Grid


class BackboneModel(nn.Module):
    """A model whose parameters are those of `backbone` and of heads, which are the last layer.

    Args:
        backbone: the backbone, a module.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone: Backbone = backbone
        assert "backbone" in self._modules, f"{type(backbone).__name__} must be an nn.Module"

    @property
    def num_layers(self) -> int:
        """As `LayeredModel.num_layers`."""
        return self.backbone.num_layers

    def layer_id(self, name: str) -> int:
        """As `LayeredModel.layer_id`."""
        part, _, rest = name.partition(".")
        return self.backbone.layer_id(rest) if part == "backbone" else self.num_layers

    def no_weight_decay(self) -> set[str]:
        """As `LayeredModel.no_weight_decay`."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}


class Classifier(BackboneModel, FeatureModel):
    """Classifies clips by what the backbone pools of their tokens.

    Args:
        backbone: the backbone.
        num_classes: number of classes K.
        head_dropout: rate before the linear layer.
        head_init_scale: factor of that layer's initial weights.
        mean_pooling: pool the mean of the patch tokens even where there is a class token.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        head_dropout: float = 0.0,
        head_init_scale: float = 1.0,
        mean_pooling: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.has_cls = backbone.has_cls
        self.mean_pooling = mean_pooling
        self.head = ClassificationHead(
            backbone.width, num_classes, dropout=head_dropout, init_scale=head_init_scale
        )

    @property
    def width(self) -> int:
        """Width D of a feature."""
        return self.backbone.width

    @property
    def pooling(self) -> str:
        """How `features` pools the tokens, in words."""
        if self.backbone.has_cls and not self.mean_pooling:
            return "class token"
        return "mean of the normed tokens"

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the tokens after each block, see `Backbone.grids`."""
        return self.backbone.grids(clip_size)

    def forward(self, clips: Tensor) -> Tensor:
        """Score the classes: (B, C, T, H, W), float, normalized -> (B, K) logits."""
        return self.head(self.features(clips))

    def features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.features`."""
        if self.mean_pooling:
            return self.token_features(clips).mean(dim=1)
        return self.backbone.pooled(self.backbone.tokens(clips))

    def class_features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.class_features`."""
        return self.backbone.tokens(clips)[:, 0]

    def token_features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.token_features`."""
        return self.backbone.tokens(clips)[:, int(self.backbone.has_cls) :]


class MaskedPredictor(BackboneModel, MaskedModel):
    """Predicts at masked tokens by a linear layer on the tokens of the backbone.

    The backbone gets all patches, the masked ones replaced by its mask token.

    Args:
        backbone: the backbone; it has a mask token.
        dims: width of each prediction; each has a linear layer of its own.
    """

    def __init__(self, backbone: Backbone, dims: Sequence[int]) -> None:
        super().__init__(backbone)
        self.pred_head = nn.ModuleList(nn.Linear(backbone.width, dim) for dim in dims)
        self.pred_head.apply(initialize_predictor)

    def prediction_grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the backbone's tokens, once for each prediction."""
        return [self.backbone.grids(clip_size)[-1]] * len(self.pred_head)

    def forward(self, clips: Tensor, mask: Tensor, *, with_pooled: bool = False) -> list[Tensor]:
        """Predict at the masked tokens, see `MaskedModel.forward`."""
        tokens = self.backbone.tokens(clips, mask)[:, int(self.backbone.has_cls) :]
        grid = self.backbone.grids(clips.shape[2:])[-1]
        masked = take_masked(tokens, resize_mask(mask, grid).flatten(1))  # (M, D)
        predictions = [linear(masked) for linear in self.pred_head]
        return [*predictions, tokens.mean(dim=1)] if with_pooled else predictions
