"""tools/check_install.py finds this installation sound, and a broken one broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "tools" / "check_install.py")]


def run(*folders: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (*folders, ROOT))
    return subprocess.run(
        COMMAND, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )


def test_a_sound_installation() -> None:
    result = run()
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[-1] == "The installation works."
    pyav = next(line for line in lines if line.startswith("decoder pyav"))
    assert pyav.endswith("works")


def test_a_broken_dependency_is_named(tmp_path: Path) -> None:
    (tmp_path / "simplejson.py").write_text("raise ImportError('half installed')")
    result = run(tmp_path)
    assert result.returncode == 1
    assert "FAILED: ImportError: half installed" in result.stdout
    assert "not importable: simplejson" in result.stderr
    assert "Traceback" not in result.stderr
