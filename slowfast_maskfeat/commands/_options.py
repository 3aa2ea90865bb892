"""The vocabulary of the commands: the options that several have, and how all are described.

Nothing here imports torch, so that a help is printed at once.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from slowfast_maskfeat.cli import system_error
from slowfast_maskfeat.disk import InUseError, lock_file, probe_file

# Command -> option -> its former names, which stay accepted and are no longer shown.
OLD_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {"--cfg": ("--cfg_files",)},
    "test": {"--cfg": ("--cfg_files",)},
    "probe": {"--cfg": ("--cfg_files",)},
    "report": {"--num-videos": ("--videos",)},
    "predict": {"--output": ("--csv",)},
    "visualize": {"--video": ("--input",)},
    "info": {"--output": ("--json",)},
    "convert": {"--checkpoint": ("--input",)},
    "rewrite": {"--checkpoint": ("--input",)},
}

PAIRS = "KEY VALUE"
"""How words that change the configuration are shown in a usage."""


class CommandParser(argparse.ArgumentParser):
    """Parser of a command's options; a wrong command line is one line and exit code 2.

    Args:
        name: of the command, as in `OLD_NAMES`.
        description: docstring of the command.
    """

    def __init__(self, name: str, description: str | None) -> None:
        self._old_names = OLD_NAMES.get(name, {})
        super().__init__(description=description, formatter_class=_Formatter)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an option, and its former names."""
        action = super().add_argument(*names, **settings)
        for old in self._old_names.get(names[0], ()):
            self._option_string_actions[old] = action  # in neither help nor messages
        return action

    def error(self, message: str) -> NoReturn:
        """End the program: one line, without the usage, which is long."""
        text = message.removeprefix("argument ")
        self.exit(2, f"error: {text}; `{self.prog} -h` describes the options\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written; the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        is_unset = default is None or default is False or default is argparse.SUPPRESS
        if text is None or is_unset or not str(default).strip(" []") or "(default" in text:
            return text
        return f"{text} (default: %(default)s)"


def add_model(parser: CommandParser, checkpoint: str, **settings: Any) -> None:
    """Add the options of a command that loads a trained model: checkpoint, configuration, pairs.

    Args:
        parser: of the command.
        checkpoint: help of --checkpoint.
        **settings: further ones of --checkpoint.
    """
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help=checkpoint, **settings)
    cfg = "YAML file of the model, or name of a shipped one, for weights without a configuration"
    add("--cfg", metavar="FILE", help=cfg)
    add_pairs(parser)


def add_pairs(parser: CommandParser) -> None:
    """Add the pairs that change the configuration: at the end, or after --opts anywhere."""
    text = "keys of the configuration and their values"
    parser.add_argument("words", nargs="*", default=[], metavar=PAIRS, help=text)
    parser.add_argument(
        "--opts",
        nargs="*",
        action="extend",
        default=[],
        metavar=PAIRS,
        help=f"{PAIRS} too; ends an option that takes several values",
    )


def pairs_of(options: argparse.Namespace) -> list[str]:
    """Return the pairs of a command line with `add_pairs`."""
    return [*options.words, *options.opts]


def add_device(parser: CommandParser) -> None:
    """Add --device; `named_device` finds the device that it names."""
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda"),
        help="device of the network; auto: a GPU if torch finds one",
    )


def add_videos(group: argparse._ActionsContainer, **settings: Any) -> None:
    """Add --video of a command that takes several, as `runs.inputs.input_paths` reads it.

    Args:
        group: parser of the command, or a group of its options.
        **settings: further ones of the option.
    """
    text = (
        "videos, images, folders of them, or lists of them, with paths relative to the working "
        "directory or the DATA.PATH_PREFIX of the command line"
    )
    group.add_argument("--video", nargs="+", type=file_name, metavar="PATH", help=text, **settings)


def add_output_folder(parser: CommandParser, content: str, **settings: Any) -> None:
    """Add --output of a command that writes several files.

    Args:
        parser: of the command.
        content: of the folder, for the help.
        **settings: further ones of the option.
    """
    text = f"folder of {content}"
    parser.add_argument("--output", type=_folder, metavar="FOLDER", help=text, **settings)


def add_output_file(parser: CommandParser, text: str, **settings: Any) -> None:
    """Add --output of a command that writes one file.

    Args:
        parser: of the command.
        text: help of the option.
        **settings: further ones of the option.
    """
    parser.add_argument("--output", type=_file, metavar="FILE", help=text, **settings)


def _list(text: str) -> Path:
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(
            f"must be a list file, got the folder {text}; `maskfeat data manifest` lists a folder"
        )
    return Path(text)


def _folder(text: str) -> Path:
    file_name(text)
    if os.path.exists(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"must be a folder, got the file {text}")
    return Path(text)


