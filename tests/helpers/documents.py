"""The documentation taken apart: its code blocks and the commands in them."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "INSTALL.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "datasets").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
SHELLS = ("sh", "bash", "shell", "console")
# What need not be installed to be known as a program.
PROGRAMS = frozenset(
    [
        "apt",
        "apt-get",
        "brew",
        "bwrap",
        "conda",
        "curl",
        "dnf",
        "docker",
        "ffmpeg",
        "git",
        "make",
        "mamba",
        "mypy",
        "pip",
        "pip3",
        "pre-commit",
        "pytest",
        "python",
        "python3",
        "ruff",
        "source",
        "sudo",
        "tensorboard",
        "torchrun",
        "uv",
        "wget",
    ]
)


class Block(NamedTuple):
    """A fenced or indented block; `language` is empty where none is given."""

    document: Path
    line: int
    language: str
    lines: tuple[str, ...]

    @property
    def name(self) -> str:
        """Document and line, for test names."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command; in a block of no named language, programs tell them."""
        if self.language and self.language not in SHELLS:
            return []
        joined = "\n".join(self.lines).replace("\\\n", " ").splitlines()
        stripped = [line.strip().removeprefix("$ ") for line in joined]
        lines = [line for line in stripped if line and not line.startswith("#")]
        if self.language not in SHELLS:
            lines = [line for line in lines if _names_a_program(line)]
        return [shlex.split(line, comments=True) for line in lines]


def _names_a_program(line: str) -> bool:
    first = line.split()[0]
    return first in PROGRAMS or shutil.which(first) is not None


def blocks(document: Path) -> Iterator[Block]:
    """The code blocks of a Markdown file."""
    lines = document.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = re.match(r"\s*(```+|~~~+)\s*(\w*)", lines[number])
        start = number
        if fence:
            number += 1
            while not lines[number].strip().startswith(fence[1]):
                number += 1
            inside = lines[start + 1 : number]
            yield Block(document, start + 1, fence[2], tuple(inside))
        elif lines[number].startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number < len(lines) and (
                lines[number].startswith("    ") or not lines[number].strip()
            ):
                number += 1
            yield Block(document, start + 1, "", tuple(lines[start:number]))
            continue
        number += 1


def all_blocks() -> list[Block]:
    """The blocks of all documents."""
    return [block for document in DOCUMENTS for block in blocks(document)]


def shown_files() -> dict[str, str]:
    """The YAML files that documents show: name, as in the comment of the first line, to text."""
    shown = [block.lines for block in all_blocks() if block.language == "yaml"]
    return {lines[0].removeprefix("# "): "\n".join(lines) + "\n" for lines in shown}


def in_backticks(document: Path) -> list[str]:
    """What stands in backticks outside the blocks."""
    text = document.read_text(encoding="utf-8")
    text = re.sub(r"^(```+)[^\n]*\n.*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", text)
