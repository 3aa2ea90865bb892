"""BEiT v2's VQ-KD: transformers as encoder and decoder, for the features of a teacher.

Sources: BEiT v2 (arXiv:2208.06366) and github.com/microsoft/unilm, beit2/modeling_vqkd.py, whose
names of parameters these networks have, if their keys have no bias (MVIT.KEY_BIAS False).
"""

from __future__ import annotations

from torch import Tensor, nn

from slowfast_maskfeat.backbones import Encoder, EncoderOptions
from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.losses.precision import full_precision
from slowfast_maskfeat.tokenizers.base import ImageEncoder
from slowfast_maskfeat.tokenizers.quantizer import Quantizer
from slowfast_maskfeat.tokenizers.reconstruction import ReconstructionKind
from slowfast_maskfeat.tokenizers.vq import VQTokenizer


class PatchTransformer(Encoder, ImageEncoder):
    """A vision transformer on maps: a token for each patch, normed, without the class token.

    Args:
        options: of one frame, with square patches and without pooling.

    Attributes:
        stride: rows, and columns, of a patch.
        out_channels: D, width of the tokens.
    """

    def __init__(self, options: EncoderOptions) -> None:
        super().__init__(options)
        self.fc_norm = nn.LayerNorm(self.width, eps=LAYER_NORM_EPSILON)
        self.fc_norm.apply(INITIALIZATIONS[options.initialization].encoder)
        self.stride = options.patch_stride[-1]
        self.out_channels = self.width

    def forward(self, maps: Tensor) -> Tensor:
        """Compute tokens: (B, C, H, W) -> (B, D, h, w)."""
        tokens, grid = self.encode(maps.unsqueeze(2))
        normed = self.fc_norm(tokens[:, int(self.has_cls) :])
        # (B, h * w, D) -> (B, D, h, w)
        return normed.transpose(1, 2).unflatten(2, (grid.h, grid.w))


class VQKD(VQTokenizer):
    """A transformer, two linear layers to the codes, another transformer, and two to the features.

    Args:
        encoder: (B, 3, H, W) -> (B, D', h, w).
        quantizer: of vectors of width D.
        decoder: (B, D, h, w) -> (B, D', h, w).
        num_features: width of the features.
        reconstruction: of features.
    """

    def __init__(
        self,
        encoder: PatchTransformer,
        quantizer: Quantizer,
        decoder: PatchTransformer,
        *,
        num_features: int,
        reconstruction: ReconstructionKind,
    ) -> None:
        super().__init__(encoder, quantizer, decoder, reconstruction=reconstruction, projects=True)
        self.encode_task_layer = _two_layers(encoder, quantizer.dim)
        self.decode_task_layer = _two_layers(decoder, num_features)

    def to_vectors(self, encoded: Tensor) -> Tensor:
        """Project the encoder's output in full precision: (B, D', h, w) -> (B, D, h, w)."""
        with full_precision(encoded):
            encoded = encoded.to(next(self.encode_task_layer.parameters()).dtype)
            return _over_channels(self.encode_task_layer, encoded)

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """Decode the vectors of codes: (B, D, h, w) -> (B, num_features, h, w)."""
        return _over_channels(self.decode_task_layer, super().from_vectors(vectors))

    def no_weight_decay(self) -> set[str]:
        """Names in `named_parameters` that MVIT.ZERO_DECAY_POS_CLS exempts from weight decay."""
        return {
            f"{part}.{name}"
            for part, transformer in self.named_children()
            if isinstance(transformer, PatchTransformer)
            for name in transformer.no_weight_decay()
        }


def _two_layers(transformer: PatchTransformer, out_channels: int) -> nn.Sequential:
    width = transformer.width
    layers = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out_channels))
    return layers.apply(INITIALIZATIONS[transformer.options.initialization].predictor)


def _over_channels(layers: nn.Module, maps: Tensor) -> Tensor:
    """Apply layers to the channels of maps: (B, C, h, w) -> (B, C', h, w)."""
    mapped: Tensor = layers(maps.movedim(1, -1))
    return mapped.movedim(-1, 1)
