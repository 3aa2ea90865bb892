"""What a user can put right ends a tool with one line and exit code 2."""

from __future__ import annotations

import pytest

from slowfast_maskfeat.build.exit_code import exit_code
from slowfast_maskfeat.videos.decode import DecodeError


def _raise(error: Exception):
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("MODEL.ARCH: 'x'\n  is unknown"), "error: MODEL.ARCH: 'x' is unknown"),
        (DecodeError("a.mp4", "no frames"), "error: a.mp4: no frames"),
        (
            PermissionError(13, "Permission denied", "/r/o.png"),
            "error: /r/o.png: Permission denied",
        ),
        (OSError(28, "No space left"), "error: out.npz: No space left"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(error, line, capsys):
    assert exit_code(lambda: _raise(error), output="out.npz") == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_what_nobody_foresaw_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0, output=None)


def test_a_tool_that_ends_by_itself_has_code_0(capsys):
    assert exit_code(lambda: "anything", output=None) == 0
    assert capsys.readouterr().err == ""
