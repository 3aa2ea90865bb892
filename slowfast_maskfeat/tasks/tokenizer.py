"""Training of tokenizers: reconstruct images from discrete codes."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.distributed import AllReduce
from slowfast_maskfeat.metrics.codes import code_counts, code_perplexity, code_usage
from slowfast_maskfeat.schedules import Schedule, epoch_of
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets.pixel_values import pixel_values
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens
from slowfast_maskfeat.tasks.base import (
    Evaluation,
    LossEvaluation,
    StepOutput,
    Task,
    term_count,
    unwrap,
)
from slowfast_maskfeat.tokenizers import Reconstruction, Tokenizer, gumbel_noise

_MOST_VIEWS = 64  # clips of a row in one batch


class TokenizerTraining(Task):
    """Reconstruct the frames of clips, one by one.

    The loss of an image is that of its reconstruction, plus the weighted regularizer of its codes,
    plus the weighted perceptual distance.

    Args:
        num_codes: K.
        num_epochs: of the training, to tell its epochs apart.
        min_usage: share of the codes that an epoch should use; below it there is a warning.
        mean: per channel, of clips that are already normalized.
        std: per channel, of clips that are already normalized.
        is_reversed: the clips are BGR.
        teacher: gives the features to reconstruct instead of pixels.
        perceptual: distance of images, in addition to that of the reconstruction.
        perceptual_weight: its weight.
    """

    counts: Tensor
    epoch_counts: Tensor

    def __init__(
        self,
        *,
        num_codes: int,
        num_epochs: int,
        min_usage: float,
        mean: Sequence[float],
        std: Sequence[float],
        is_reversed: bool = False,
        teacher: TeacherTokens | None = None,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.num_epochs = num_epochs
        self.min_usage = min_usage
        self.mean, self.std = tuple(mean), tuple(std)
        self.is_reversed = is_reversed
        self.teacher = teacher
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight
        self.mean_names = ("reconstruction", *(("perceptual",) if perceptual is not None else ()))
        self.scalar_names = (*self.mean_names, "usage", "perplexity")
        # Of the step under way, in this process; and of the epoch, of all processes.
        self.register_buffer("counts", torch.zeros(num_codes).double(), persistent=False)
        self.register_buffer("epoch_counts", torch.zeros(num_codes).double())
        self._epoch = 0

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over all images of the batch.

        Returns:
            `weight` is the number of images. The scalars `usage` (percent of the codes) and
            `perplexity` are those of the epoch up to the last step.
        """
        output, codes = self.reconstruct(model, batch)
        if self.training:
            self.counts += code_counts(codes, self.num_codes)
        use = {
            "usage": 100 * code_usage(self.epoch_counts),
            "perplexity": code_perplexity(self.epoch_counts),
        }
        return StepOutput(output.loss, output.weight, {**output.scalars, **use})

    def reconstruct(self, model: nn.Module, batch: ClipBatch) -> tuple[StepOutput, Tensor]:
        """Compute the loss of a batch, and the codes (N, h, w) of its images."""
        tokenizer = cast(Tokenizer, unwrap(model))
        images = self.images(batch)
        found = self.forward_images(model, images, _image_numbers(batch))
        kind = tokenizer.reconstruction
        target = images if self.teacher is None else self._features(batch, found.codes)
        reconstruction = kind.loss(found.output, target)
        terms = reconstruction + self.codes_weight * found.loss
        scalars = {"reconstruction": reconstruction.detach().mean()}
        if self.perceptual is not None:
            distance = self.perceptual(kind.pictures(found.output), images)
            terms = terms + self.perceptual_weight * distance
            scalars["perceptual"] = distance.detach().mean()
        weight = term_count(len(images), images.device)
        return StepOutput(terms.mean(), weight, scalars), found.codes

    @abstractmethod
    def forward_images(self, model: nn.Module, images: Tensor, numbers: Tensor) -> Reconstruction:
        """Reconstruct images, in evaluation without randomness.

        Args:
            model: the tokenizer, wrapped or not.
            images: (N, 3, H, W) in [0, 1].
            numbers: (N,) int64 on the CPU, numbers of the images, on which draws may depend.
        """

    @property
    @abstractmethod
    def codes_weight(self) -> float:
        """Weight of the regularizer of the codes."""

    def images(self, batch: ClipBatch) -> Tensor:
        """Return the frames of the clips: (B * T, 3, H, W) RGB in [0, 1]."""
        pixels = pixel_values(batch.clips, self.mean, self.std)
        pixels = pixels.flip(1) if self.is_reversed else pixels
        return pixels.transpose(1, 2).flatten(0, 1)

    def _features(self, batch: ClipBatch, codes: Tensor) -> Tensor:
        """Return the teacher's features of every code: (B * T, D, h, w)."""
        assert self.teacher is not None
        grid = Grid(batch.clips.shape[2], *codes.shape[1:])
        features: Tensor = self.teacher(batch.clips, grid, all_frames=True)  # (B, T, h, w, 1, D)
        return features.squeeze(4).flatten(0, 1).movedim(-1, 1)

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move the codebook and count its use, over all processes."""
        assert isinstance(model, Tokenizer)
        model.after_step(taken)
        epoch = epoch_of(progress, self.num_epochs)
        if epoch != self._epoch:
            self.epoch_counts.zero_()
            self._epoch = epoch
        counts = distributed.all_reduce(self.counts, "sum")
        self.epoch_counts += torch.where(taken, counts, 0.0)
        self.counts.zero_()

    def after_epoch(self, epoch: int) -> None:
        """Warn of an epoch that used too few codes."""
        usage = float(code_usage(self.epoch_counts))
        if usage < self.min_usage and distributed.is_main():
            warnings.warn(
                f"epoch {epoch} used {usage:.1%} of the {self.num_codes} codes, below "
                f"TOKENIZER.MIN_USAGE {self.min_usage:.0%}; {self.advice}",
                UserWarning,
                stacklevel=2,
            )

    @property
    @abstractmethod
    def advice(self) -> str:
        """Advice for codes that are not used."""

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate loss and use of the codes over a validation split."""
        return TokenizerEvaluation(len(videos), self)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the position in the training, for a checkpoint."""
        return {"epoch": self._epoch}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore `get_extra_state`."""
        self._epoch = int(state["epoch"])


