"""Label maps are spread over the classes, and cropped and flipped as their images are."""

from __future__ import annotations

import pytest
import torch

from slowfast_maskfeat.targets.label_maps import (
    crop_label_maps,
    dense_label_maps,
    label_distributions,
)

WHOLE = [0.0, 0.0, 1.0, 1.0]


def stored_maps(batch: int = 2, best: int = 3, size: tuple[int, int] = (4, 6)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = 10 * torch.rand(batch, best, *size, generator=generator)
    order = torch.rand(batch, 9, *size, generator=generator).argsort(dim=1)[:, :best]
    return torch.stack([scores, order.float()], dim=1).half()


def test_scores_go_to_their_classes() -> None:
    stored = stored_maps()
    dense = dense_label_maps(stored, 9)
    assert dense.dtype == torch.float32
    assert dense.shape == (2, 9, 4, 6)
    for b in range(2):
        for y in range(4):
            for x in range(6):
                expected = torch.zeros(9)
                for score, number in stored[b, :, :, y, x].T.float():
                    expected[int(number)] = score
                assert torch.equal(dense[b, :, y, x], expected)


def gradient(height: int, width: int) -> torch.Tensor:
    """(1, 2, h, w): the row and the column of each place's center, as fractions of the map."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    pair = [rows[:, None].expand(-1, width), columns[None].expand(height, -1)]
    return torch.stack(pair)[None].double()


@pytest.mark.parametrize("size", [(40, 40), (30, 50)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_reads_the_places_of_its_box(size: tuple[int, int], flip: bool) -> None:
    """The crop of a plane of positions has at each place the position in the whole image."""
    top, left, height, width = 0.2, 0.5, 0.3, 0.4
    crops = torch.tensor([[top, left, height, width]], dtype=torch.float64)
    cropped = crop_label_maps(gradient(*size), crops, torch.tensor([flip]), (3, 5))
    assert cropped.shape == (1, 2, 3, 5)
    rows = top + height * (torch.arange(3) + 0.5) / 3
    columns = left + width * (torch.arange(5) + 0.5) / 5
    columns = columns.flip(0) if flip else columns
    assert torch.allclose(cropped[0, 0], rows[:, None].expand(-1, 5).double())
    assert torch.allclose(cropped[0, 1], columns[None].expand(3, -1).double())


def test_each_image_has_its_own_crop_and_flip() -> None:
    maps = torch.rand(3, 4, 8, 8, dtype=torch.float64)
    crops = torch.tensor([WHOLE, [0.0, 0.0, 0.5, 0.5], WHOLE], dtype=torch.float64)
    flips = torch.tensor([False, False, True])
    result = crop_label_maps(maps, crops, flips, (4, 4))
    for b in range(3):
        part = slice(b, b + 1)
        alone = crop_label_maps(maps[part], crops[part], flips[part], (4, 4))
        assert torch.allclose(result[part], alone)
    assert torch.allclose(result[1], maps[1, :, :4, :4])
    unflipped = crop_label_maps(maps, crops, None, (4, 4))
    assert torch.equal(result[:2], unflipped[:2])
    assert torch.equal(result[2], unflipped[2].flip(-1))


def test_a_whole_map_on_its_own_grid_stays() -> None:
    maps = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    crop = torch.tensor([WHOLE])
    assert torch.allclose(crop_label_maps(maps, crop, None, (5, 7)), maps)


def test_distributions() -> None:
    maps = torch.zeros(1, 4, 1, 2)
    maps[0, 1, 0, 0] = 2.0
    rows = label_distributions(maps)
    e = torch.tensor(2.0).exp()
    assert torch.allclose(rows[0, 0], torch.tensor([1, e, 1, 1]) / (3 + e))
    assert torch.allclose(rows[0, 1], torch.full((4,), 0.25))
    assert torch.allclose(rows.sum(dim=-1), torch.ones(1, 2))
    smooth = label_distributions(maps, smoothing=0.1)
    assert torch.allclose(smooth, rows * 0.925 + 0.025)


def test_maps_of_another_kind_are_errors() -> None:
    with pytest.raises(ValueError, match=r"0 to 4, got [5-8]; .*another set"):
        dense_label_maps(stored_maps(), 5)
    broken = stored_maps().float()
    broken[1, 1, 0, 2, 2] = 2.5
    with pytest.raises(ValueError, match=r"got 2\.5"):
        dense_label_maps(broken, 9)
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 6\)"):
        dense_label_maps(stored_maps()[:, 0], 9)
