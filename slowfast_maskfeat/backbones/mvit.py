"""Classifier of clips: (multiscale) vision transformer with one head."""

from __future__ import annotations

from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.encoder import Encoder, EncoderOptions
from slowfast_maskfeat.backbones.heads import ClassificationHead
from slowfast_maskfeat.backbones.initialise import initialise_encoder
from slowfast_maskfeat.shapes import Grid


class MViT(Encoder):
    """Classifies clips.

    The cls token, or the mean of the tokens, goes through the head. With `mean_pooling` the mean is
    taken before the last layer norm, without a cls token and `mean_pooling` after it: published so.
    Source: MViT (Fan et al., 2021), MViTv2 (Li et al., 2022), ViT (Dosovitskiy et al., 2021).

    Args:
        options: What the encoder is made of.
        num_classes: Number of classes K.
        head_dropout: Rate before the last linear layer.
        head_init_scale: Factor of that layer's initial weights.
        mean_pooling: Classify the mean of the patch tokens even where there is a cls token.
    """

    def __init__(
        self,
        options: EncoderOptions,
        *,
        num_classes: int,
        head_dropout: float = 0.0,
        head_init_scale: float = 1.0,
        mean_pooling: bool = False,
    ) -> None:
        super().__init__(options)
        width = self.geometries[-1].dim_out
        self.mean_pooling = mean_pooling
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.norm.apply(initialise_encoder)
        self.head = ClassificationHead(
            width, num_classes, dropout=head_dropout, init_scale=head_init_scale
        )

    def no_weight_decay(self) -> set[str]:
        """Last parts of the names of positions and cls token (for MVIT.ZERO_DECAY_POS_CLS)."""
        last_parts = {name.rpartition(".")[2] for name, _ in self.named_parameters()}
        return {
            name
            for name in last_parts
            if name == "cls_token" or name.startswith(("pos_embed", "rel_pos"))
        }

    def encode(self, clips: Tensor) -> tuple[Tensor, Grid]:
        """Tokens after the last block, before the last layer norm.

        Args:
            clips: (B, C, T, H, W), float, normalised.

        Returns:
            (B, N, D), a cls token first if there is one, and the grid of the other tokens.
        """
        tokens, grid = self.patch_embed(clips)
        tokens = self.add_positions(tokens, grid)
        for index in range(len(self.blocks)):
            tokens, grid = self.run_block(index, tokens, grid)
        return tokens, grid

    def forward(self, clips: Tensor) -> Tensor:
        """Scores the classes.

        Args:
            clips: (B, C, T, H, W), float, normalised.

        Returns:
            (B, K) raw scores, in training and evaluation alike.

        Raises:
            ValueError: The clips do not fit the patches.
        """
        tokens, _ = self.encode(clips)
        if self.mean_pooling:
            pooled = self.norm(tokens[:, int(self.has_cls) :].mean(dim=1))
        elif self.has_cls:
            pooled = self.norm(tokens[:, 0])
        else:
            pooled = self.norm(tokens).mean(dim=1)
        return self.head(pooled)
