"""The masked autoencoder: only visible patches are encoded, a small decoder predicts the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.backbones.heads import PredictionHead
from slowfast_maskfeat.backbones.initialization import INITIALIZATIONS
from slowfast_maskfeat.backbones.masked import MaskedEncoder
from slowfast_maskfeat.backbones.masking import resize_mask, size_of, split_masks
from slowfast_maskfeat.backbones.options import DecoderOptions, EncoderOptions
from slowfast_maskfeat.backbones.position import fixed_table, learned_tables, table_positions
from slowfast_maskfeat.host_copies import copy_to_device
from slowfast_maskfeat.shapes import Grid


class MaskedAutoencoder(MaskedEncoder):
    """Predicts masked patches from an encoding of the visible ones.

    The visible patch tokens with their positions, and the cls token, go through the encoder and its
    last layer norm. A linear layer projects them to the decoder's width, one learned mask token
    takes the places of the others, and the decoder, which has its own positions, predicts there.
    Source: MAE (He et al., 2022), section 3; MAE as spatiotemporal learners (Feichtenhofer et al.,
    2022), section 3. The decoder's positions are learned unless `fixed_decoder_positions`, which
    the papers have; the published code of video has none of these.

    A clip may have several masks: each is predicted from an encoding of its own, by one decoder
    with a mask token for each of them. Source: V-JEPA (Bardes et al., 2024), section 3.

    Args:
        options: options of the encoder: a plain transformer, see `check_plain`.
        prediction_dim: width of the prediction.
        decoder: blocks of the decoder, and the width of its tokens.
        separable_decoder_positions: its positions are the sum of a spatial and a temporal table.
        fixed_decoder_positions: they are fixed sin-cos ones, as `options.sincos_positions`.
        num_masks: masks of each clip, m.

    Raises:
        ValueError: the encoder pools, widens, or has no absolute positions; or the decoder's are
            both separable and fixed.
    """

    def __init__(
        self,
        options: EncoderOptions,
        *,
        prediction_dim: int,
        decoder: DecoderOptions,
        separable_decoder_positions: bool = False,
        fixed_decoder_positions: bool = False,
        num_masks: int = 1,
    ) -> None:
        check_plain(options)
        super().__init__(options)
        self.prediction_depths = (options.depth - 1,) * num_masks
        start = INITIALIZATIONS[options.initialization]
        self.norm = nn.LayerNorm(options.width, eps=LAYER_NORM_EPSILON)
        self.decoder_embed = nn.Linear(options.width, decoder.width)
        for layer in (self.norm, self.decoder_embed):
            layer.apply(start.to_decoder)
        if separable_decoder_positions and fixed_decoder_positions:
            raise ValueError(
                "MASK.DECODER_SEP_POS_EMBED and MASK.DECODER_FIXED_SINCOS_POS must not both be "
                "True: separable positions are learned"
            )
        self.decoder_positions = "decoder_pos_embed"
        if separable_decoder_positions:
            self.decoder_positions = "dec_pos_embed"
        self._make_decoder_positions(decoder.width, fixed=fixed_decoder_positions)
        self.mask_token = nn.Parameter(torch.zeros(num_masks, 1, decoder.width))
        start.token(self.mask_token)
        self.pred_head = PredictionHead(
            dims=[decoder.width],
            output_dims=[prediction_dim],
            grids=[self.configured_grid],
            encoder=options,
            decoder=decoder,
        )

    def _make_decoder_positions(self, width: int, *, fixed: bool) -> None:
        name, grid = self.decoder_positions, self.configured_grid
        if fixed:
            time = self.options.sincos_time
            tables = {name: fixed_table(grid, width, has_cls=self.has_cls, time=time)}
        else:
            tables = learned_tables(
                grid, width, name=name, has_cls=self.has_cls, separable=name == "dec_pos_embed"
            )
        for table_name, table in tables.items():
            self.register_parameter(table_name, table)

    def layer_id(self, name: str) -> int:
        """As `Encoder.layer_id`; the mask token is the decoder's, so it belongs to the rest."""
        return self.num_layers if name == "mask_token" else super().layer_id(name)

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encoded tokens of all patches, see `Backbone.tokens`; a mask is an error here.

        The mask token is the decoder's.
        """
        return self.norm(super().tokens(clips, mask))

    def forward(self, clips: Tensor, mask: Tensor, *, with_pooled: bool = False) -> list[Tensor]:
        """Predict at the masked tokens.

        Args:
            clips: (B, C, T, H, W), float, normalized.
            mask: as `MaskedModel.forward`; as many tokens in each clip. Or (B, m, t', h', w').
            with_pooled: as `MaskedModel.forward`; the encoder has the visible tokens alone.

        Returns:
            One (M, dim) for each of the m masks, in the order of (b, t, h, w). With `with_pooled`,
            then one (B, D) for each of them.

        Raises:
            ValueError: the clips do not fit the patches, the mask does not fit the tokens, or it
                hides more of one clip than of another, or all.
        """
        tokens, grid = self.embed(clips)
        masks = split_masks(mask)
        if len(masks) != len(self.mask_token):
            raise ValueError(
                f"each clip must have {len(self.mask_token)} masks, one for each mask token, got "
                f"{len(masks)}"
            )
        predictions, pooled = [], []
        for mask_token, one in zip(self.mask_token, masks, strict=True):
            hidden = resize_mask(one, grid).flatten(1)  # (B, N)
            visible = copy_to_device(visible_places(hidden), tokens.device)
            latent = self.encode_visible(tokens, visible)
            filled = self._fill(self.decoder_embed(latent), mask_token, visible, grid)
            predictions.append(self.pred_head(filled, grid, hidden, index=0))
            if with_pooled:
                pooled.append(latent[:, int(self.has_cls) :].mean(dim=1))
        return predictions + pooled

    def encode_visible(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Encode the visible tokens.

        Args:
            tokens: (B, N, D) with positions, a cls token first if there is one.
            visible: (B, V) places of the visible tokens, the cls token not counted.

        Returns:
            (B, V, D) after the last layer norm, a cls token first if there is one.
        """
        if self.has_cls:
            visible = F.pad(visible + 1, (1, 0))
        tokens = torch.take_along_dim(tokens, visible[..., None], dim=1)
        # The visible tokens lie on no grid; a plain transformer needs none.
        grid = Grid(1, 1, visible.shape[1] - int(self.has_cls))
        for index in range(len(self.blocks)):
            tokens, _ = self.run_block(index, tokens, grid, None)
        return self.norm(tokens)

    def _fill(self, embedded: Tensor, mask_token: Tensor, visible: Tensor, grid: Grid) -> Tensor:
        """All tokens with the decoder's positions: (B, V, D) -> (B, N, D), cls tokens included."""
        positions, cls_position = table_positions(
            self,
            self.decoder_positions,
            has_cls=self.has_cls,
            source=self.configured_grid,
            target=grid,
        )
        width = embedded.shape[-1]
        tokens = mask_token.to(embedded.dtype).expand(len(embedded), grid.num_tokens, width)
        places = visible[..., None].expand(-1, -1, width)
        tokens = tokens.scatter(1, places, embedded[:, int(self.has_cls) :])
        tokens = tokens + positions.to(tokens.dtype)
        if cls_position is None:
            return tokens
        return torch.cat((embedded[:, :1] + cls_position.to(tokens.dtype), tokens), dim=1)


def check_plain(options: EncoderOptions) -> None:
    """Refuse an encoder that cannot run on a part of its tokens.

    Args:
        options: options of the encoder.

    Raises:
        ValueError: it pools or has relative positions, which need the whole grid; it changes its
            width; or it has no absolute positions.
    """
    geometries = options.geometries()
    refused = {
        "MVIT.POOL_Q_STRIDE": any(block.kernel_q for block in geometries),
        "MVIT.POOL_KV_STRIDE or POOL_KV_STRIDE_ADAPTIVE": any(
            block.kernel_kv for block in geometries
        ),
        "MVIT.DIM_MUL": any(block.dim != block.dim_out for block in geometries),
        "MVIT.REL_POS_SPATIAL": options.block.rel_pos_spatial,
        "MVIT.REL_POS_TEMPORAL": options.block.rel_pos_temporal,
        "MVIT.REL_POS_BIAS": bool(options.block.position_bias),
    }
    wrong = [key for key, is_on in refused.items() if is_on]
    if wrong:
        raise ValueError(
            "MASK.MAE_ON encodes the visible tokens only, which lie on no grid: the encoder must "
            f"not pool, widen or have relative positions; leave out {', '.join(wrong)}"
        )
    if not (options.absolute_positions or options.sincos_positions):
        raise ValueError(
            "MASK.MAE_ON requires MVIT.USE_ABS_POS or MVIT.USE_FIXED_SINCOS_POS True: without "
            "positions the encoder does not know where a visible token was"
        )


def visible_places(hidden: Tensor) -> Tensor:
    """Places of the visible tokens of each clip.

    Args:
        hidden: (B, N) bool, True where masked. The number of visible ones is the shape of the
            result: on the CPU it is at hand, a GPU would have to be waited for.

    Returns:
        (B, V) int64, ascending.

    Raises:
        ValueError: V is not the same for all clips, or 0.
    """
    if torch.compiler.is_compiling():
        return _places_in_graph(hidden, size_of(_count_in_graph(hidden), least=1))
    return _places(hidden, size_of(_checked_count(hidden)))


def _checked_count(hidden: Tensor) -> Tensor:
    """Number of visible tokens of each clip, () int64."""
    counts = hidden.logical_not().sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise ValueError(
            "masks must leave the same number of tokens of each clip visible with MASK.MAE_ON, got "
            f"{min(counts)} to {max(counts)} of {hidden.shape[1]} visible; MASK.MAE_RND_MASK or "
            "AUG.MASK_FRAMES True draws such masks"
        )
    if 0 in counts:
        raise ValueError(
            "masks must leave some tokens of each clip visible with MASK.MAE_ON, got one that "
            f"hides all {hidden.shape[1]}; lower AUG.MASK_RATIO"
        )
    return torch.tensor(counts[0])


def _places(hidden: Tensor, num_visible: int) -> Tensor:
    places = hidden.logical_not().nonzero()[:, 1]  # (B * V,), clip after clip
    return places.view(len(hidden), num_visible)


# Operations of their own in a graph of torch.compile, which would break where the mask is read. The
# count is checked before the graph reads it, so that a mask that does not fit is the same error.
_count_in_graph = torch.library.custom_op(
    "slowfast_maskfeat::num_visible",
    _checked_count,
    mutates_args=(),
    schema="(Tensor hidden) -> Tensor",
)
_places_in_graph = torch.library.custom_op(
    "slowfast_maskfeat::visible_places",
    _places,
    mutates_args=(),
    schema="(Tensor hidden, SymInt num_visible) -> Tensor",
)


@_count_in_graph.register_fake
def _(hidden: Tensor) -> Tensor:
    return torch.empty((), dtype=torch.int64)


@_places_in_graph.register_fake
def _(hidden: Tensor, num_visible: int) -> Tensor:
    return hidden.new_empty((len(hidden), num_visible), dtype=torch.int64)
