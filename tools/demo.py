"""MaskFeat in minutes on a CPU: pre-train on motion clips, fine-tune, train from scratch.

    python datasets/make_motion_clips.py --output output/demo/data
    python tools/demo.py --output output/demo

With several seeds, each has its own folder, and the table and curves show mean and standard
deviation.
"""

from __future__ import annotations

if __name__ == "__main__":
    from slowfast_maskfeat.cli import end_on_interrupt

    end_on_interrupt()  # during the imports, which take seconds

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from demo_runs import (
    demo_parser,
    events,
    has_clips,
    last_checkpoint,
    list_files,
    mean_text,
    pretrain,
    run_demo,
    run_stage,
    seed_folders,
    validation_curves,
)

from slowfast_maskfeat.figures import accuracy_curves, draw_or_warn

# Folder of each run -> its title.
RUNS = {"finetune": "MaskFeat, then fine-tuned", "scratch": "from scratch"}
NUM_CLASSES = 8


def main(arguments: Sequence[str]) -> int:
    """Run the steps for each seed and print the results.

    Returns:
        The exit code of the first step that failed, 2 without data, or 0.
    """
    options = demo_parser(__doc__).parse_args(arguments)
    return run_demo(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    data = options.output / "data"
    if not has_clips(data):
        return 2
    folders = seed_folders(options)
    seconds = [_run_all(options, data, folder, seed) for seed, folder in folders.items()]
    _draw(options.output / "accuracy.png", list(folders.values()))
    _report(list(folders.values()), seconds)
    _list_files(options.output, next(iter(folders.values())))
    return 0


def _run_all(options: argparse.Namespace, data: Path, folder: Path, seed: int) -> dict[str, float]:
    """Pre-train, fine-tune and train from scratch with one seed.

    Returns:
        Seconds of each run.
    """
    pairs = [*("RNG_SEED", str(seed)), *options.opts]
    seconds = {"pretrain": pretrain(data, folder, pairs, options.budget)}
    start = ["TRAIN.CHECKPOINT_FILE_PATH", str(last_checkpoint(folder / "pretrain"))]
    keys = {"DATA.PATH_TO_DATA_DIR": data / "finetune", "DATA.PATH_PREFIX": data}
    for name, more in (("finetune", start), ("scratch", [])):
        seconds[name] = run_stage(name, folder / name, keys, [*pairs, *more], options.budget)
    return seconds


def _draw(path: Path, folders: list[Path]) -> None:
    """Plot the validation accuracy of both runs over epochs in one figure."""
    runs = {title: [folder / name for folder in folders] for name, title in RUNS.items()}
    curves = validation_curves(runs, lambda event: event["top1"])
    draw_or_warn(path, lambda: accuracy_curves(path, curves, chance=100 / NUM_CLASSES))


def _report(folders: list[Path], seconds: list[dict[str, float]]) -> None:
    """Print the table of test results."""
    print(f"\n{'':28} {'top-1 (%)':>14} {'top-5 (%)':>14} {'loss':>15} {'seconds':>9}")
    for name, title in RUNS.items():
        tests = [events(folder / name, "test")[-1] for folder in folders]
        top1, top5 = (mean_text([test[field] for test in tests], 1) for field in ("top1", "top5"))
        loss = mean_text([test["loss"] for test in tests], 3)
        mean_seconds = statistics.mean(of_seed[name] for of_seed in seconds)
        print(f"{title:28} {top1:>14} {top5:>14} {loss:>15} {mean_seconds:9.0f}")
    pretraining = statistics.mean(of_seed["pretrain"] for of_seed in seconds)
    print(f"{'(the pre-training itself)':28} {'':14} {'':14} {'':15} {pretraining:9.0f}")
    print(
        f"\n{tests[-1]['num_videos_scored']} of {tests[-1]['num_videos']} test videos decoded, "
        f"{tests[-1]['num_views']} views each; {NUM_CLASSES} classes, so chance is "
        f"{100 / NUM_CLASSES} %."
    )


def _list_files(output: Path, folder: Path) -> None:
    """Print the paths of the written files."""
    of_runs = ("curves.png", "predictions.png", "stats.jsonl", "checkpoints/*", "test_scores_*.npz")
    list_files(
        [
            (output, "accuracy.png"),
            *((folder, f"{run}/{name}") for run in ("pretrain", *RUNS) for name in of_runs),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
