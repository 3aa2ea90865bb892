"""The pictures: what is drawn where, in which direction, and that files come out."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from slowfast_maskfeat.cli import StoppedError
from slowfast_maskfeat.figures import (
    HOGDrawing,
    PanelRow,
    PixelDrawing,
    accuracy_curves,
    class_bars,
    draw_or_warn,
    file_names,
    hide_masked,
    panel_columns,
    panel_image,
    prediction_panel,
    training_curves,
)
from slowfast_maskfeat.targets.hog import hog


def _row(mask: np.ndarray, size: int = 48, name: str = "waving") -> PanelRow:
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    cells = hog(torch.from_numpy(frame).permute(2, 0, 1)[None])[0]
    return PanelRow(frame, [HOGDrawing(cells, torch.zeros_like(cells), mask)], name)


def _with_mask(row: PanelRow, mask: np.ndarray) -> PanelRow:
    return row._replace(drawings=[drawing._replace(mask=mask) for drawing in row.drawings])


def test_hog_panel_is_a_png_of_four_columns(tmp_path):
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, 1] = True
    path = tmp_path / "new" / "panel.png"
    prediction_panel(path, [_row(mask), _row(~mask)], title="after 25 epochs")
    height, width, _ = imread(path).shape
    assert 1.5 < width / height < 2.5
    assert path.read_bytes().startswith(b"\x89PNG")


def test_hog_panel_takes_tensors_and_does_not_depend_on_pyplot(tmp_path):
    code = "import sys, slowfast_maskfeat.figures; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    row = _row(np.ones((6, 6), dtype=bool))
    prediction_panel(tmp_path / "a.png", [row])
    prediction_panel(
        tmp_path / "b.png",
        [
            _with_mask(row, torch.ones(6, 6, dtype=torch.bool))._replace(
                frame=torch.from_numpy(row.frame)
            )
        ],
    )
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))


def test_prediction_is_shown_only_where_masked(tmp_path):
    mask = np.zeros((3, 3), dtype=bool)
    row = _row(mask)
    target = row.drawings[0].target
    noise = row._replace(drawings=[HOGDrawing(target, torch.ones_like(target), mask)])
    prediction_panel(tmp_path / "a.png", [row])
    prediction_panel(tmp_path / "b.png", [noise])
    assert np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "b.png"))
    prediction_panel(tmp_path / "c.png", [_with_mask(noise, ~mask)])
    assert not np.array_equal(imread(tmp_path / "a.png"), imread(tmp_path / "c.png"))


def test_pixels_stand_beside_histograms_and_their_target_once():
    mask = np.zeros((3, 3), dtype=bool)
    row = _row(mask)
    pixels = PixelDrawing(row.frame, 255 - row.frame, mask)
    widths = [
        panel_image([row._replace(drawings=drawings)]).shape[1]
        for drawings in (
            row.drawings,
            [*row.drawings, pixels],
            [*row.drawings, pixels, pixels._replace(name="MAE")],
        )
    ]
    four, six, seven = widths
    assert six - four == pytest.approx(2 * (seven - six), abs=2)


def test_a_network_that_sees_something_else_in_one_row_has_a_column_of_its_own():
    mask = np.zeros((3, 3), dtype=bool)
    row = _row(mask)
    finer = row.drawings[0]._replace(mask=mask.repeat(2, 0).repeat(2, 1), name="finer")
    same = row._replace(drawings=[*row.drawings, finer])
    assert [column.title for column in panel_columns([same, same])] == [
        *("frame", "masked input", "HOG target"),
        *("HOG predicted where masked", "finer predicted where masked"),
    ]
    other = row._replace(drawings=[*row.drawings, finer._replace(mask=~finer.mask)])
    columns = panel_columns([same, other])
    assert [(column.kind, column.network) for column in columns[1:]] == [
        *(("masked", 0), ("target", 0), ("predicted", 0)),
        *(("masked", 1), ("predicted", 1)),
    ]
    assert columns[4].title == "masked input of finer"
    # A film keeps the columns in moments where they would be fewer.
    wide = panel_image([same], columns=columns)
    assert wide.shape == panel_image([other], columns=columns).shape
    assert wide.shape[1] > panel_image([same]).shape[1]


def test_too_many_rows_are_told():
    with pytest.raises(ValueError, match="180 rows, got 181"):
        panel_image([_row(np.zeros((3, 3), dtype=bool))] * 181)


@pytest.mark.parametrize("degrees", [10, 30, 50, 90, 110, 150])
def test_strokes_lie_along_the_edge(degrees):
    # An image that changes only across a line at `degrees` (counted clockwise, as rows go down).
    angle = math.radians(degrees)
    axis = torch.arange(32.0)
    image = -math.sin(angle) * axis + math.cos(angle) * axis[:, None]
    cells = hog(image.expand(1, 3, 32, 32))[0]
    frame = np.zeros((32, 32, 3), dtype=np.uint8)
    drawing = HOGDrawing(cells, cells, np.zeros((4, 4), dtype=bool))
    target = _histogram_target(panel_image([PanelRow(frame, [drawing])]))
    light = target.astype(float).sum(-1)
    side = len(light) / 4
    cell = light[round(side) : round(2 * side), round(2 * side) : round(3 * side)]
    # Across a stroke the light changes, along it hardly.
    down, right = np.gradient(cell)
    across = math.atan2(2 * (down * right).sum(), (right**2 - down**2).sum()) / 2
    drawn = math.degrees(across) + 90
    assert abs((drawn - degrees + 90) % 180 - 90) <= 10 + 2  # half a bin, and the pixels
    weights = cell - cell.min()
    for axis in (0, 1):
        mean = np.average(np.arange(cell.shape[axis]), weights=weights.sum(1 - axis))
        assert mean == pytest.approx(side / 2, abs=0.03 * side)


def _histogram_target(panel: np.ndarray) -> np.ndarray:
    """Of a panel of one row, the first of the squares on the dark ground of histograms."""
    is_dark = (panel == (11, 13, 18)).all(-1)
    rows, columns = np.flatnonzero(is_dark.any(1)), np.flatnonzero(is_dark.any(0))
    side = rows[-1] + 1 - rows[0]
    return panel[rows[0] :, columns[0] :][:side, :side]


def test_pixels_are_drawn_where_masked_and_the_frame_elsewhere():
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    frame, target, prediction = (
        np.full((32, 32, 3), color, dtype=np.uint8) for color in (red, green, blue)
    )
    left = np.array([[True, False]])
    panel = panel_image([PanelRow(frame, [PixelDrawing(target, prediction, left)])])
    gray = tuple(hide_masked(frame, left)[0, 0])
    count = {color: (panel == color).all(-1).sum() for color in (red, green, blue)}
    square = count[green]
    assert count[red] == pytest.approx(2 * square, rel=0.02)  # the frame and two halves
    assert count[blue] == pytest.approx(square / 2, rel=0.02)
    # From left to right: the frame; what is seen of it; the target; the prediction.
    middle = np.flatnonzero((panel == green).all(-1).any(1)).mean()
    order = [color for color, _ in groupby(map(tuple, panel[int(middle)]))]
    drawn = [color for color in order if color in (red, green, blue, gray)]
    assert drawn == [red, gray, red, green, blue, red]


@pytest.mark.parametrize("size", [(4, 3), (3, 5)])
def test_mask_that_does_not_divide_the_cells(tmp_path, size):
    with pytest.raises(ValueError, match=f"mask size must divide .*, got {size[0]}x{size[1]} "):
        prediction_panel(tmp_path / "a.png", [_row(np.zeros(size, dtype=bool))])


def test_nothing_to_draw(tmp_path):
    for draw, nothing in ((prediction_panel, []), (accuracy_curves, {}), (training_curves, [])):
        with pytest.raises(ValueError, match=r"nothing\.png"):
            draw(tmp_path / "nothing.png", nothing)
    with pytest.raises(ValueError, match="`epoch`"):
        training_curves(tmp_path / "a.png", [{"event": "config", "loss": 3.0}])
    assert list(tmp_path.iterdir()) == []


def test_accuracy_curves(tmp_path):
    epochs = [1, 2, 3]
    runs = {
        "from MaskFeat": (epochs, [[50, 70, 90], [52, 74, 91]]),
        "from scratch": (epochs, torch.tensor([12.0, 20.0, 40.0])),
    }
    accuracy_curves(tmp_path / "a.png", runs, title="eight motions", chance=12.5)
    assert imread(tmp_path / "a.png").std() > 0.05
    with pytest.raises(ValueError, match="'wrong'"):
        accuracy_curves(tmp_path / "b.png", {"wrong": (epochs, [1, 2])})


def test_training_curves(tmp_path):
    events: list[dict[str, object]] = [{"event": "config", "seed": 1}]
    for step in range(20):
        loss = float("nan") if step == 7 else 1 / (1 + step)
        events.append(
            {"event": "train", "epoch": step / 5, "loss": loss, "baseline": 0.5, "lr": 1e-3}
        )
    losses_only = tmp_path / "losses.png"
    training_curves(losses_only, events, title="pre-training")
    events.append({"event": "validate", "epoch": 4, "loss": 0.3, "top1": 40.0})
    with_accuracy = tmp_path / "accuracy.png"
    training_curves(with_accuracy, events)
    assert imread(with_accuracy).shape[0] > imread(losses_only).shape[0]


def _texts(path: Path) -> list[str]:
    """Texts of an SVG file, in order; matplotlib writes each as a comment before its outlines."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def _epochs(count: int) -> list[dict[str, object]]:
    """Events of a run whose epochs have fewer steps than a log period."""
    of_epochs = [
        {"event": "epoch", "epoch": n, "loss": 1 / n, "lr": 1e-3 / n} for n in range(1, count + 1)
    ]
    of_epochs[-1:] += [{"event": "validation", "epoch": count, "loss": 0.5}]
    return of_epochs


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (1, ["0", "1"]),
        (2, ["0", "1", "2"]),
        (7, [str(n) for n in range(8)]),
        (300, ["0", "50", "100", "150", "200", "250", "300"]),
    ],
)
def test_curves_have_ticks_at_whole_epochs(tmp_path, count, ticks):
    training_curves(tmp_path / "x.svg", _epochs(count))
    texts = _texts(tmp_path / "x.svg")
    end = texts.index("epoch")
    # The legend of the loss comes before the axis of the epochs, in the order of the file.
    assert texts[end - len(ticks) - 1 : end] == ["validation", *ticks]
    accuracy_curves(tmp_path / "y.svg", {"a": (range(1, count + 1), [50.0] * count)})
    texts = _texts(tmp_path / "y.svg")
    assert texts[: texts.index("fine-tuning epoch")] == ticks


