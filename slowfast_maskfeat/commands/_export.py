"""A trained model as a file: its check, and what the file takes and returns."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_output, pairs_of
from slowfast_maskfeat.runs.export import FORMATS, TOLERANCE, export_model
from slowfast_maskfeat.runs.pretrained import from_pretrained


def export(options: argparse.Namespace) -> None:
    """Export a model, and print what the file takes and returns.

    Args:
        options: of `maskfeat export`.

    Raises:
        ValueError: the file exists or can't be written, its suffix is that of another format, or
            see `export_model`.
    """
    path: Path = options.output
    formats = {suffix: name for name, suffix in FORMATS.items()}
    by_suffix = formats.get(path.suffix)
    file_format = options.format or by_suffix
    if file_format is None:
        raise ValueError(
            f"--output must end in {' or '.join(formats)}, or --format must be given, got {path}"
        )
    if by_suffix not in (None, file_format):
        raise ValueError(
            f"--output must not end in {path.suffix}, which is the format {by_suffix}, with "
            f"--format {file_format}, got {path}; leave out --format, or name it "
            f"{path.with_suffix(FORMATS[file_format]).name}"
        )
    check_output(path, options)
    model = from_pretrained(options.checkpoint, config=options.cfg, overrides=pairs_of(options))
    made = export_model(
        model,
        path,
        file_format=file_format,
        has_preprocessing=options.preprocessing,
        report=lambda step: print(f"{step} ...", file=sys.stderr, flush=True),
    )
    for name, text in made.inputs.items():
        print(f"input {name} {text}")
    print(f"output {made.output}")
    if made.opset:
        print(f"ONNX opset {made.opset}")
    found = made.comparison
    print(
        f"largest difference from the model {found.largest_difference:.1e} (at most "
        f"{TOLERANCE:g}); one clip takes {found.milliseconds:.1f} ms, in the model "
        f"{found.torch_milliseconds:.1f} ms"
    )
    print_written([path])
