"""What ends a script of datasets/ is one line and an exit code."""

from __future__ import annotations

import pytest
from load_tool import load_tool

from slowfast_maskfeat.videos.script import exit_code


def _raise(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("error", "goes_on", "code", "line"),
    [
        (ValueError("no rows"), True, 2, "x: no rows"),
        (
            FileNotFoundError(2, "No such file", "a.csv"),
            True,
            2,
            "x: [Errno 2] No such file: 'a.csv'",
        ),
        (KeyboardInterrupt(), True, 130, "x: interrupted; the same command goes on from here"),
        (KeyboardInterrupt(), False, 130, "x: interrupted"),
    ],
)
def test_what_ends_a_script_is_one_line(error, goes_on, code, line, capsys):
    assert exit_code("x", lambda: _raise(error), goes_on=goes_on) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_script_that_ends_by_itself_has_its_own_code(capsys):
    assert exit_code("x", lambda: 1) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["make_motion_clips", "make_motion_boxes", "make_shape_images"])
def test_interrupted_demo_data_say_that_they_go_on(name, tmp_path, monkeypatch, capsys):
    script = load_tool(f"datasets/{name}.py")
    monkeypatch.setattr(script, "make_data_set", lambda *_, **__: _raise(KeyboardInterrupt()))
    assert script.main(["--output", str(tmp_path)]) == 130
    expected = f"{name}: interrupted; the same command goes on from here\n"
    assert capsys.readouterr().err == expected