def _file(text: str) -> Path:
    if os.path.isdir(file_name(text)):
        raise argparse.ArgumentTypeError(f"must be a file, got the folder {text}")
    return Path(text)


def file_name(text: str) -> str:
    """Read the name of a file or folder of an option.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text:
        raise argparse.ArgumentTypeError("must be a name, got an empty one")
    return text


def positive(unit: str) -> Callable[[str], float]:
    """Return the type of an option that is finite and above 0.

    Args:
        unit: of the number, for messages.
    """

    def parse(text: str) -> float:
        number = float(text)
        if not 0 < number < float("inf"):
            rule = "above 0" if number <= 0 else "finite"
            raise argparse.ArgumentTypeError(f"must be {rule} {unit}, got {text}")
        return number

    parse.__name__ = unit  # argparse names the type so
    return parse


seconds = positive("seconds")
"""Type of an option that is a duration."""


def _number(name: str, rule: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """Return the type of an option that is a number, with its name and rule for messages."""

    def parse(text: str) -> float:
        number = float(text)
        if not accepts(number):
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text}")
        return number

    parse.__name__ = name
    return parse


finite = _number("finite", "finite", math.isfinite)
"""Type of an option that may be negative."""
fraction = _number("fraction", "in [0, 1]", lambda number: 0 <= number <= 1)
"""Type of an option that may be none or all of something."""
share = _number("share", "in (0, 1)", lambda number: 0 < number < 1)
"""Type of an option that is a part and leaves some."""


def add_force(parser: CommandParser, what: str = "the output") -> None:
    """Add --force of a command that overwrites nothing without it."""
    parser.add_argument("--force", action="store_true", help=f"overwrite {what}")


def check_output(output: Path, options: argparse.Namespace, *, option: str = "--output") -> None:
    """Check the file of an option before the work that ends with it; nothing is created.

    Raises:
        ValueError: it exists and --force is not given, or it can't be written.
    """
    if os.path.exists(output) and not options.force:
        raise ValueError(
            f"{option} must not exist, got the existing file {output}; --force overwrites it"
        )
    check_writable(output, option=option)


def check_writable(output: Path, *, option: str = "--output") -> None:
    """Check that the file of an option can be written; nothing is created.

    Raises:
        ValueError: it can't.
    """
    try:
        probe_file(output)
    except OSError as error:
        raise _unwritable(output, option, error) from error


def _unwritable(output: Path, option: str, error: OSError) -> ValueError:
    rule = f"{option} must be a file that can be written"
    return ValueError(f"{rule}, got {output}: {system_error(error)}")


@contextmanager
def only_writer(table: Path) -> Iterator[None]:
    """Hold the lock of a table, so that no other command writes it.

    Args:
        table: file to write.

    Raises:
        ValueError: another command has the lock, or it can't be created.
    """
    path = table.with_name(f".{table.name}.lock")
    try:
        file = lock_file(path)
    except InUseError as error:
        raise ValueError(
            f"--output must be a file that no other command writes, but {table} is in use by "
            f"{error}; wait until it ends, or name another file"
        ) from None
    except OSError as error:
        raise _unwritable(table, "--output", error) from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def add_lists(parser: CommandParser) -> None:
    """Add the lists that a command on data reads, and how their paths are read."""
    add = parser.add_argument
    add("lists", type=_list, nargs="+", metavar="LIST", help="list files (train.csv ...)")
    add_reading(parser, "as DATA.PATH_LABEL_SEPARATOR; without it, it is detected")


def add_reading(parser: CommandParser, separator: str) -> None:
    """Add how paths in lists are read.

    Args:
        parser: of the command.
        separator: help of --separator.
    """
    add = parser.add_argument
    add("--prefix", default="", metavar="FOLDER", help="in front of paths, as DATA.PATH_PREFIX")
    # A space is what DATA.PATH_LABEL_SEPARATOR has; a help can't show it.
    add("--separator", default=" ", metavar="TEXT", help=separator)


def add_jobs(
    parser: CommandParser, timeout: float | None, text: str = "seconds for a video"
) -> None:
    """Add the options of work in several processes.

    Args:
        parser: of the command.
        timeout: default of --timeout.
        text: help of --timeout.
    """
    add = parser.add_argument
    add("--timeout", type=seconds, default=timeout, metavar="SECONDS", help=text)
    processes = os.cpu_count() or 1
    add(
        "--processes",
        type=whole_number(1),
        default=processes,
        metavar="N",
        help="processes at once (default: all cores, %(default)s)",
    )


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that is a whole number of at least `least`, at most `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            rule = f">= {least}" if most is None else f"in {least}..{most}"
            raise argparse.ArgumentTypeError(f"must be {rule}, got {text}")
        return number

    parse.__name__ = "whole number"  # argparse names the type so
    return parse
