"""Masked pre-training: mask tokens in place of patches, predictions where they were."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.backbones.encoder import Encoder
from slowfast_maskfeat.backbones.heads import PredictionHead
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.options import DecoderOptions, EncoderOptions
from slowfast_maskfeat.shapes import Grid


def resize_mask(mask: Tensor, grid: Grid) -> Tensor:
    """Brings a mask to a token grid by its nearest cell.

    Args:
        mask: (B, t', h', w') bool. Along each axis its size divides that of the grid (cells are
            repeated) or is divided by it (every so many-th cell is taken, the first of each group).
        grid: Grid wanted.

    Returns:
        (B, t, h, w) bool.

    Raises:
        ValueError: A size neither divides nor is divided.
    """
    if mask.ndim != 4 or mask.dtype != torch.bool:
        raise ValueError(
            "a mask is bool and has the axes (B, t, h, w), not "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    if any(size % cells and cells % size for size, cells in zip(grid, mask.shape[1:], strict=True)):
        raise ValueError(
            f"a mask on the grid {Grid(*mask.shape[1:])} does not divide the tokens' grid {grid}; "
            "set AUG.MASK_WINDOW_SIZE to a grid that does, or leave it empty to have it derived"
        )
    for axis, size in enumerate(grid, start=1):
        cells = mask.shape[axis]
        if cells < size:
            mask = mask.repeat_interleave(size // cells, dim=axis)
        elif cells > size:
            mask = mask[(slice(None),) * axis + (slice(None, None, cells // size),)]
    return mask


class MaskedModel(Encoder):
    """What models that predict at masked tokens have in common.

    Attributes:
        prediction_depths: Blocks (from 0) after which is predicted.
    """

    prediction_depths: tuple[int, ...]

    def prediction_grids(self, clip_size: Sequence[int]) -> list[Grid]:
        """Grid of the predictions at each depth.

        Args:
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            One grid per predicting depth.
        """
        grids = self.block_grids(clip_size)
        return [grids[depth] for depth in self.prediction_depths]

    def prediction_masks(self, mask: Tensor, clip_size: Sequence[int]) -> list[Tensor]:
        """Where the model predicts at each depth: row m of a prediction is the m-th True here.

        Args:
            mask: (B, t', h', w') bool, see `resize_mask`.
            clip_size: (T, H, W) in frames and pixels.

        Returns:
            One (B, N) bool per predicting depth.

        Raises:
            ValueError: The mask does not fit a grid.
        """
        return [resize_mask(mask, grid).flatten(1) for grid in self.prediction_grids(clip_size)]

    def forward(self, clips: Tensor, mask: Tensor) -> list[Tensor]:
        """Predicts at the masked tokens.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: (B, t', h', w') bool, True where masked, see `resize_mask`; on the CPU, so that
                nothing waits for the device, or on that of the clips.

        Returns:
            One (M, dim) per predicting depth, in the order of (b, t, h, w).

        Raises:
            ValueError: The clips do not fit the patches or the mask does not fit the tokens.
        """
        raise NotImplementedError


class MaskedMViT(MaskedModel):
    """Predicts features of masked patches.

    Masked patch tokens are replaced by one learned token before the positions are added; all tokens
    go through the blocks up to the last predicting depth, without a last layer norm; heads predict
    at the masked tokens.
    Source: MaskFeat (Wei et al., 2022), section 3.

    Args:
        options: What the encoder is made of.
        prediction_depths: Blocks (from 0) after which a head predicts.
        prediction_dims: Width of the prediction at each of them.
        decoder: Blocks of each head.

    Raises:
        ValueError: A predicting depth is not a block, or they do not ascend.
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
        if (
            not depths
            or list(depths) != sorted(set(depths))
            or not 0 <= depths[0] <= depths[-1] < options.depth
        ):
            raise ValueError(
                f"MASK.PRETRAIN_DEPTH is {list(depths)}; it takes ascending block numbers below "
                f"MVIT.DEPTH {options.depth}"
            )
        super().__init__(options, num_blocks=depths[-1] + 1)
        self.prediction_depths = depths
        self.mask_token = nn.Parameter(torch.zeros(1, 1, options.width))
        INITIALIZATIONS[options.initialization].token(self.mask_token)
        grids = self.block_grids(options.clip_size)
        self.pred_head = PredictionHead(
            dims=[self.geometries[depth].dim_out for depth in depths],
            output_dims=prediction_dims,
            grids=[grids[depth] for depth in depths],
            encoder=options,
            decoder=decoder or DecoderOptions(),
        )

    def forward(self, clips: Tensor, mask: Tensor) -> list[Tensor]:
        """Predicts at the masked tokens, see `MaskedModel.forward`."""
        tokens, grid = self.patch_embed(clips)
        hidden = resize_mask(mask, grid).flatten(1)  # (B, N)
        hidden = hidden.to(tokens.device, non_blocking=True)
        tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        tokens = self.add_positions(tokens, grid)
        predictions: list[Tensor] = []
        for index in range(len(self.blocks)):
            tokens, grid = self.run_block(index, tokens, grid)
            if index in self.prediction_depths:
                wanted = resize_mask(mask, grid).flatten(1)
                predictions.append(self.pred_head(tokens, grid, wanted, index=len(predictions)))
        return predictions
