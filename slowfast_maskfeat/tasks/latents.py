"""EMA latents: predict the features that a moving average of the encoder has of unmasked clips.

Sources: V-JEPA (Bardes et al., arXiv 2404.08471), section 3, whose target is the last layer with
mean 0 and variance 1; from memory, data2vec (Baevski et al., arXiv 2202.03555) averages the last
layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.backbones import MaskedModel, resize_mask, split_masks, take_masked
from slowfast_maskfeat.clips.batch import ClipBatch
from slowfast_maskfeat.datasets import VideoList
from slowfast_maskfeat.ema import Teacher
from slowfast_maskfeat.losses import keep_apart, mean_or_zero
from slowfast_maskfeat.targets import FeatureTarget
from slowfast_maskfeat.targets.teacher_tokens import TeacherTokens
from slowfast_maskfeat.tasks.base import Evaluation, StepOutput, term_count, unwrap
from slowfast_maskfeat.tasks.masked_prediction import MaskedPrediction, MaskedPredictionEvaluation


class LatentPrediction(MaskedPrediction):
    """Predict the features that an EMA teacher has of the masked tokens.

    The teacher sees the unmasked clip, has neither dropout nor drop path, and moves after the
    optimizer. With a momentum of 1 the loss is that of `MaskedPrediction` with its features.

    Args:
        tokens: gives the features of the teacher.
        teacher: the one that `tokens` uses; its parameters have the names of the student's.
        num_features: D.
        norm: of the features, see `FeatureTarget`.
        epsilon: see `FeatureTarget`.
        loss: see `FeatureTarget`.
        mean: per channel, of the clip's normalization.
        std: per channel, of the clip's normalization.
        koleo_weight: of the loss that keeps the encoder's features of samples apart.
    """

    teacher_prefix = "targets.0.teacher.teacher.network."

    def __init__(
        self,
        tokens: TeacherTokens,
        teacher: Teacher,
        *,
        num_features: int,
        norm: str,
        epsilon: float,
        loss: str,
        mean: Sequence[float],
        std: Sequence[float],
        koleo_weight: float = 0.0,
    ) -> None:
        assert tokens.teacher is teacher
        target = FeatureTarget(
            tokens, num_features=num_features, norm=norm, epsilon=epsilon, loss=loss
        )
        super().__init__([target], mean=mean, std=std)
        self.koleo_weight = koleo_weight
        self._names_of_validation = self.scalar_names
        if koleo_weight:
            self.scalar_names = (*self.scalar_names, "koleo")
        self._teacher = (teacher,)  # a submodule of its target already
        teacher.eval()

    @property
    def teacher(self) -> Teacher:
        """The moving average of the encoder."""
        return self._teacher[0]

    def train(self, mode: bool = True) -> LatentPrediction:
        """Set the training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def networks_to_load(self) -> Sequence[nn.Module]:
        """Return the teacher's network: its last norm may be one that the student lacks."""
        return (self.teacher.network,)

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Start the teacher at the student's weights; those that the student lacks stay."""
        weights = dict(model.named_parameters())
        for name, own in self.teacher.network.named_parameters():
            own.copy_(weights[name])

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        """Compute the mean loss over the masked tokens, averaged over the masks of a clip.

        Returns:
            `weight` is the number of masked tokens; with several masks that of the first, since
            each kind of mask has one number for all clips. See `MaskedPrediction.step`. In training
            with KoLeo, its scalar is that of `losses.keep_apart`, averaged likewise.
        """
        assert batch.mask is not None
        has_koleo = bool(self.koleo_weight) and self.training
        clips = normalize(batch.clips, self.mean, self.std)
        # Not named without need: networks of extensions may have no such argument.
        options = {"with_pooled": True} if has_koleo else {}
        outputs = model(clips, batch.mask, **options)
        bare, target = unwrap(model), self.targets[0]
        assert isinstance(bare, MaskedModel)
        assert isinstance(target, FeatureTarget)
        grid = bare.prediction_grids(batch.clips.shape[2:])[0]
        with torch.no_grad():
            encoded = target.encode_batch(batch, grid)  # (B, N, D)
        masks = split_masks(batch.mask)
        predictions, pooled = outputs[: len(masks)], outputs[len(masks) :]
        loss = baseline = torch.zeros((), device=batch.clips.device)
        for prediction, mask in zip(predictions, masks, strict=True):
            rows = take_masked(encoded, resize_mask(mask, grid).flatten(1))
            loss = loss + mean_or_zero(target.loss(prediction, rows))
            baseline = baseline + target.baseline_loss(rows)
        weight = term_count(len(predictions[0]), batch.clips.device)
        scalars = {"baseline": baseline}
        if has_koleo:
            loss, apart = keep_apart(loss, pooled, self.koleo_weight)
            scalars |= apart
        means = {name: value / len(masks) for name, value in scalars.items()}
        return StepOutput(loss / len(masks), weight, means)

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        """Evaluate the loss, without KoLeo, over a validation split."""
        return MaskedPredictionEvaluation(len(videos), self, names=self._names_of_validation)

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        """Move the teacher."""
        self.teacher.update(model, progress, taken)
