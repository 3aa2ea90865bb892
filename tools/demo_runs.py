"""Shared code of the demos: start runs of run_net.py and read their logs."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast_maskfeat.checkpoints import checkpoint_folder, find_checkpoints
from slowfast_maskfeat.cli import exit_code, print_written
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.log import event_log_path, read_events
from slowfast_maskfeat.runs.programs import run_program
from slowfast_maskfeat.runs.shorter import shorter_schedule

ROOT = Path(__file__).resolve().parent.parent


def demo_parser(description: str | None) -> argparse.ArgumentParser:
    """Parser with the options that all demos have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="output folder")
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0],
        help="seeds of weights, sample order, crops and masks; one run each",
    )
    parser.add_argument(
        "--budget", type=float, default=1.0, help="fraction of the epochs, for tests"
    )
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="configuration of all runs"
    )
    return parser


def run_demo(work: Callable[[], int]) -> int:
    """Run a demo, and return its exit code: that of a program of it that failed or was stopped."""

    def run() -> int:
        try:
            return work()
        except subprocess.CalledProcessError as error:
            code = error.returncode
            return code if code > 0 else 128 - code  # as in a shell, after a signal

    return exit_code(run, resumable=True)


def seed_folders(options: argparse.Namespace) -> dict[int, Path]:
    """Seed -> folder of its runs: the output folder for one seed, subfolders for several."""
    if len(set(options.seeds)) == 1:
        return {options.seeds[0]: options.output}
    return {seed: options.output / f"seed_{seed}" for seed in options.seeds}


def run_stage(
    config: str, folder: Path, keys: Mapping[str, Any], pairs: Sequence[str], budget: float
) -> float:
    """Run run_net.py; an interrupted run is resumed.

    Args:
        config: name of a file in configs/demo, without its suffix.
        folder: output folder of the run.
        keys: configuration keys and values, such as the paths of the data.
        pairs: further keys and values, alternating, which override `keys`.
        budget: fraction of the epochs.

    Returns:
        Seconds of the run.

    Raises:
        CalledProcessError: the run failed.
    """
    path = ROOT / "configs" / "demo" / f"{config}.yaml"
    command = [
        *(sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(path)),
        *(str(word) for pair in keys.items() for word in pair),
        *("OUTPUT_DIR", str(folder)),
        *shorter_schedule(load_config([str(path)]), budget),
        *pairs,
    ]
    print(f"== {folder}", file=sys.stderr)
    return run_program(command).seconds


def pretrain(data: Path, folder: Path, pairs: Sequence[str], budget: float) -> float:
    """Pre-train on the motion clips in `data`, in the folder `folder`/pretrain; see `run_stage`."""
    keys = {"DATA.PATH_TO_DATA_DIR": data / "pretrain", "DATA.PATH_PREFIX": data}
    return run_stage("pretrain", folder / "pretrain", keys, pairs, budget)


def last_checkpoint(folder: Path) -> Path | None:
    """Last checkpoint of a pre-training; None if there is none."""
    found = find_checkpoints(checkpoint_folder(folder), "ssl")
    return found[-1] if found else None


def has_clips(data: Path) -> bool:
    """Whether the motion clips exist; if not, print how to make them."""
    if (data / "pretrain" / "train.csv").is_file():
        return True
    print(
        f"error: {data} has no demo clips; make them with "
        f"python datasets/make_motion_clips.py --output {data}",
        file=sys.stderr,
    )
    return False


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Events of one kind in the log of a run."""
    return [event for event in read_events(event_log_path(folder)) if event["event"] == kind]


def validation_curves(
    runs: Mapping[str, Sequence[Path]], value: Callable[[dict[str, Any]], float]
) -> dict[str, tuple[list[int], list[list[float]]]]:
    """Validation results by epoch, in the form of `accuracy_curves`.

    Args:
        runs: title -> folders, one per seed.
        value: maps a validation event to the value to plot.

    Returns:
        Title -> (epochs, values of each seed at these epochs).
    """
    curves = {}
    for title, folders in runs.items():
        of_seeds = [events(folder, "validation") for folder in folders]
        epochs = [event["epoch"] for event in of_seeds[0]]
        curves[title] = (epochs, [[value(event) for event in of_seed] for of_seed in of_seeds])
    return curves


def mean_text(values: Sequence[float], digits: int) -> str:
    """Format one value, or mean and standard deviation of several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.{digits}f}"


def list_files(written: Sequence[tuple[Path, str]]) -> None:
    """Print the written files: those in each folder that match a pattern."""
    print_written(path for folder, pattern in written for path in sorted(folder.glob(pattern)))
