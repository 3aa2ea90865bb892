"""The table of a model's parts, and its file."""

from __future__ import annotations

import argparse
import json

from slowfast_maskfeat.backbones.complexity import PartComplexity
from slowfast_maskfeat.cli import print_written
from slowfast_maskfeat.commands._options import check_writable
from slowfast_maskfeat.commands._run import words_of
from slowfast_maskfeat.config import load_config, split_words
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.runs.model_info import ModelInfo, measure_model

HEADER = (
    "part",
    "tokens in",
    "tokens out",
    "width in",
    "width out",
    "heads",
    "q stride",
    "kv stride",
    "params (M)",
    "G mult-adds",
    "attention (G)",
)


def print_info(options: argparse.Namespace) -> None:
    """Print the table, and write the JSON file if requested.

    Args:
        options: of `maskfeat info`.

    Raises:
        ValueError: the configuration is wrong, or the file can't be written.
    """
    if options.output:
        check_writable(options.output)
    cfg = load_config(*split_words(words_of(options)))
    info = measure_model(cfg, test_size=options.test_size)
    if options.output:
        with atomic_write(options.output) as path:
            path.write_text(json.dumps(info.as_dict(), indent=1) + "\n", encoding="utf-8")
    print("\n".join(report(info)))
    print_written([options.output] if options.output else [])


def report(info: ModelInfo) -> list[str]:
    """Lines of the printed table and summary."""
    cost = info.complexity
    rows = [HEADER, *map(_row, cost.parts)]
    total = (_millions(cost.num_parameters), _giga(cost.multiply_adds), _giga(cost.attention))
    rows.append(("total", *[""] * 7, *total))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            # Names are left-aligned, numbers right-aligned.
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    masked = "" if info.mask_ratio is None else f", {info.mask_ratio:.1%} of them masked"
    lines += [
        "",
        f"{info.model}: {_millions(cost.num_parameters)} M parameters, "
        f"{_giga(cost.multiply_adds)} G multiply-adds for a clip of {_times(info.clip_size)}, "
        f"{cost.attention / cost.multiply_adds:.1%} of them in attention",
        f"tokens: {_times(info.grid)}{masked}; positions: {info.positions}",
    ]
    for test in info.inference():
        view, clips, crops = (
            test[name] for name in ("multiply_adds_of_a_view", "num_clips", "num_crops")
        )
        lines.append(
            f"inference: {view / 1e9:.1f} x {clips} x {crops} = "
            f"{test['multiply_adds'] / 1e9:.1f} G (multiply-adds x clips x crops)"
        )
    if info.num_clips and not info.is_test_size:
        lines.append("inference: not counted, because tests use another size; use --test-size")
    skipped = ", ".join(f"{name} {count}" for name, count in cost.unsupported.items())
    return [*lines, f"called but not counted: {skipped or 'nothing'}"]


def _row(part: PartComplexity) -> tuple[str, ...]:
    shape = part.geometry
    costs = (_millions(part.num_parameters), _giga(part.multiply_adds))
    if shape is None:
        return (part.name, *[""] * 7, *costs, "")
    return (
        part.name,
        str(part.grid_in),
        str(part.grid_out),
        str(shape.dim),
        str(shape.dim_out),
        str(shape.num_heads),
        _times(shape.steps_q),
        _times(shape.steps_kv),
        *costs,
        _giga(part.attention),
    )


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _giga(count: int) -> str:
    return f"{count / 1e9:.3f}"
