"""The images of shapes: their contour tells the class and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from load_tool import load_tool
from PIL import Image

shapes = load_tool("datasets/make_shape_images.py")
COUNTS = ["--num-pretrain", "12", "--num-train", "6", "--num-val", "6", "--num-test", "6"]


def _make(output, *more: str) -> int:
    return shapes.main(["--output", str(output), *COUNTS, *more])


def test_lists_and_images(tmp_path, capsys):
    assert _make(tmp_path) == 0
    assert (tmp_path / "pretrain" / "train.csv").read_text().count("\n") == 12
    rows = (tmp_path / "finetune" / "test.csv").read_text().splitlines()
    assert [int(row.split()[1]) for row in rows] == [0, 1, 2, 3, 4, 5]
    names = (tmp_path / "finetune" / "classes.txt").read_text().split()
    assert tuple(names) == shapes.CLASS_NAMES
    for row in rows:
        image = Image.open(tmp_path / row.split()[0])
        assert (image.size, image.mode) == ((48, 48), "RGB")
    # Called again, nothing is made anew.
    capsys.readouterr()
    assert _make(tmp_path) == 0
    assert "0 images to make, 24 already there" in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(tmp_path, capsys):
    assert _make(tmp_path) == 0
    assert _make(tmp_path, "--size", "64") == 2
    assert "choose another --output" in capsys.readouterr().err


def test_an_image_depends_on_its_number_alone():
    first = shapes.render_image(0, "train", 7, 48)
    assert np.array_equal(first, shapes.render_image(0, "train", 7, 48))
    for other in ((1, "train", 7), (0, "val", 7), (0, "train", 13)):
        assert not np.array_equal(first, shapes.render_image(*other, 48))


@pytest.mark.parametrize("label", range(6))
def test_the_contour_has_the_lobes_of_its_class(label):
    # The number of maxima of the radius over a turn.
    for index in range(label, 60, 6):
        _, look = shapes.sample_image(0, "test", index)
        angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        orders = np.arange(2, 2 + len(look.contour))
        radius = 1 + (look.contour * np.exp(1j * np.outer(angle, orders))).real.sum(1)
        spectrum = np.abs(np.fft.rfft(radius))[1:]
        assert spectrum.argmax() + 1 == label + 2
        assert radius.min() > 0.5
        # No lobe leaves the picture, so none comes in at the other side.
        motion, _ = shapes.sample_image(0, "test", index)
        largest = shapes.clips.radius_of(motion.start[3]) * radius.max()
        assert largest <= 0.4 + 0.05


def test_colours_do_not_tell_the_class():
    # The mean colour of the picture is of one law for all classes: means differ by chance only.
    images = np.stack([shapes.render_image(0, "train", i, 48) for i in range(360)])
    means = images.reshape(360, -1, 3).mean(1)  # (360, 3)
    of_class = np.stack([means[label::6].mean(0) for label in range(6)])
    error = means.std(0) / np.sqrt(60)
    assert (np.abs(of_class - means.mean(0)) < 4 * error).all()
