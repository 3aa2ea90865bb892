"""Print the parameters and multiply-adds of a configuration's model, block by block.

    maskfeat info --cfg A.yaml [B.yaml ...] [KEY VALUE ...]

Arguments ending in .yaml or .yml are files, of which later ones override earlier ones; the others
are keys and values, which override files. Neither data nor a GPU is needed. A multiply-add counts
as one, as in the "GFLOPs" of this field's papers.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from slowfast_maskfeat.backbones.complexity import PartComplexity
from slowfast_maskfeat.cli import exit_code, print_written
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


def main(arguments: Sequence[str]) -> int:
    """Print the table, and write the JSON file if requested.

    Returns:
        The exit code: 0, or 2 for invalid input.
    """
    warnings.simplefilter("ignore")  # about keys without effect; a run shows these warnings
    options = _parse(arguments)
    return exit_code(lambda: _report(options), output=options.json)


def _report(options: argparse.Namespace) -> None:
    cfg = load_config(*split_words([*options.cfg, *options.words]))
    info = measure_model(cfg, test_size=options.test_size)
    if options.json:
        with atomic_write(Path(options.json)) as path:
            path.write_text(json.dumps(info.as_dict(), indent=1) + "\n", encoding="utf-8")
    print("\n".join(report(info)))
    print_written([options.json] if options.json else [])


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


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cfg",
        nargs="+",
        action="extend",
        required=True,
        metavar="A.yaml or KEY VALUE",
    )
    parser.add_argument(
        "--test-size",
        action="store_true",
        help="count at DATA.TEST_CROP_SIZE, as published numbers for tests do",
    )
    parser.add_argument("--json", metavar="PATH", help="JSON file to write the results to")
    parser.add_argument("words", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args(arguments)