def test_a_run_in_its_hundredth_epoch_is_drawn_there(tmp_path):
    events = [{"event": "train", "epoch": 100 + n / 10, "loss": 1.0, "lr": 1.0} for n in (2, 4)]
    training_curves(tmp_path / "x.svg", events)
    assert {"100", "101"} <= set(_texts(tmp_path / "x.svg"))


def test_the_legend_names_training_and_validation(tmp_path):
    training_curves(tmp_path / "x.svg", _epochs(3))
    texts = _texts(tmp_path / "x.svg")
    assert {"training (mean of an epoch)", "validation", "learning rate"} <= set(texts)
    steps = [{"event": "train", "epoch": 0.5, "loss": 2.0, "baseline": 3.0, "lr": 1e-3}]
    training_curves(tmp_path / "y.svg", [*steps, *_epochs(3)])
    texts = _texts(tmp_path / "y.svg")
    assert {"training (mean of a log period)", "constant prediction (training)"} <= set(texts)


def test_later_events_replace_those_of_the_same_epochs(tmp_path):
    """After a kill, steps are repeated; after a new start in the same folder, the whole run is."""

    def lines(first: int, last: int, loss: float) -> list[dict[str, object]]:
        start = {"event": "start", "epoch": first // 4, "step": first % 4}
        steps = range(first + 1, last + 1)
        return [start, *({"event": "train", "epoch": n / 4, "loss": loss / n} for n in steps)]

    validation = {"event": "validation", "epoch": 2, "loss": 7.0}
    once, resumed, again = lines(0, 6, 1.0), [*lines(0, 6, 1.0), *lines(4, 10, 2.0)], tmp_path / "c"
    expected = [*lines(0, 4, 1.0), *lines(4, 10, 2.0)]
    training_curves(tmp_path / "a", resumed)
    training_curves(tmp_path / "b", expected)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    training_curves(again, [*lines(0, 10, 3.0), validation, *once])
    training_curves(tmp_path / "d", once)
    assert again.read_bytes() == (tmp_path / "d").read_bytes()


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    good = _epochs(4)
    bad = [
        {"event": "epoch", "epoch": "2", "loss": 1.0},
        {"event": "epoch", "epoch": None, "loss": 1.0},
        {"event": "epoch", "epoch": 2, "loss": [1.0]},
        {"event": "epoch", "epoch": 2, "loss": True, "lr": 10**400},
        {"event": "start", "epoch": [], "step": {}},
        {"event": "epoch"},
    ]
    training_curves(tmp_path / "a.png", good)
    training_curves(tmp_path / "b.png", [*bad, *good, *bad])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(ValueError, match="`epoch`"):
        training_curves(tmp_path / "c.png", bad)


NAMES = {
    "playing \u6253\u7bee\u7403": None,  # without such a font each character is an escape
    "caf\u00e9 $5 and $6": "caf\u00e9 $5 and $6",
    "a_$x^$": "a_$x^$",
    "arc \u2312": "arc \u2312",  # of DejaVu Sans Mono, which comes with matplotlib
    "\x1b[31mred": r"\x1b[31mred",
    "tab\there": r"tab\there",
    "not \udce9 UTF-8": r"not \udce9 UTF-8",
    "turned \u202e round": "turned  round",
}


def test_names_of_any_characters_are_drawn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each missing glyph
        class_bars(tmp_path / "x.svg", dict.fromkeys(NAMES, 0.5), dict.fromkeys(NAMES, 3))
        training_curves(tmp_path / "y.png", _epochs(2), title="".join(NAMES))
        row = _row(np.zeros((3, 3), dtype=bool), name="\n".join(NAMES))
        prediction_panel(tmp_path / "z.png", [row], title="".join(NAMES))
    texts = _texts(tmp_path / "x.svg")
    for expected in filter(None, NAMES.values()):
        assert f"{expected} (3)" in texts


def test_settings_of_the_user_do_not_change_or_break_figures(tmp_path):
    training_curves(tmp_path / "a.png", _epochs(2))
    strange = {"text.usetex": True, "font.family": "Nothing", "lines.linewidth": 9}
    with matplotlib.rc_context(strange):
        training_curves(tmp_path / "b.png", _epochs(2))
        assert matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bars_of_very_many_classes(tmp_path):
    values = {f"class {n}": n / 3000 for n in range(3000)}
    class_bars(tmp_path / "x.svg", values, dict.fromkeys(values, 1))
    texts = _texts(tmp_path / "x.svg")
    assert {"class 0 (1)", "class 2999 (1)"} <= set(texts)
    assert any("of 3000 classes" in text for text in texts)
    assert "class 1500 (1)" not in texts


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/a/b/x.mp4", "/a/c/y.mp4"], ["x.mp4", "y.mp4"]),
        (["/a/b/x.mp4", "/a/c/x.mp4"], ["b/x.mp4", "c/x.mp4"]),
        (["/a/b/x.mp4", "/a/b/x.mp4"], ["x.mp4", "x.mp4"]),
        (["https://a.b/c/frames/"], ["frames"]),
        (["/a/" + "v" * 30 + "0123456789.avi"], ["v" * 20 + "...3456789.avi"]),
        ([], []),
    ],
)
def test_short_names_tell_files_apart(paths, names):
    assert file_names(paths) == names
    assert all(len(name) <= 34 for name in file_names(paths))


def test_a_figure_that_cannot_be_drawn_is_a_warning(tmp_path, capsys):
    path = tmp_path / "x.png"

    def fail(error: BaseException) -> Callable[[], None]:
        def draw() -> None:
            raise error

        return draw

    for error, reason in (
        (ValueError("no\nnumbers"), "no"),
        (OSError(28, "No space left on device", "x"), "No space left on device"),
        (ModuleNotFoundError("No module named 'matplotlib'"), "No module named 'matplotlib'"),
        (KeyError("loss"), "KeyError: 'loss'"),
        (MemoryError(), "MemoryError"),
    ):
        assert not draw_or_warn(path, fail(error))
        assert capsys.readouterr().err == f"warning: {path} is not drawn: {reason}\n"
    for stop in (StoppedError(15, "saved"), KeyboardInterrupt()):
        with pytest.raises(type(stop)):
            draw_or_warn(path, fail(stop))
    assert draw_or_warn(path, lambda: None)
    assert not draw_or_warn(path, lambda: False)
    assert capsys.readouterr().err == ""


def test_a_figure_is_written_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.nothing"
    path.write_text("before")
    with pytest.raises(ValueError, match="nothing"):
        training_curves(path, _epochs(2))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
