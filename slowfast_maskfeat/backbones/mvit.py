"""(Multiscale) vision transformers with one head: the classes of clips, or of boxes in them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.base import FeatureModel
from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.heads import ClassificationHead
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.options import EncoderOptions
from slowfast_maskfeat.roi import roi_align


class NormedEncoder(Encoder):
    """All blocks and a last layer norm: the backbone of classifier and detector.

    Args:
        options: options of the encoder.
        takes_masks: see `Encoder`.
    """

    def __init__(self, options: EncoderOptions, *, takes_masks: bool = False) -> None:
        super().__init__(options, takes_masks=takes_masks)
        self.norm = nn.LayerNorm(self.width, eps=LAYER_NORM_EPSILON)
        self.norm.apply(INITIALIZATIONS[options.initialization].encoder)

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens after the last layer norm, see `Backbone.tokens`."""
        return self.norm(super().tokens(clips, mask))

    def layer_tokens(
        self, clips: Tensor, layers: Sequence[int], *, with_cls: bool = False
    ) -> list[Tensor]:
        """Tokens after some blocks, see `LayerTokens.layer_tokens`."""
        tokens, grid = self.embed(clips)
        bias = self.shared_bias(grid)
        found: dict[int, Tensor] = {}
        for index in range(max(layers) + 1):
            tokens, grid = self.run_block(index, tokens, grid, bias)
            if index in layers:
                normed = self.norm(tokens) if tokens.shape[-1] == self.width else tokens
                found[index] = normed[:, int(self.has_cls and not with_cls) :]
        return [found[layer] for layer in layers]

    def layer_widths(self) -> list[int]:
        """Width of the tokens after each block."""
        return [geometry.dim_out for geometry in self.geometries]


class MViT(NormedEncoder, FeatureModel):
    """Classifies clips.

    The cls token, or the mean of the tokens, goes through the head. As published, the mean is taken
    before the last layer norm with `mean_pooling`, and after it where there is just no cls token.
    Source: MViT (Fan et al., 2021), MViTv2 (Li et al., 2022), ViT (Dosovitskiy et al., 2021).

    Args:
        options: options of the encoder.
        num_classes: number of classes K.
        head_dropout: rate before the last linear layer.
        head_init_scale: factor of that layer's initial weights.
        mean_pooling: classify the mean of the patch tokens even where there is a cls token.
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
        self.mean_pooling = mean_pooling
        self.head = ClassificationHead(
            self.width,
            num_classes,
            dropout=head_dropout,
            init_scale=head_init_scale,
            initialization=options.initialization,
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Score the classes.

        Args:
            clips: (B, C, T, H, W), float, normalized.

        Returns:
            (B, K) raw scores, in training and evaluation alike.

        Raises:
            ValueError: the clips do not fit the patches.
        """
        return self.head(self.features(clips))

    @property
    def pooling(self) -> str:
        """How `features` pools the tokens, in words."""
        if self.mean_pooling:
            return "norm of the mean token"
        return "class token" if self.has_cls else "mean of the normed tokens"

    def features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.features`; with `mean_pooling` the norm follows the mean."""
        tokens, _ = self.encode(clips)
        if self.mean_pooling:
            return self.norm(tokens[:, int(self.has_cls) :].mean(dim=1))
        if self.has_cls:
            return self.norm(tokens[:, 0])
        return self.norm(tokens).mean(dim=1)

    def class_features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.class_features`."""
        tokens, _ = self.encode(clips)
        return self.norm(tokens[:, 0])

    def token_features(self, clips: Tensor) -> Tensor:
        """As `FeatureModel.token_features`."""
        return self.tokens(clips)[:, int(self.has_cls) :]


class MViTDetector(NormedEncoder):
    """Classifies boxes in clips.

    The tokens go through the last layer norm; the cls token is left out, and the mean over time
    is a feature map, from which `roi_align` crops each box. The largest value of each
    channel in the box goes through the head.
    Source: SlowFast networks (Feichtenhofer et al., 2019), section 5; the MViT papers keep it. The
    published head applies a sigmoid as well, in training too; here that is the loss's (deviation).

    Args:
        options: options of the encoder.
        num_classes: number of classes K.
        head_dropout: rate before the last linear layer.
        head_init_scale: factor of that layer's initial weights.
        box_resolution: bins along each side of a box.
        aligned: see `roi_align`; False is the older form.

    Raises:
        ValueError: a last token is not as many pixels high as wide.
    """

    def __init__(
        self,
        options: EncoderOptions,
        *,
        num_classes: int,
        head_dropout: float = 0.0,
        head_init_scale: float = 1.0,
        box_resolution: int = 7,
        aligned: bool = True,
    ) -> None:
        super().__init__(options)
        _, rows, columns = self.token_stride
        if rows != columns:
            raise ValueError(
                "tokens after the last block must be as high as wide for detection, got "
                f"{rows}x{columns} pixels (MVIT.PATCH_STRIDE times MVIT.POOL_Q_STRIDE)"
            )
        self.box_stride = rows
        self.box_resolution = box_resolution
        self.aligned = aligned
        self.head = ClassificationHead(
            self.width,
            num_classes,
            dropout=head_dropout,
            init_scale=head_init_scale,
            initialization=options.initialization,
        )

    def forward(self, clips: Tensor, boxes: Tensor) -> Tensor:
        """Score the classes of each box.

        Clips may be of any size. Where that is no multiple of the stride, the number of tokens is
        rounded up and the last ones stand partly for zeros outside; a pixel is still at its
        coordinate over the stride.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            boxes: (R, 5): index of the clip, x1, y1, x2, y2 in pixels of the clips.

        Returns:
            (R, K) raw scores, in training and evaluation alike; (0, K) without boxes.

        Raises:
            ValueError: the clips do not fit the patches, or see `roi_align`.
        """
        tokens, grid = self.encode(self._covered(clips))
        tokens = self.norm(tokens)[:, int(self.has_cls) :]
        features = tokens.unflatten(1, tuple(grid)).mean(dim=1).permute(0, 3, 1, 2)  # (B, D, h, w)
        crops = roi_align(
            features,
            boxes,
            output_size=self.box_resolution,
            spatial_scale=1.0 / self.box_stride,
            aligned=self.aligned,
        )
        return self.head(crops.amax(dim=(2, 3)))

    def _covered(self, clips: Tensor) -> Tensor:
        """Clips with zeros below and to the right, where patches would leave pixels out."""
        patches = self.patch_embed
        missing = [
            max((-(-size // stride) - 1) * stride + kernel - 2 * padding - size, 0)
            for size, stride, kernel, padding in zip(
                clips.shape[3:],
                patches.stride[1:],
                patches.kernel[1:],
                patches.padding[1:],
                strict=True,
            )
        ]
        return F.pad(clips, (0, missing[1], 0, missing[0])) if any(missing) else clips
