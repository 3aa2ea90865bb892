"""Pre-training on images in minutes on a CPU: HOG, pixels and MAE against training from scratch.

    python datasets/make_shape_images.py --output output/demo/images
    python tools/demo_image.py --output output/demo

Each method pre-trains the same network for the same number of epochs on the same images without
labels. The table has the top-1 accuracy with few labels: after fine-tuning, of a linear probe on
frozen features, and of a kNN classifier. From scratch, the probes use random weights.
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
    ROOT,
    demo_parser,
    events,
    last_checkpoint,
    list_files,
    mean_text,
    run_demo,
    run_program,
    run_stage,
    seed_folders,
    validation_curves,
)

from slowfast_maskfeat.figures import accuracy_curves, draw_or_warn

# Configuration of each pre-training -> its title.
METHODS = {
    "image_hog": "HOG (MaskFeat)",
    "image_pixels": "pixels (mask tokens)",
    "image_mae": "pixels (MAE)",
}
SCRATCH = "image_scratch"
RUNS = {**METHODS, SCRATCH: "from scratch"}
PROBES = ("linear", "knn")
NUM_CLASSES = 6
_NUM_DRAWN = 4  # images in the panel


def main(arguments: Sequence[str]) -> int:
    """Run the steps for each seed and print the results.

    Returns:
        The exit code of the first step that failed, 2 without data, or 0.
    """
    options = demo_parser(__doc__).parse_args(arguments)
    return run_demo(lambda: _work(options))


def _work(options: argparse.Namespace) -> int:
    data = options.output / "images"
    if not (data / "pretrain" / "train.csv").is_file():
        print(
            f"error: {data} has no demo images; make them with "
            f"python datasets/make_shape_images.py --output {data}",
            file=sys.stderr,
        )
        return 2
    folders = [folder / "image" for folder in seed_folders(options).values()]
    for seed, folder in zip(seed_folders(options), folders, strict=True):
        pairs = ["RNG_SEED", str(seed), *options.opts]
        for name in RUNS:
            _run_method(name, data, folder, pairs, options.budget)
    _draw_predictions(data, folders[0])
    _draw_accuracy(options.output / "accuracy_image.png", folders)
    _report(folders)
    first = folders[0]
    list_files(
        [
            (options.output, "accuracy_image.png"),
            (first, "predictions.png"),
            *((first, f"{name}*/stats.jsonl") for name in RUNS),
            *((first, f"{name}_probe/features/*") for name in RUNS),
        ]
    )
    return 0


def _run_method(name: str, data: Path, folder: Path, pairs: list[str], budget: float) -> None:
    """Pre-train, fine-tune and probe; or, from scratch, train and probe random weights."""
    training, weights = name, list[str]()
    if name in METHODS:
        _stage(name, data / "pretrain", folder / name, pairs, budget)
        weights = ["TRAIN.CHECKPOINT_FILE_PATH", str(last_checkpoint(folder / name))]
        training = "image_finetune"
    lists = data / "finetune"
    _stage(training, lists, folder / f"{name}_finetune", [*pairs, *weights], budget)
    for kind in PROBES:
        probe = ["PROBE.KIND", kind, *weights]
        _stage("image_finetune", lists, folder / f"{name}_probe", [*pairs, *probe], 1)


def _stage(config: str, lists: Path, folder: Path, pairs: list[str], budget: float) -> None:
    keys = {"DATA.PATH_TO_DATA_DIR": lists, "DATA.PATH_PREFIX": lists.parent}
    run_stage(config, folder, keys, ["LOG_MODEL_INFO", "False", *pairs], budget)


def _draw_predictions(data: Path, folder: Path) -> None:
    """Draw the predictions of all pre-trained networks for the same masked images."""
    names = (data / "pretrain" / "val.csv").read_text(encoding="utf-8").split()[:_NUM_DRAWN]
    command = [sys.executable, str(ROOT / "tools" / "visualize.py")]
    command += ["--checkpoint", *(str(last_checkpoint(folder / name)) for name in METHODS)]
    command += ["--name", *METHODS.values()]
    command += ["--video", *(str(data / name) for name in names)]
    run_program([*command, "--output", str(folder / "predictions.png"), "--force"])


def _draw_accuracy(path: Path, folders: list[Path]) -> None:
    """Plot the validation accuracy over the epochs of fine-tuning."""
    runs = {
        title: [folder / f"{name}_finetune" for folder in folders] for name, title in RUNS.items()
    }
    curves = validation_curves(runs, lambda event: event["top1"])
    draw_or_warn(path, lambda: accuracy_curves(path, curves, chance=100 / NUM_CLASSES))


def _report(folders: list[Path]) -> None:
    """Print the table of top-1: the mean and, for several seeds, the standard deviation."""
    print(f"\n{'test top-1 (%)':24} {'fine-tuned':>14} {'linear probe':>14} {'kNN':>14}")
    for name, title in RUNS.items():
        of_seeds = [_accuracies(folder, name) for folder in folders]
        columns = [mean_text(values, 1) for values in zip(*of_seeds, strict=True)]
        print(f"{title:24} " + " ".join(f"{column:>14}" for column in columns))
    tests = [events(folder / f"{SCRATCH}_finetune", "test")[-1] for folder in folders]
    print(
        f"\n{statistics.mean(test['num_videos_scored'] for test in tests):g} of "
        f"{tests[-1]['num_videos']} test images decoded; {NUM_CLASSES} classes, so chance is "
        f"{100 / NUM_CLASSES:.1f} %. From scratch, the probes use random weights."
    )


def _accuracies(folder: Path, name: str) -> list[float]:
    """Top-1 in percent of the fine-tuned network and of each probe."""
    probes = events(folder / f"{name}_probe", "probe")
    of_kind = {probe["kind"]: probe["top1"] for probe in probes}
    return [
        events(folder / f"{name}_finetune", "test")[-1]["top1"],
        *(of_kind[kind] for kind in PROBES),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
