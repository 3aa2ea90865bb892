"""The target of stored label maps: the classes of the places that each token shows."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_teachers import tiny_config

from slowfast_maskfeat.builders.methods import find_method
from slowfast_maskfeat.builders.model import prediction_dims
from slowfast_maskfeat.builders.task import build_targets
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.targets import StoredLabelTarget, TokenTarget
from slowfast_maskfeat.tasks.masked_prediction import masked_rows

NUM_CLASSES = 7
CROPS = torch.tensor([[0.0, 0.5, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
FLIPS = torch.tensor([False, True, True])


def stored_maps(count: int = 3, size: tuple[int, int] = (4, 4)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    scores = 3 * torch.randn(count, 5, *size, generator=generator)
    order = torch.rand(count, NUM_CLASSES, *size, generator=generator).argsort(dim=1)[:, :5]
    return torch.stack([scores, order.float()], dim=1).half().float()


def batch_of(maps: torch.Tensor, **fields) -> ClipBatch:
    clips = torch.zeros(len(maps), 3, 1, 32, 32, dtype=torch.uint8)
    return ClipBatch(clips, label_maps=maps, **{"crops": CROPS, "flips": FLIPS, **fields})


def distribution(stored: torch.Tensor) -> list[float]:
    """The softmax over all classes of the scores (2, 5) of one place; of the others it is 0."""
    scores = [0.0] * NUM_CLASSES
    for score, number in stored.T.tolist():
        scores[int(number)] = score
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


def test_a_token_has_the_classes_of_its_place() -> None:
    """Quarters of a map of 4 x 4 places on 2 x 2 tokens, and a whole one: place by place."""
    maps = stored_maps()
    target = StoredLabelTarget(num_classes=NUM_CLASSES)
    quarters = target.encode_batch(batch_of(maps), Grid(1, 2, 2))
    whole = target.encode_batch(batch_of(maps), Grid(1, 4, 4))
    assert quarters.shape == (3, 4, NUM_CLASSES)
    for row in range(2):
        for column in range(2):
            token = 2 * row + column
            of_first = distribution(maps[0, :, :, row, 2 + column])  # above, right
            of_second = distribution(maps[1, :, :, 2 + row, 1 - column])  # below, left, flipped
            assert quarters[0, token].tolist() == pytest.approx(of_first, abs=1e-6)
            assert quarters[1, token].tolist() == pytest.approx(of_second, abs=1e-6)
    for row in range(4):
        for column in range(4):
            expected = distribution(maps[2, :, :, row, 3 - column])
            assert whole[2, 4 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_masked_rows_take_the_tokens_of_the_mask() -> None:
    maps = stored_maps()
    mask = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 0, 1] = mask[2, 0, 1, 0] = True
    target = StoredLabelTarget(num_classes=NUM_CLASSES)
    rows = masked_rows(target, batch_of(maps, mask=mask), Grid(1, 2, 2))
    encoded = target.encode_batch(batch_of(maps), Grid(1, 2, 2))
    assert rows.equal(torch.stack([encoded[0, 1], encoded[2, 2]]))


@pytest.mark.parametrize("is_hard", [False, True])
def test_cross_entropy_and_the_baseline_of_class_frequencies(is_hard: bool) -> None:
    target = StoredLabelTarget(num_classes=NUM_CLASSES, is_hard=is_hard)
    labels = target.encode_batch(batch_of(stored_maps()), Grid(1, 4, 4)).flatten(0, 1)
    logits = torch.randn(len(labels), NUM_CLASSES, generator=torch.Generator().manual_seed(2))
    log_probability = logits.double().log_softmax(dim=1)
    aims = labels.double()
    if is_hard:
        aims = torch.eye(NUM_CLASSES, dtype=torch.float64)[labels.argmax(dim=1)]
    loss = target.loss(logits, labels)
    assert torch.allclose(loss.double(), -(aims * log_probability).sum(dim=1), atol=1e-5)
    frequency = aims.mean(dim=0)
    entropy = -(frequency * frequency.clamp(min=1e-12).log()).sum()
    assert float(target.baseline_loss(labels)) == pytest.approx(float(entropy), abs=1e-5)


def test_clips_without_maps_are_an_error() -> None:
    target = StoredLabelTarget(num_classes=NUM_CLASSES)
    clips = torch.zeros(3, 3, 1, 32, 32)
    for batch in (ClipBatch(clips), ClipBatch(clips, label_maps=stored_maps())):
        with pytest.raises(ValueError, match=r"label maps \(MASK\.LABEL_MAPS\) must come with"):
            target.encode_batch(batch, Grid(1, 2, 2))
    with pytest.raises(ValueError, match="must come with"):
        target.encode(clips, Grid(1, 2, 2))
    with pytest.raises(ValueError, match=r"must be of images, .* got 2x4x4"):
        target.encode_batch(batch_of(stored_maps()), Grid(2, 4, 4))


def test_the_configuration_chooses_the_maps_and_says_the_width() -> None:
    keys = {"MASK__TARGET": "pseudo_labels", "MODEL__NUM_CLASSES": 12}
    cfg = tiny_config("pt_image_hog", MASK__LABEL_MAPS="maps", MASK__PRED_HOG=False, **keys)
    targets = build_targets(cfg)
    assert all(isinstance(target, StoredLabelTarget) for target in targets)
    assert prediction_dims(cfg) == [target.dim for target in targets] == [12] * len(targets)
    method = find_method(cfg)
    assert method.label_maps(cfg) == "maps"
    assert method.label_maps(tiny_config("pt_image_hog")) == ""


def test_other_targets_encode_the_view_that_they_name() -> None:
    class Named(TokenTarget):
        """Encodes a clip as its pixels."""

        def __init__(self, view: int) -> None:
            torch.nn.Module.__init__(self)
            self.view = view

        def encode(self, clips: torch.Tensor, grid: Grid) -> torch.Tensor:
            return clips

    first, second = torch.zeros(2, 3, 1, 4, 4), torch.ones(2, 3, 1, 2, 2)
    batch = ClipBatch(first, further=(ClipBatch(second),))
    assert Named(0).encode_batch(batch, Grid(1, 1, 1)).equal(first)
    assert Named(1).encode_batch(batch, Grid(1, 1, 1)).equal(second)
    assert Named(1).encode_batch(ClipBatch(first), Grid(1, 1, 1)).equal(first)
