"""MaskFeat in minutes on a CPU: pre-train on motion clips, fine-tune, compare with scratch.

    python datasets/make_motion_clips.py --output output/demo/data
    python tools/demo.py --output output/demo

With several seeds, each runs in a folder of its own, and the table and curves give mean and spread.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast_maskfeat.build.draw import read_events
from slowfast_maskfeat.checkpoints import find_checkpoints
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.pictures import accuracy_curves

ROOT = Path(__file__).resolve().parent.parent
# Folder of each run, and its name for people.
RUNS = {"finetune": "MaskFeat, then fine-tuned", "scratch": "from scratch"}
NUM_CLASSES = 8


def main(arguments: Sequence[str]) -> int:
    """Run the steps for each seed and print what came of them.

    Returns:
        the exit code of the first step that failed, 2 without data, or 0.
    """
    options = _parse(arguments)
    data = options.output / "data"
    if not (data / "pretrain" / "train.csv").is_file():
        print(
            f"error: {data}: there are no demo clips; make them with "
            f"python datasets/make_motion_clips.py --output {data}",
            file=sys.stderr,
        )
        return 2
    folders = dict.fromkeys(options.seeds, options.output)
    if len(folders) > 1:
        folders = {seed: options.output / f"seed_{seed}" for seed in options.seeds}
    try:
        seconds = [_run_all(options, data, folder, seed) for seed, folder in folders.items()]
    except subprocess.CalledProcessError as error:
        return error.returncode
    _draw(options.output / "accuracy.png", list(folders.values()))
    _report(list(folders.values()), seconds)
    _list_files(options.output, next(iter(folders.values())))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of weights, order, crops and masks"
    )
    parser.add_argument("--budget", type=float, default=1.0, help="share of the epochs, for tests")
    parser.add_argument(
        "--opts", nargs="*", default=[], metavar="KEY VALUE", help="pairs for all runs"
    )
    return parser.parse_args(arguments)


def _run_all(options: argparse.Namespace, data: Path, folder: Path, seed: int) -> dict[str, float]:
    """Pre-train, fine-tune and train from scratch with one seed.

    Returns:
        the seconds of each run.
    """
    pairs = [*("RNG_SEED", str(seed)), *options.opts]
    seconds = {"pretrain": _run("pretrain", data / "pretrain", folder, pairs, options.budget)}
    start = find_checkpoints(folder / "pretrain" / "checkpoints", "ssl")[-1]
    weights = ["TRAIN.CHECKPOINT_FILE_PATH", str(start)]
    seconds["finetune"] = _run(
        "finetune", data / "finetune", folder, [*pairs, *weights], options.budget
    )
    seconds["scratch"] = _run("scratch", data / "finetune", folder, pairs, options.budget)
    return seconds


def _run(name: str, lists: Path, folder: Path, pairs: list[str], budget: float) -> float:
    """One run of run_net.py in a folder of its own; a run that was interrupted is gone on with.

    Returns:
        the seconds it took.
    """
    config = ROOT / "configs" / "demo" / f"{name}.yaml"
    command = [
        *(sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(config)),
        *("DATA.PATH_TO_DATA_DIR", str(lists), "DATA.PATH_PREFIX", str(lists.parent)),
        *("OUTPUT_DIR", str(folder / name)),
        *_shortened(config, budget),
        *pairs,
    ]
    print(f"== {folder / name}", file=sys.stderr)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def _shortened(config: Path, budget: float) -> list[str]:
    """Pairs that scale a run's epochs; none for the whole budget."""
    if budget == 1:
        return []
    solver = load_config([str(config)]).SOLVER
    epochs = max(round(solver.MAX_EPOCH * budget), 1)
    warmup = min(solver.WARMUP_EPOCHS * budget, epochs / 2)
    return ["SOLVER.MAX_EPOCH", str(epochs), "SOLVER.WARMUP_EPOCHS", str(warmup)]


def _draw(path: Path, folders: list[Path]) -> None:
    """Accuracy on the validation list against epochs, both kinds of run in one picture."""
    curves = {}
    for name, title in RUNS.items():
        of_seeds = [_events(folder / name, "validation") for folder in folders]
        epochs = [event["epoch"] for event in of_seeds[0]]
        curves[title] = (epochs, [[event["top1"] for event in events] for events in of_seeds])
    accuracy_curves(path, curves, chance=100 / NUM_CLASSES)


def _report(folders: list[Path], seconds: list[dict[str, float]]) -> None:
    """The table of the tests."""
    print(f"\n{'':28} {'top-1 (%)':>14} {'top-5 (%)':>14} {'loss':>15} {'seconds':>9}")
    for name, title in RUNS.items():
        tests = [_events(folder / name, "test")[-1] for folder in folders]
        figures = [_mean([test[field] for test in tests], 1) for field in ("top1", "top5")]
        figures.append(_mean([test["loss"] for test in tests], 3))
        time_taken = statistics.mean(each[name] for each in seconds)
        print(f"{title:28} {figures[0]:>14} {figures[1]:>14} {figures[2]:>15} {time_taken:9.0f}")
    pretraining = statistics.mean(each["pretrain"] for each in seconds)
    print(f"{'(the pre-training itself)':28} {'':14} {'':14} {'':15} {pretraining:9.0f}")
    print(
        f"\n{tests[-1]['num_videos_scored']} of {tests[-1]['num_videos']} test videos decoded, "
        f"{tests[-1]['num_views']} views each; {NUM_CLASSES} classes, so chance is "
        f"{100 / NUM_CLASSES} %."
    )


def _mean(values: list[float], digits: int) -> str:
    """A value, or mean and standard deviation of several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.{digits}f}"


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log."""
    return [event for event in read_events(folder / "stats.jsonl") if event["event"] == kind]


def _list_files(output: Path, folder: Path) -> None:
    """What was written, and where."""
    (scores,) = (folder / "finetune").glob("test_scores_*.npz")
    written = {
        "accuracy by epoch": output / "accuracy.png",
        "HOG predictions": folder / "pretrain" / "predictions.png",
        "curves of each run": folder / "*" / "curves.png",
        "log of each run": folder / "*" / "stats.jsonl",
        "checkpoints": folder / "*" / "checkpoints",
        "scores of each video": folder / "*" / scores.name,
    }
    for text, path in written.items():
        print(f"  {text:22} {path}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
