"""Masked pre-training: mask tokens in place of patches, predictions where they were."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from slowfast_maskfeat.backbones.base import MaskedModel
from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.heads import PredictionHead
from slowfast_maskfeat.backbones.masking import masked_places, resize_mask
from slowfast_maskfeat.backbones.options import DecoderOptions, EncoderOptions
from slowfast_maskfeat.shapes import Grid


def check_depths(depths: Sequence[int], num_blocks: int) -> None:
    """Check the blocks that predictions follow.

    Args:
        depths: blocks, from 0.
        num_blocks: number of blocks.

    Raises:
        ValueError: one is not a block, there is none, or they do not ascend.
    """
    is_ascending = bool(depths) and list(depths) == sorted(set(depths))
    if not is_ascending or not 0 <= depths[0] <= depths[-1] < num_blocks:
        raise ValueError(
            f"MASK.PRETRAIN_DEPTH must be ascending block numbers below MVIT.DEPTH {num_blocks}, "
            f"got {list(depths)}"
        )


class MaskedEncoder(Encoder, MaskedModel):
    """An encoder that predicts at masked tokens after some of its blocks.

    Attributes:
        prediction_depths: blocks (from 0) that a prediction follows.
    """

    prediction_depths: tuple[int, ...]

    def prediction_grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the predictions at each depth, see `MaskedModel.prediction_grids`."""
        grids = self.grids(clip_size)
        return [grids[depth] for depth in self.prediction_depths]


class MaskedMViT(MaskedEncoder):
    """Predicts features of masked patches.

    Masked patch tokens are replaced by one learned token before the positions are added; all tokens
    go through the blocks up to the last predicting depth; heads predict at the masked tokens.
    In training the MLP of the last block gets the masked tokens alone, unless blocks of a head
    follow, all tokens are pooled, or each block is compiled by itself. No layer norm follows the
    last block, so `tokens` returns, and `pooled` pools, tokens that are not normed, those after the
    last predicting depth.
    Source: MaskFeat (Wei et al., 2022), section 3.

    Args:
        options: options of the encoder.
        prediction_depths: blocks (from 0) after which a head predicts.
        prediction_dims: width of the prediction at each of them.
        decoder: blocks of each head.

    Raises:
        ValueError: a predicting depth is not a block, or they do not ascend.
    """

    def __init__(
        self,
        options: EncoderOptions,
        *,
        prediction_depths: Sequence[int],
        prediction_dims: Sequence[int],
        decoder: DecoderOptions | None = None,
    ) -> None:
        depths = tuple(prediction_depths)
        check_depths(depths, options.depth)
        super().__init__(options, num_blocks=depths[-1] + 1, takes_masks=True)
        self.prediction_depths = depths
        grids = self.grids(options.clip_size)
        self.pred_head = PredictionHead(
            dims=[self.geometries[depth].dim_out for depth in depths],
            output_dims=prediction_dims,
            grids=[grids[depth] for depth in depths],
            encoder=options,
            decoder=decoder or DecoderOptions(),
        )

    def forward(self, clips: Tensor, mask: Tensor, *, with_pooled: bool = False) -> list[Tensor]:
        """Predict at the masked tokens, see `MaskedModel.forward`."""
        tokens, grid = self.embed(clips, mask)
        bias = self.shared_bias(grid)
        predictions: list[Tensor] = []
        for index in range(len(self.blocks) - 1):
            tokens, grid = self.run_block(index, tokens, grid, bias)
            if index in self.prediction_depths:
                masked = resize_mask(mask, grid).flatten(1)
                predictions.append(self.pred_head(tokens, grid, masked, index=len(predictions)))
        prediction, tokens = self._predict_last(tokens, grid, bias, mask, whole=with_pooled)
        predictions.append(prediction)
        if with_pooled:
            predictions.append(tokens[:, int(self.has_cls) :].mean(dim=1))
        return predictions

    def _predict_last(
        self, tokens: Tensor, grid: Grid, bias: Tensor | None, mask: Tensor, *, whole: bool
    ) -> tuple[Tensor, Tensor]:
        """Run the last block and its head.

        Args:
            tokens: (B, N, D) before the block.
            grid: their grid.
            bias: of the attention, see `shared_bias`.
            mask: as `MaskedModel.forward`.
            whole: all tokens after the block are needed; otherwise those that are predicted, alone
                if possible.

        Returns:
            The prediction, (M, dim), and the tokens after the block.
        """
        block, head = len(self.blocks) - 1, len(self.prediction_depths) - 1
        masked = resize_mask(mask, self.geometries[block].output_grid(grid)).flatten(1)
        if whole or self.pred_head.has_blocks(head) or not self.blocks[block].takes_places:
            tokens, grid = self.run_block(block, tokens, grid, bias)
            return self.pred_head(tokens, grid, masked, index=head), tokens
        places = masked_places(masked, tokens.device)
        tokens, _ = self.run_block(block, tokens, grid, bias, places)
        return self.pred_head.predict(tokens, index=head), tokens
