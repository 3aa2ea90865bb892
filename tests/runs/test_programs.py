"""Programs that a command starts: their cost, output and exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slowfast_maskfeat.runs.programs import run_program


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_cost_and_output_of_a_program(tmp_path):
    code = "import sys; x = bytearray(300_000_000); print('out'); print('err', file=sys.stderr)"
    usage = run_program(_python(code), output=tmp_path / "new" / "console.txt")
    text = (tmp_path / "new" / "console.txt").read_text()
    assert sorted(text.split()) == ["err", "out"]
    assert usage.seconds > 0
    assert usage.cpu_seconds is not None
    assert 0 < usage.cpu_seconds < 60
    assert usage.peak_memory is not None
    assert usage.peak_memory >= 300_000_000
    run_program(_python("print('more')"), output=tmp_path / "new" / "console.txt")
    assert (tmp_path / "new" / "console.txt").read_text() == f"{text}more\n"


@pytest.mark.parametrize(("code", "expected"), [("exit(3)", 3), ("import os; os.abort()", -6)])
def test_a_failure_has_the_exit_code(code, expected, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_program(_python(code), output=tmp_path / "console.txt")
    assert caught.value.returncode == expected
