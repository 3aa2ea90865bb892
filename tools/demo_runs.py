"""What the demos share: runs of run_net.py in folders of their own, and what their logs say."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.runs.figures import read_events

ROOT = Path(__file__).resolve().parent.parent


def demo_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all demos have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of weights, order, crops and masks"
    )
    parser.add_argument("--budget", type=float, default=1.0, help="share of the epochs, for tests")
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="pairs for all runs"
    )
    return parser


def seed_folders(options: argparse.Namespace) -> dict[int, Path]:
    """Seed -> folder of its runs: the output itself for one seed, folders inside for several."""
    if len(set(options.seeds)) == 1:
        return {options.seeds[0]: options.output}
    return {seed: options.output / f"seed_{seed}" for seed in options.seeds}


def run_stage(
    config: str, folder: Path, keys: Mapping[str, Any], pairs: Sequence[str], budget: float
) -> float:
    """One run of run_net.py; one that was interrupted is gone on with.

    Args:
        config: name of a file in configs/demo, without its ending.
        folder: of the run.
        keys: where the data lies, for example.
        pairs: words of further keys and values, which win.
        budget: share of the epochs.

    Returns:
        the seconds it took.

    Raises:
        CalledProcessError: the run failed.
    """
    path = ROOT / "configs" / "demo" / f"{config}.yaml"
    command = [
        *(sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(path)),
        *(str(word) for pair in keys.items() for word in pair),
        *("OUTPUT_DIR", str(folder)),
        *_shortened(path, budget),
        *pairs,
    ]
    print(f"== {folder}", file=sys.stderr)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def pretrain(data: Path, folder: Path, pairs: Sequence[str], budget: float) -> float:
    """The pre-training on the motion clips in `data`, in `folder`/pretrain; see `run_stage`."""
    keys = {"DATA.PATH_TO_DATA_DIR": data / "pretrain", "DATA.PATH_PREFIX": data}
    return run_stage("pretrain", folder / "pretrain", keys, pairs, budget)


def last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a pre-training, if there is one."""
    found = find_checkpoints(folder / "checkpoints", "ssl")
    return found[-1] if found else None


def has_clips(data: Path) -> bool:
    """Whether the motion clips are there; if not, it is said how to make them."""
    if (data / "pretrain" / "train.csv").is_file():
        return True
    print(
        f"error: {data}: there are no demo clips; make them with "
        f"python datasets/make_motion_clips.py --output {data}",
        file=sys.stderr,
    )
    return False


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log."""
    return [event for event in read_events(folder / "stats.jsonl") if event["event"] == kind]


def validation_curves(
    runs: Mapping[str, Sequence[Path]], figure: Callable[[dict[str, Any]], float]
) -> dict[str, tuple[list[int], list[list[float]]]]:
    """For `accuracy_curves`: what the validations of runs gave, by epoch.

    Args:
        runs: title -> folders, one for each seed.
        figure: of the event of a validation, what is drawn.

    Returns:
        title -> epochs and, for each seed, the figures at them.
    """
    curves = {}
    for title, folders in runs.items():
        of_seeds = [events(folder, "validation") for folder in folders]
        epochs = [event["epoch"] for event in of_seeds[0]]
        curves[title] = (epochs, [[figure(event) for event in found] for found in of_seeds])
    return curves


def mean_text(values: Sequence[float], digits: int) -> str:
    """A value, or mean and standard deviation of several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.{digits}f}"


def list_files(written: Mapping[str, Path]) -> None:
    """Print what was written, and where."""
    for text, path in written.items():
        print(f"  {text:22} {path}")


def _shortened(config: Path, budget: float) -> list[str]:
    """Pairs that scale a run's epochs; none for the whole budget."""
    if budget == 1:
        return []
    solver = load_config([str(config)]).SOLVER
    epochs = max(round(solver.MAX_EPOCH * budget), 1)
    warmup = min(solver.WARMUP_EPOCHS * budget, epochs / 2)
    return ["SOLVER.MAX_EPOCH", str(epochs), "SOLVER.WARMUP_EPOCHS", str(warmup)]