def _image_numbers(batch: ClipBatch) -> Tensor:
    """Number the images of a batch: (B * T,) int64 on the CPU, one for each row, view and frame.

    The numbers depend neither on micro-batches nor on processes.
    """
    assert batch.index is not None
    assert batch.view is not None
    num_frames = batch.clips.shape[2]
    clips = batch.index * _MOST_VIEWS + batch.view
    return (clips[:, None] * num_frames + torch.arange(num_frames)).flatten()


class VQTraining(TokenizerTraining):
    """Training of a tokenizer with a vector quantizer (arXiv:1711.00937, arXiv:2208.06366)."""

    codes_weight = 1.0
    advice = (
        "try TOKENIZER.DISTANCE cosine with a smaller TOKENIZER.CODE_DIM, TOKENIZER.KMEANS_ROUNDS "
        "10, or TOKENIZER.RESTART_AFTER 100"
    )

    def forward_images(self, model: nn.Module, images: Tensor, numbers: Tensor) -> Reconstruction:
        """Reconstruct images from the nearest codes."""
        found: Reconstruction = model(images, numbers)
        return found


class DVAETraining(TokenizerTraining):
    """Training of a dVAE (arXiv:2102.12092) by samples of the Gumbel-softmax.

    The noise of an image depends on the seed, the number of the step and that of the image, so that
    several processes or micro-batches equal one.

    Args:
        temperature: of the Gumbel-softmax, over the annealing.
        annealing: share of the training in which it falls.
        kl_weight: of the divergence of the codes from the uniform distribution, over its warm-up.
        kl_warmup: share of the training in which it rises.
        hard: decode one code per cell, with the gradient of the soft weights.
        seed: of the noise.
        **options: of `TokenizerTraining`.
    """

    advice = "try a larger TOKENIZER.KL_WEIGHT, or a slower fall of TOKENIZER.TEMPERATURE"

    def __init__(
        self,
        *,
        temperature: Schedule,
        annealing: float,
        kl_weight: Schedule,
        kl_warmup: float,
        hard: bool,
        seed: int,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.temperature, self.annealing = temperature, annealing
        self.kl_weight, self.kl_warmup = kl_weight, kl_warmup
        self.hard = hard
        self.seed = seed
        self._progress = 0.0
        self._step = 0

    @property
    def codes_weight(self) -> float:
        """Weight of the divergence, at the progress of the last step."""
        return self.kl_weight(_share(self._progress, self.kl_warmup))

    def forward_images(self, model: nn.Module, images: Tensor, numbers: Tensor) -> Reconstruction:
        """Reconstruct images from a sample of their codes; in evaluation from the likeliest."""
        tokenizer = cast(Tokenizer, unwrap(model))
        side = tokenizer.pixels_per_code
        shape = (self.num_codes, images.shape[2] // side, images.shape[3] // side)
        found: Reconstruction
        if not self.training:
            none = images.new_zeros(()).expand(len(images), *shape)
            found = model(images, none, temperature=1.0, hard=True)
            return found
        noise = gumbel_noise([self._seed_of(n) for n in numbers.tolist()], shape, images.device)
        temperature = self.temperature(_share(self._progress, self.annealing))
        found = model(images, noise, temperature=temperature, hard=self.hard)
        return found

    def _seed_of(self, number: int) -> int:
        sequence = np.random.SeedSequence([self.seed, self._step, number])
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Count the step, see `TokenizerTraining.after_step`."""
        super().after_step(model, progress, taken)
        self._progress = progress
        self._step += 1

    def get_extra_state(self) -> dict[str, Any]:
        """Return the position in the training, for a checkpoint."""
        return {**super().get_extra_state(), "step": self._step, "progress": self._progress}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore `get_extra_state`."""
        super().set_extra_state(state)
        self._step, self._progress = int(state["step"]), float(state["progress"])


def _share(progress: float, length: float) -> float:
    """Progress in a first part of the training, of this length; 1 after it."""
    return min(progress / length, 1.0) if length else 1.0


class TokenizerEvaluation(LossEvaluation):
    """Mean loss over all images of a split, and use of the codes over the whole split."""

    def __init__(self, num_videos: int, task: TokenizerTraining) -> None:
        super().__init__(num_videos, task, names=task.mean_names)
        self._tokenizer_task = task
        self._counts = torch.zeros(task.num_codes, dtype=torch.float64)

    def add(self, model: nn.Module, batch: ClipBatch) -> None:
        """Add the loss and the codes of a batch."""
        if not len(batch):
            return
        output, codes = self._tokenizer_task.reconstruct(model, batch)
        self.add_output(output)
        self._counts += code_counts(codes, len(self._counts)).cpu()

    def merge(self, all_reduce: AllReduce) -> None:
        """Sum over processes."""
        super().merge(all_reduce)
        self._counts = all_reduce(self._counts, "sum")

    def results(self) -> dict[str, Any]:
        """Return the mean of each term, `usage` (percent of the codes) and `perplexity`."""
        return {
            **super().results(),
            "usage": 100 * float(code_usage(self._counts)),
            "perplexity": float(code_perplexity(self._counts)),
        }
