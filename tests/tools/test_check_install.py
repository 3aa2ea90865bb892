"""tools/check_install.py finds this installation sound, and a broken one broken."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from helpers.load_tool import ROOT, run_tool, tool_command


def test_a_sound_installation() -> None:
    result = run_tool("tools/check_install.py")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "The installation works."
    pyav = next(line for line in lines if line.startswith("decoder pyav"))
    assert pyav.endswith("works")


def test_a_broken_dependency_is_named(tmp_path: Path) -> None:
    (tmp_path / "simplejson.py").write_text("raise ImportError('half installed')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = tool_command("tools/check_install.py")
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1
    assert "FAILED: ImportError: half installed" in result.stdout
    assert "not importable: simplejson" in result.stderr
    assert "Traceback" not in result.stderr
