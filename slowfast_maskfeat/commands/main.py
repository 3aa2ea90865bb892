"""The program `maskfeat`: finds the command that its first words name, and runs it."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from slowfast_maskfeat import __version__
from slowfast_maskfeat.cli import INVALID_INPUT, end_on_interrupt, until_closed

# In the order of the help.
COMMANDS = (
    *("train", "test", "report", "probe", "predict", "detect", "embed", "compare", "visualize"),
    *("export", "convert", "rewrite", "info", "check-install"),
    *("data manifest", "data check", "data check-ava", "data resize", "data shards"),
    "data summary",
)
"""Words that name a command; its module has the same name with underscores."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: words after the program's name; None: those of this process, which Ctrl-C then
            ends with one line also during the imports.

    Returns:
        The exit code of the command; 2 if there is no such command; see also `until_closed`.
    """
    if arguments is None:
        end_on_interrupt()  # during the imports, which take seconds
    words = list(sys.argv[1:] if arguments is None else arguments)
    return until_closed(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    """Run the command that the first words name."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else INVALID_INPUT
    if words[0] in ("-V", "--version"):
        print(f"maskfeat {__version__}")
        return 0
    num_words = 2 if words[0] == "data" else 1
    name = " ".join(words[:num_words])
    if name not in COMMANDS:
        return _unknown(words)
    sys.argv = [f"maskfeat {name}", *words[num_words:]]  # named so in the command's own messages
    return import_module(_module(name)).main(sys.argv[1:])


def _module(name: str) -> str:
    return f"slowfast_maskfeat.commands.{_stem(name)}"


def _stem(name: str) -> str:
    return name.replace(" ", "_").replace("-", "_")


def _unknown(words: Sequence[str]) -> int:
    if words[0] == "data" and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_help("data "))
        return 0 if len(words) > 1 else INVALID_INPUT
    name = " ".join(words[: 2 if words[0] == "data" else 1])
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; `maskfeat -h` lists them"
    print(f"error: no command {name!r}{hint}", file=sys.stderr)
    return INVALID_INPUT


def _help(begin: str = "") -> str:
    """List the commands; their modules are not imported, which would take seconds."""
    names = [name for name in COMMANDS if name.startswith(begin)]
    width = max(map(len, names)) + 2
    return "\n".join(
        [
            f"usage: maskfeat {begin}COMMAND ...",
            "",
            "Self-supervised video and image models: pre-training, fine-tuning, evaluation, use.",
            "",
            *(f"  {name:<{width}}{_summary(name)}" for name in names),
            "",
            "`maskfeat COMMAND -h` describes a command, `maskfeat --version` prints the version.",
        ]
    )


def _summary(name: str) -> str:
    """First line of the docstring of a command's module."""
    source = Path(__file__).with_name(f"{_stem(name)}.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source))
    assert text is not None
    return text.partition("\n")[0]
