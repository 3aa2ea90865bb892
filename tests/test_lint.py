"""The checkers find nothing: ruff, mypy and import-linter, as `make lint` runs them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
}


def _program(name: str) -> str:
    """The program of this environment, active or not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed; pip install -e '.[test]' brings it"
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_a_checker_finds_nothing(name):
    program, *arguments = CHECKS[name]
    done = subprocess.run(
        [_program(program), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_docstrings_are_written_alike():
    """Entries of `Args:`, `Raises:` and the like begin in lower case; Markdown has no roles."""
    entry = re.compile(r"^ +\*{0,2}\w+: (The|A|An|If|It|There|Whether) ", re.MULTILINE)
    found = []
    for path in sorted((ROOT / "slowfast_maskfeat").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if entry.search(text) or "``" in text or re.search(r":\w+:`", text):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not found


def test_these_are_the_checks_of_make_lint():
    done = subprocess.run(["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True)
    for command in CHECKS.values():
        assert "/bin/" + " ".join(command) in done.stdout, done.stdout


def test_a_violation_is_found(tmp_path):
    (tmp_path / "bad.py").write_text("import os\n")
    command = [_program("ruff"), "check", "--config", str(ROOT / "pyproject.toml"), "bad.py"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1
