"""Discrete tokens of a frozen tokenizer as prediction target: BEiT (arXiv:2106.08254)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.losses import cross_entropy, mean_or_zero
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.base import Target
from slowfast_maskfeat.targets.pixel_values import pixel_values

_SMALLEST = 1e-8  # of a code's frequency, whose logarithm is taken


class TokenTarget(Target):
    """The codes of the pixels of each token.

    The tokenizer sees the predicted frames of a clip one by one and gives each token r x r codes of
    a frame.

    Args:
        tokenizer: its network has `encode`: images (B, 3, H, W) in [0, 1] -> codes (B, s, s).
        num_codes: K.
        codes_per_side: r.
        crop_size: side of the tokenizer's input in pixels. The view has it; other clips, such as
            those of figures, are resized.
        num_frames: frames of a token whose codes are predicted, F.
        clip_mean: per channel, of clips that are already normalized.
        clip_std: per channel, of clips that are already normalized.
        is_reversed: the clips are BGR.
        view: the view of a sample that the tokenizer sees, see `ClipBatch.views`.
    """

    scalar_names: ClassVar[tuple[str, ...]] = ("accuracy",)

    def __init__(
        self,
        tokenizer: FrozenNetwork,
        *,
        num_codes: int,
        codes_per_side: int,
        crop_size: int,
        clip_mean: Sequence[float],
        clip_std: Sequence[float],
        num_frames: int = 1,
        is_reversed: bool = False,
        view: int = 0,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.num_codes = num_codes
        self.codes_per_side = codes_per_side
        self.crop_size = crop_size
        self.num_frames = num_frames
        self.clip_mean, self.clip_std = tuple(clip_mean), tuple(clip_std)
        self.is_reversed = is_reversed
        self.view = view

    @property
    def codes_per_token(self) -> int:
        """Codes of a token: F * r * r."""
        return self.num_frames * self.codes_per_side**2

    @property
    def has_pictures(self) -> bool:
        """Whether `to_frames` makes pictures of codes."""
        network: Any = self.tokenizer.network
        return bool(network.has_pictures)

    @property
    def dim(self) -> int:
        """Logits per token."""
        return self.codes_per_token * self.num_codes

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        """Return the codes of every token.

        Args:
            clips: (B, 3, T, H, W), the view of the tokenizer: uint8, or float and normalized.
            grid: token grid of the prediction.

        Returns:
            (B, N, F * r * r) int64, in the order of (frame, row, column).

        Raises:
            ValueError: the tokenizer gives other than r x r codes for each token.
        """
        stride = 1 if self.num_frames > 1 else clips.shape[2] // grid.t
        frames = clips[:, :, ::stride].transpose(1, 2).flatten(0, 1).unsqueeze(2)
        images = pixel_values(frames, self.clip_mean, self.clip_std).squeeze(2)
        images = images.flip(1) if self.is_reversed else images
        size = (self.crop_size, self.crop_size)
        if images.shape[2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        network: Any = self.tokenizer.network
        codes: Tensor = network.encode(images)
        side = self.codes_per_side
        if tuple(codes.shape[1:]) != (grid.h * side, grid.w * side):
            raise ValueError(
                f"the tokenizer {self.tokenizer.source} must give {side} x {side} codes for each "
                f"of {grid.h} x {grid.w} tokens, got {codes.shape[1]} x {codes.shape[2]} codes"
            )
        # (B * t * F, h * r, w * r) -> (B, t, h, w, F, r, r)
        codes = codes.unflatten(0, (len(clips), grid.t, -1))
        codes = codes.unflatten(4, (grid.w, side)).unflatten(3, (grid.h, side))
        return codes.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of every masked token, averaged over its codes."""
        terms = cross_entropy(self._logits(prediction).flatten(0, 1), target.flatten())
        return terms.unflatten(0, target.shape).mean(dim=1)

    def constant_prediction(self, target: Tensor) -> Tensor:
        """Compute the logits of the frequencies of the codes, the same for each code of a token."""
        codes = target.flatten()
        # Unlike `torch.bincount`, it does not wait for a GPU.
        counts = torch.zeros(self.num_codes, dtype=torch.int64, device=codes.device)
        counts.index_add_(0, codes, torch.ones_like(codes))
        frequencies = counts / target.numel()
        return frequencies.clamp(min=_SMALLEST).log().repeat(self.codes_per_token)

    @torch.no_grad()
    def scalars(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Compute the share of codes that are predicted right, in percent."""
        correct = self._logits(prediction).argmax(dim=-1) == target
        return {"accuracy": 100 * mean_or_zero(correct.float())}

    def predicted(self, prediction: Tensor) -> Tensor:
        """Convert logits to the likeliest codes: (M, F * r * r * K) -> (M, F * r * r) int64."""
        return self._logits(prediction).argmax(dim=-1)

    @torch.no_grad()
    def to_frames(self, codes: Tensor, grid: Grid) -> Tensor:
        """Decode the codes of the first frame of each token.

        Args:
            codes: (B, N, F * r * r) int64, as of `encode`.
            grid: of the tokens.

        Returns:
            (B, t, H, W, 3) uint8 RGB, in the size of the tokenizer.

        Raises:
            ValueError: the tokenizer reconstructs no pixels.
        """
        side = self.codes_per_side
        first = codes[..., : side**2].unflatten(-1, (side, side)).unflatten(1, tuple(grid))
        # (B, t, h, w, r, r) -> (B * t, h * r, w * r)
        maps = first.permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3).flatten(0, 1)
        network: Any = self.tokenizer.network
        pictures = (network.decode(maps) * 255).round().to(torch.uint8)
        return pictures.movedim(1, -1).unflatten(0, (len(codes), grid.t))

    def _logits(self, prediction: Tensor) -> Tensor:
        """Split the values of a token: (M, F * r * r * K) -> (M, F * r * r, K)."""
        return prediction.unflatten(-1, (self.codes_per_token, self.num_codes))

    def extra_repr(self) -> str:
        """Return the text that `print` shows for the module."""
        return (
            f"num_codes={self.num_codes}, codes_per_side={self.codes_per_side}, "
            f"num_frames={self.num_frames}, view={self.view}"
        )
