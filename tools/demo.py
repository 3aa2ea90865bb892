"""MaskFeat in minutes on a CPU: pre-train on motion clips, fine-tune, compare with scratch.

python datasets/make_motion_clips.py --output output/demo/data
python tools/demo.py --output output/demo
"""

from __future__ import annotations

import argparse
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
    """Run the steps and print what came of them.

    Returns:
        the exit code of the first step that failed, 2 without data, or 0.
    """
    options = _parse(arguments)
    output: Path = options.output
    if not (output / "data" / "pretrain" / "train.csv").is_file():
        print(
            f"error: {output / 'data'}: there are no demo clips; make them with "
            f"python datasets/make_motion_clips.py --output {output / 'data'}",
            file=sys.stderr,
        )
        return 2
    seconds = {}
    try:
        seconds["pretrain"] = _run(options, "pretrain", data="pretrain")
        start = find_checkpoints(output / "pretrain" / "checkpoints", "ssl")[-1]
        seconds["finetune"] = _run(
            options, "finetune", "TRAIN.CHECKPOINT_FILE_PATH", str(start), data="finetune"
        )
        seconds["scratch"] = _run(options, "scratch", data="finetune")
    except subprocess.CalledProcessError as error:
        return error.returncode
    _draw(output)
    _report(output, seconds)
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order, crops and masks")
    parser.add_argument("--budget", type=float, default=1.0, help="share of the epochs, for tests")
    parser.add_argument("opts", nargs="*", default=[], metavar="KEY VALUE", help="for all runs")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, name: str, *words: str, data: str) -> float:
    """One run of run_net.py in a folder of its own; a folder that is there is gone on with.

    Returns:
        the seconds it took.
    """
    config = ROOT / "configs" / "demo" / f"{name}.yaml"
    folder = options.output / "data"
    command = [
        *(sys.executable, str(ROOT / "tools" / "run_net.py"), "--cfg", str(config)),
        *("DATA.PATH_TO_DATA_DIR", str(folder / data), "DATA.PATH_PREFIX", str(folder)),
        *("OUTPUT_DIR", str(options.output / name), "RNG_SEED", str(options.seed)),
        *words,
        *_shortened(config, options.budget),
        *options.opts,
    ]
    print(f"== {name}", file=sys.stderr)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def _shortened(config: Path, budget: float) -> list[str]:
    """Pairs that scale a run's epochs, none for the whole budget."""
    if budget == 1:
        return []
    solver = load_config([str(config)]).SOLVER
    epochs = max(round(solver.MAX_EPOCH * budget), 1)
    warmup = min(solver.WARMUP_EPOCHS * budget, epochs / 2)
    return ["SOLVER.MAX_EPOCH", str(epochs), "SOLVER.WARMUP_EPOCHS", str(warmup)]


def _draw(output: Path) -> None:
    """Accuracy on the validation list against epochs, both runs in one picture."""
    curves = {}
    for name, title in RUNS.items():
        events = [
            e for e in read_events(output / name / "stats.jsonl") if e["event"] == "validation"
        ]
        curves[title] = ([e["epoch"] for e in events], [e["top1"] for e in events])
    accuracy_curves(output / "accuracy.png", curves, chance=100 / NUM_CLASSES)


def _report(output: Path, seconds: dict[str, float]) -> None:
    """The table, and where everything lies."""
    print()
    print(f"{'':28} {'top-1':>7} {'top-5':>7} {'loss':>7} {'seconds':>8}")
    for name, title in RUNS.items():
        tests = [e for e in read_events(output / name / "stats.jsonl") if e["event"] == "test"]
        print(_row(title, tests[-1], seconds[name]))
    print(f"{'(the pre-training)':28} {'':7} {'':7} {'':7} {seconds['pretrain']:8.0f}")
    test = tests[-1]
    print(
        f"\n{test['num_videos']} test videos, {test['num_views']} views each, 8 classes: "
        f"chance is {100 / NUM_CLASSES:.1f}. What is where:"
    )
    for text, path in _written(output).items():
        print(f"  {text:22} {path}")


def _row(title: str, test: dict[str, Any], seconds: float) -> str:
    return f"{title:28} {test['top1']:7.2f} {test['top5']:7.2f} {test['loss']:7.3f} {seconds:8.0f}"


def _written(output: Path) -> dict[str, Path]:
    return {
        "accuracy by epoch": output / "accuracy.png",
        "HOG predictions": output / "pretrain" / "predictions.png",
        "curves of each run": output / "*" / "curves.png",
        "log of each run": output / "*" / "stats.jsonl",
        "checkpoints": output / "*" / "checkpoints",
        "scores of each video": output / "*" / "test_scores_1x3.npz",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
