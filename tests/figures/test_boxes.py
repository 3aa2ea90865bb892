"""Boxes and bars: drawn where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from slowfast_maskfeat.figures import box_panel, class_bars, draw_boxes, drawing_scale

GRAY = np.full((90, 120, 3), 128, np.uint8)


def changed(drawn: np.ndarray, scale: int = 1) -> np.ndarray:
    """Where a drawing differs from the gray frame."""
    assert drawn.shape == (90 * scale, 120 * scale, 3)
    return (drawn != 128).any(-1)


@pytest.mark.parametrize("scale", [1, 4])
def test_an_outline_is_where_the_box_is(scale):
    where = changed(draw_boxes(GRAY, np.array([[0.25, 0.4, 0.75, 0.8]]), [[]], scale=scale), scale)
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    assert (rows[0], rows[-1]) == pytest.approx((36 * scale, 72 * scale), abs=1)
    assert (columns[0], columns[-1]) == pytest.approx((30 * scale, 90 * scale), abs=1)
    assert not where[40 * scale : 68 * scale, 36 * scale : 84 * scale].any()  # inside it


def test_opacity_mixes_with_the_frame():
    box = np.array([[0.25, 0.4, 0.75, 0.8]])
    full, half = (draw_boxes(GRAY, box, [["walk"]], opacity=o).astype(int) for o in (1.0, 0.5))
    on_outline = 72, 60
    mixed = (full[on_outline] + 128) / 2
    np.testing.assert_allclose(half[on_outline], mixed, atol=1)
    assert np.array_equal(draw_boxes(GRAY, box, [["walk"]], opacity=0.0), GRAY)


def test_names_stand_at_the_box_and_inside_the_frame():
    for box in ([0.4, 0.6, 0.6, 0.9], [0.9, 0.0, 1.0, 0.2], [0.0, 0.0, 1.0, 1.0]):
        bare = changed(draw_boxes(GRAY, np.array([box]), [[]], scale=3), 3)
        named = changed(draw_boxes(GRAY, np.array([box]), [["walk 0.9"]], scale=3), 3)
        rows, columns = np.nonzero(named & ~bare)
        assert len(rows) > 200
        x1, y1, _, y2 = np.array(box) * [360, 270, 360, 270]
        assert y1 - 40 <= rows.min()
        assert rows.max() <= y2 + 40
        assert columns.max() >= x1


def test_the_frame_given_is_not_changed_and_nothing_is_drawn_without_boxes():
    frame = GRAY.copy()
    draw_boxes(frame, np.array([[0.1, 0.1, 0.5, 0.5]]), [["walk"]])
    assert np.array_equal(frame, GRAY)
    assert np.array_equal(draw_boxes(frame, np.zeros((0, 4)), []), GRAY)


def test_small_frames_are_drawn_larger():
    assert drawing_scale(72, 96) == 5
    assert drawing_scale(1080, 1920) == 1


def test_a_panel_has_its_frames_row_by_row(tmp_path):
    frames = [np.full((20, 30, 3), value, np.uint8) for value in (10, 90, 200)]
    box_panel(tmp_path / "new" / "a.png", frames, num_columns=2)
    picture = np.rint(imread(tmp_path / "new" / "a.png")[..., :3] * 255).astype(int)
    assert picture.shape == (48, 68, 3)
    centers = [picture[10, 15, 0], picture[10, 53, 0], picture[38, 15, 0], picture[38, 53, 0]]
    assert centers == [10, 90, 200, 255]
    box_panel(tmp_path / "c.png", frames[:2], num_columns=1, row_names=["wanted", "found"])
    named = np.rint(imread(tmp_path / "c.png")[..., :3] * 255).astype(int)
    assert named.shape == (48, 32, 3)
    assert np.array_equal(named[:20, 2:], picture[:20, :30])
    with pytest.raises(ValueError, match=r"frames must contain .*got none"):
        box_panel(tmp_path / "b.png", [], num_columns=2)


def test_bars_leave_out_what_has_no_figure(tmp_path):
    values = {"walk": 0.25, "run": 0.75, "never seen": None}
    counts = {"walk": 3, "run": 4, "never seen": 0}
    class_bars(tmp_path / "a.png", values, counts)
    class_bars(tmp_path / "b.png", {"walk": 0.25, "run": 0.75}, counts)
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))
    class_bars(tmp_path / "c.png", {**values, "run": 0.5}, counts)
    assert not np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "c.png"))
    with pytest.raises(ValueError, match=r"values must have .*got none"):
        class_bars(tmp_path / "d.png", {"never seen": None}, counts)
