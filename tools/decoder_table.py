#!/usr/bin/env python3
"""Try every installed decoder on every kind of file, and write the table of docs/decoders.md.

The files are those of the tests, which encode them. Columns of decoders that are not installed stay
as they are, and so do rows of files that this FFmpeg cannot encode.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.log import Progress
from slowfast_maskfeat.videos.decode import available_backends

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.decoder_outcomes import outcome_of  # noqa: E402 - found in the folder of the tests
from helpers.kinds_of_files import FILES, MissingEncoderError, make_file  # noqa: E402

DECODERS = {"torchcodec": "torchcodec", "pyav": "PyAV", "decord": "decord"}
HEADER = f"| file | {' | '.join(DECODERS.values())} |"


def read_table(text: str) -> dict[str, dict[str, str]]:
    """Outcome by file and decoder in a document.

    Raises:
        ValueError: the document has no such table.
    """
    lines = text.splitlines()
    if HEADER not in lines:
        raise ValueError(f"the document must have a table that begins with {HEADER!r}")
    rows: dict[str, dict[str, str]] = {}
    for line in lines[lines.index(HEADER) + 2 :]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            break
        rows[cells[0].strip("`")] = dict(zip(DECODERS, cells[1:], strict=True))
    return rows


def with_table(text: str, table: Mapping[str, Mapping[str, str]]) -> str:
    """The document with another table."""
    lines = text.splitlines()
    first = lines.index(HEADER) + 2
    last = first + len(read_table(text))
    rows = [f"| `{name}` | {' | '.join(row[d] for d in DECODERS)} |" for name, row in table.items()]
    return "\n".join([*lines[:first], *rows, *lines[last:]]) + "\n"


def measure(
    known: Mapping[str, Mapping[str, str]], files: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The table with new outcomes of some files."""
    found = [name for name, note in available_backends().items() if "absent" not in note]
    table = {
        name: dict.fromkeys(DECODERS, "not tried") | dict(known.get(name, {})) for name in FILES
    }
    progress = Progress(len(files), "decoding")
    with tempfile.TemporaryDirectory() as folder:
        for name in files:
            try:
                path = make_file(Path(folder), name)
            except MissingEncoderError as error:
                print(f"{name}: no encoder {error}", file=sys.stderr)
            else:
                table[name] |= {decoder: outcome_of(path, name, decoder) for decoder in found}
            progress.update()
    progress.close()
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "decoders.md")
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=FILES, metavar="FILE")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _work(options))


def _work(options: argparse.Namespace) -> None:
    text = options.document.read_text(encoding="utf-8")
    known = read_table(text)
    table = measure(known, options.files)
    for name, row in table.items():
        for decoder, outcome in row.items():
            before = known.get(name, {}).get(decoder, "nothing")
            if outcome != before:
                print(f"{name}, {decoder}: {before} -> {outcome}")
    with atomic_write(options.document) as part:
        part.write_text(with_table(text, table), encoding="utf-8")
    print_written([options.document])


if __name__ == "__main__":
    sys.exit(main())
