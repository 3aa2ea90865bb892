"""ROIAlign against the scalar rule, its borders and its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from slowfast_maskfeat import roi
from slowfast_maskfeat.roi import roi_align

FORMS = pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "legacy"])


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """The value of a plane at one place, 0 more than one position outside."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def slow_roi_align(
    features: Tensor, boxes: Tensor, *, output_size: int, scale: float, aligned: bool
) -> np.ndarray:
    """The rule, one sample after the other, in float64."""
    maps = features.double().numpy()
    result = np.zeros((len(boxes), maps.shape[1], output_size, output_size))
    for r, (batch, *corners) in enumerate(boxes.double().tolist()):
        x1, y1, x2, y2 = (corner * scale - (0.5 if aligned else 0.0) for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_h, bin_w = height / output_size, width / output_size
        num_y, num_x = math.ceil(bin_h), math.ceil(bin_w)
        for p in range(output_size):
            for q in range(output_size):
                for channel, plane in enumerate(maps[int(batch)]):
                    total = 0.0
                    for i in range(num_y):
                        for j in range(num_x):
                            y = y1 + p * bin_h + (i + 0.5) * bin_h / num_y
                            x = x1 + q * bin_w + (j + 0.5) * bin_w / num_x
                            total += bilinear(plane, y, x)
                    result[r, channel, p, q] = total / max(num_y * num_x, 1)
    return result


def maps_of(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def boxes_of_all_kinds() -> Tensor:
    """On a 9 x 13 map of stride 4, which is 36 x 52 pixels, and around it."""
    random = np.random.default_rng(0)
    corners = random.uniform((-20, -20, -20, -20), (72, 56, 72, 56), (20, 4))
    corners = np.concatenate((np.sort(corners[:, ::2]), np.sort(corners[:, 1::2])), axis=1)
    special = [
        (0, 52, 0, 36),  # the whole map
        (10, 10.3, 10, 10.2),  # tiny
        (7, 7, 3, 20),  # no width
        (5, 5, 5, 5),  # a point
        (-400, -300, -400, -300),  # far outside
        (-400, 500, -300, 600),  # around everything, with many samples outside
        (100, 110, 2, 30),  # to the right of it
        (50, 53, 34, 38),  # over the last corner
        (-3.9, 2, -3.9, 2),  # over the first
    ]
    x1, x2, y1, y2 = np.concatenate((corners, np.array(special, dtype=float))).T
    batch = np.arange(len(x1)) % 3
    return torch.from_numpy(np.stack((batch, x1, y1, x2, y2), axis=1))


@FORMS
@pytest.mark.parametrize("output_size", [1, 3])
def test_boxes_of_all_kinds_agree_with_the_rule(aligned: bool, output_size: int) -> None:
    features, boxes = maps_of(1, 3, 2, 9, 13), boxes_of_all_kinds()
    expected = slow_roi_align(features, boxes, output_size=output_size, scale=0.25, aligned=aligned)
    result = roi_align(
        features,
        boxes,
        output_size=output_size,
        spatial_scale=0.25,
        aligned=aligned,
    )
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-10)


@FORMS
def test_float32_agrees_with_the_rule(aligned: bool) -> None:
    features, boxes = maps_of(2, 3, 2, 9, 13, dtype=torch.float32), boxes_of_all_kinds().float()
    expected = slow_roi_align(features, boxes, output_size=7, scale=0.25, aligned=aligned)
    result = roi_align(
        features,
        boxes,
        output_size=7,
        spatial_scale=0.25,
        aligned=aligned,
    )
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@FORMS
def test_the_published_vectors(aligned: bool) -> None:
    """A box of a map that counts 0 .. 24, by hand: the older form is half a position off."""
    features = torch.arange(25.0).reshape(1, 1, 5, 5)
    box = torch.tensor([[0, 1.0, 1.0, 3.0, 3.0]])
    result = roi_align(features, box, output_size=4, spatial_scale=1.0, aligned=aligned)
    first = 4.5 if aligned else 7.5
    rows = torch.arange(4.0)
    expected = first + 2.5 * rows[:, None] + 0.5 * rows
    torch.testing.assert_close(result[0, 0], expected)


@FORMS
def test_agrees_with_torchvision(aligned: bool) -> None:
    operators = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    features, boxes = maps_of(3, 3, 2, 9, 13, dtype=torch.float32), boxes_of_all_kinds().float()
    expected = operators.roi_align(features, boxes, 7, 0.25, -1, aligned)
    result = roi_align(
        features,
        boxes,
        output_size=7,
        spatial_scale=0.25,
        aligned=aligned,
    )
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


@FORMS
def test_gradients(aligned: bool) -> None:
    features = maps_of(4, 2, 2, 4, 5).requires_grad_()
    boxes = torch.tensor([[0, -3, 1, 9, 14], [1, 2, 2, 25, 15], [1, 5, 5, 5, 5.0]]).double()

    def cut(maps: Tensor) -> Tensor:
        return roi_align(maps, boxes, output_size=2, spatial_scale=0.25, aligned=aligned)

    assert torch.autograd.gradcheck(cut, (features,))


def test_a_box_reads_its_own_clip_alone() -> None:
    features = maps_of(5, 3, 2, 6, 6).requires_grad_()
    boxes = torch.tensor([[2, 0, 0, 24, 24], [0, 4, 4, 20, 20.0]]).double()
    roi_align(features, boxes[:1], output_size=2, spatial_scale=0.25).sum().backward()
    touched = features.grad.abs().sum(dim=(1, 2, 3)) > 0  # type: ignore[union-attr]
    assert touched.tolist() == [False, False, True]
    together = roi_align(features, boxes, output_size=2, spatial_scale=0.25)
    alone = roi_align(features[:1], boxes[1:], output_size=2, spatial_scale=0.25)
    torch.testing.assert_close(together[1:], alone)


def test_what_is_not_finite_stays_with_its_clip() -> None:
    features = maps_of(9, 3, 2, 6, 6)
    features[1] = torch.nan
    features[2, 0, 0, 0] = torch.inf
    boxes = torch.tensor([[0, 0, 0, 24, 24], [1, 4, 4, 20, 20], [2, 0, 0, 9, 9.0]]).double()
    result = roi_align(features.requires_grad_(), boxes, output_size=2, spatial_scale=0.25)
    assert result[0].isfinite().all()
    assert result[1].isnan().all()
    assert result[2, 1].isfinite().all()
    alone = roi_align(features[:1], boxes[:1], output_size=2, spatial_scale=0.25)
    torch.testing.assert_close(result[:1], alone)
    result.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()  # it is made of weights alone


def test_boxes_in_many_parts_are_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many at once as clips, and a part with the rest; in any order of the clips."""
    features, boxes = maps_of(10, 3, 2, 9, 13), boxes_of_all_kinds()
    monkeypatch.setattr(roi, "_NUMBERS_AT_ONCE", 1)
    assert len(boxes) % 3
    result = roi_align(features, boxes, output_size=3, spatial_scale=0.25)
    for box, cut in zip(boxes, result, strict=True):
        alone = roi_align(features, box[None], output_size=3, spatial_scale=0.25)
        torch.testing.assert_close(cut, alone[0])


def test_no_boxes_are_no_features_and_a_gradient_of_zero() -> None:
    features = maps_of(6, 2, 3, 4, 4).requires_grad_()
    result = roi_align(features, torch.zeros(0, 5), output_size=7, spatial_scale=0.25)
    assert result.shape == (0, 3, 7, 7)
    result.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_many_large_boxes_need_no_memory_per_sample() -> None:
    """Gathered per sample, 100 x 3136 samples of 4 x 256 numbers would be 1.3 GB."""
    features = maps_of(7, 1, 256, 56, 56, dtype=torch.float32).requires_grad_()
    boxes = torch.tensor([[0, 0, 0, 224, 224.0]]).repeat(100, 1)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = roi_align(features, boxes, output_size=7, spatial_scale=0.25, aligned=False)
    assert 0 < sum(kept) < 100e6
    # Samples at k + 0.5 are means of four neighbors, the last of them beyond the map.
    samples = F.avg_pool2d(F.pad(features.detach(), (0, 1, 0, 1), mode="replicate"), 2, stride=1)
    expected = F.avg_pool2d(samples, 8)
    torch.testing.assert_close(result[:1], expected, rtol=0, atol=1e-5)
    assert torch.equal(result[0], result[99])


def test_a_box_far_larger_than_the_map_costs_nothing_more() -> None:
    """Two bins of 10 million samples a side: the first sees position -1, the second 0 to 8."""
    features = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    box = torch.tensor([[0, -1e7, -1e7, 1e7, 1e7]]).double()
    result = roi_align(features, box, output_size=2, spatial_scale=1.0)
    expected = torch.tensor([[1.0, 9], [9, 81]]).double() / 1e14
    torch.testing.assert_close(result[0, 0], expected, rtol=1e-10, atol=0)


def test_half_precision_keeps_the_boxes_places() -> None:
    features = maps_of(8, 1, 4, 50, 50, dtype=torch.bfloat16)
    boxes = torch.tensor([[0, 161.3, 170.7, 190.9, 199.1]])
    result = roi_align(features, boxes, output_size=3, spatial_scale=0.25)
    assert result.dtype == torch.bfloat16
    wanted = roi_align(features.double(), boxes, output_size=3, spatial_scale=0.25)
    torch.testing.assert_close(result.double(), wanted, rtol=2**-8, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = roi_align(features.float(), boxes, output_size=3, spatial_scale=0.25)
    torch.testing.assert_close(under.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (torch.zeros(2, 4), r"of shape \(R, 5\), got \(2, 4\)"),
        (torch.tensor([[2, 0, 0, 1, 1.0]]), "clips 0 to 1 of the batch, got 2"),
        (torch.tensor([[-1, 0, 0, 1, 1.0]]), "clips 0 to 1 of the batch, got -1"),
        (torch.tensor([[0.5, 0, 0, 1, 1.0]]), "clips 0 to 1 of the batch, got 0.5"),
    ],
)
def test_wrong_boxes_are_one_clear_error(boxes: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roi_align(torch.zeros(2, 1, 4, 4), boxes, output_size=2, spatial_scale=1.0)


def test_wrong_features_and_numbers_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"got the shape \(1, 4, 4\)"):
        roi_align(torch.zeros(1, 4, 4), torch.zeros(0, 5), output_size=2, spatial_scale=1.0)
    with pytest.raises(ValueError, match=r"output_size and spatial_scale .* > 0, got \(0, 0\) and"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(0, 5), output_size=0, spatial_scale=1.0)


@FORMS
def test_grids_of_other_rows_than_columns(aligned: bool) -> None:
    """Bins of a box in 2 x 6 are those of its quarters in 1 x 3, if these start where bins do."""
    features = maps_of(20, 2, 3, 12, 14)
    box = torch.tensor([[1.0, 1.5, 2.0, 13.5, 10.0]], dtype=torch.float64)
    form = {"spatial_scale": 1.0, "aligned": aligned}
    whole = roi_align(features, box, output_size=(2, 6), **form)
    assert whole.shape == (1, 3, 2, 6)
    for row in (0, 1):
        for half in (0, 1):
            x, y = 1.5 + 6 * half, 2.0 + 4 * row
            part = torch.tensor([[1.0, x, y, x + 6, y + 4]], dtype=torch.float64)
            expected = roi_align(features, part, output_size=(1, 3), **form)
            assert torch.allclose(whole[:, :, row : row + 1, 3 * half : 3 * half + 3], expected)
    square = roi_align(features, box, output_size=(4, 4), **form)
    assert torch.equal(square, roi_align(features, box, output_size=4, **form))
