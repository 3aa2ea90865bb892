"""The images of shapes: their contour tells the class and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.dataset_scripts import run
from helpers.load_tool import Done, load_tool
from PIL import Image

shapes = load_tool("datasets/make_shape_images.py")
COUNTS = ["--num-pretrain", "12", "--num-train", "6", "--num-val", "6", "--num-test", "6"]


def _make(output, *more: str, code: int = 0) -> Done:
    return run("make_shape_images.py", "--output", output, *COUNTS, *more, code=code)


def test_lists_and_images(tmp_path):
    _make(tmp_path)
    assert (tmp_path / "pretrain" / "train.csv").read_text().count("\n") == 12
    rows = (tmp_path / "finetune" / "test.csv").read_text().splitlines()
    assert [int(row.split()[1]) for row in rows] == [0, 1, 2, 3, 4, 5]
    names = (tmp_path / "finetune" / "classes.txt").read_text().split()
    assert tuple(names) == shapes.CLASS_NAMES
    for row in rows:
        image = Image.open(tmp_path / row.split()[0])
        assert (image.size, image.mode) == ((48, 48), "RGB")
    # Called again, nothing is made anew.
    assert "0 images to make, 24 exist" in _make(tmp_path).stdout


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    _make(tmp_path)
    assert "choose another --output" in _make(tmp_path, "--size", "64", code=2).stderr


def test_an_image_depends_on_its_number_alone():
    first = shapes.render_image(0, "train", 7, 48)
    assert np.array_equal(first, shapes.render_image(0, "train", 7, 48))
    for other in ((1, "train", 7), (0, "val", 7), (0, "train", 13)):
        assert not np.array_equal(first, shapes.render_image(*other, 48))


ANGLES = np.linspace(0, 2 * np.pi, 720, endpoint=False)


def _radius(look) -> np.ndarray:
    """Of an outline at ANGLES, in its mean radius."""
    orders = np.arange(2, 2 + len(look.contour))
    return 1 + (look.contour * np.exp(1j * np.outer(ANGLES, orders))).real.sum(1)


# Directions in eighths of a turn from the right, clockwise, in which the outline is far and near.
FAR_AND_NEAR = {
    "wide_oval": ((0, 4), (2, 6)),
    "tall_oval": ((2, 6), (0, 4)),
    "square": ((1, 3, 5, 7), (0, 2, 4, 6)),
    "diamond": ((0, 2, 4, 6), (1, 3, 5, 7)),
    "triangle": ((6,), (2,)),
}


@pytest.mark.parametrize("name", shapes.CLASS_NAMES)
def test_the_outline_is_that_of_its_class(name):
    label = shapes.CLASS_NAMES.index(name)
    for index in range(label, 60, 6):
        motion, look = shapes.sample_image(0, "test", index)
        radius = _radius(look)
        # No corner leaves the picture, so none comes in at the other side.
        largest = shapes.rendering.radius_of(motion.start[3]) * radius.max()
        assert largest + np.abs(motion.start[:2] - 0.5).max() <= 0.5
        if name == "disc":
            assert np.ptp(radius) < 0.25
            continue
        far, near = ([radius[90 * eighth] for eighth in group] for group in FAR_AND_NEAR[name])
        assert min(far) > max(near) + 0.1


def test_the_area_does_not_tell_the_class():
    areas = np.empty(360)
    for index in range(360):
        motion, look = shapes.sample_image(0, "train", index)
        mean_radius = shapes.rendering.radius_of(motion.start[3])
        areas[index] = np.pi * mean_radius**2 * (_radius(look) ** 2).mean()
    of_class = np.array([areas[label::6].mean() for label in range(6)])
    assert (np.abs(of_class - areas.mean()) < 4 * areas.std() / np.sqrt(60)).all()


def test_the_shape_is_brighter_than_its_background():
    for index in range(30):
        image = shapes.render_image(0, "train", index, 48).astype(float)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert image[20:28, 20:28].mean() > border.mean() + 40


def test_colors_do_not_tell_the_class():
    # The mean color of the picture is of one law for all classes: means differ by chance only.
    images = np.stack([shapes.render_image(0, "train", i, 48) for i in range(360)])
    means = images.reshape(360, -1, 3).mean(1)  # (360, 3)
    of_class = np.stack([means[label::6].mean(0) for label in range(6)])
    error = means.std(0) / np.sqrt(60)
    assert (np.abs(of_class - means.mean(0)) < 4 * error).all()
