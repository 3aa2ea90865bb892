"""Pre-training on images in minutes on a CPU: HOG, pixels and MAE beside training from scratch.

    python datasets/make_shape_images.py --output output/demo/images
    python tools/demo_image.py --output output/demo

Each method pre-trains the same network for the same number of epochs on the same images without
labels. The table has what few labels make of it: fine-tuned, by a linear probe of the frozen
features, and by the vote of nearest neighbours. From scratch the latter two are of random weights.
"""

from __future__ import annotations

import statistics
import subprocess
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
    run_stage,
    seed_folders,
)

# Configuration of each pre-training, and its name for people; that of none comes last.
METHODS = {
    "image_hog": "HOG (MaskFeat)",
    "image_pixels": "pixels (mask tokens)",
    "image_mae": "pixels (MAE)",
    "": "from scratch",
}
PROBES = ("linear", "knn")
NUM_CLASSES = 6
_NUM_DRAWN = 4  # images in the panel


def main(arguments: Sequence[str]) -> int:
    """Run the steps for each seed and print what came of them.

    Returns:
        the exit code of the first step that failed, 2 without data, or 0.
    """
    options = demo_parser(__doc__).parse_args(arguments)
    data = options.output / "images"
    if not (data / "pretrain" / "train.csv").is_file():
        print(
            f"error: {data}: there are no demo images; make them with "
            f"python datasets/make_shape_images.py --output {data}",
            file=sys.stderr,
        )
        return 2
    folders = [folder / "image" for folder in seed_folders(options).values()]
    try:
        for seed, folder in zip(seed_folders(options), folders, strict=True):
            pairs = ["RNG_SEED", str(seed), *options.opts]
            for method in METHODS:
                _run_method(method, data, folder, pairs, options.budget)
        _draw(data, folders[0])
    except subprocess.CalledProcessError as error:
        return error.returncode
    _report(folders)
    list_files(
        {
            "predictions side by side": folders[0] / "predictions.png",
            "runs and their logs": folders[0] / "*" / "stats.jsonl",
            "features": folders[0] / "*_probe" / "features",
        }
    )
    return 0


def _run_method(method: str, data: Path, folder: Path, pairs: list[str], budget: float) -> None:
    """Pre-train, fine-tune and probe; without a method train and probe from random weights."""
    weights: list[str] = []
    if method:
        _stage(method, data / "pretrain", folder / method, pairs, budget)
        weights = ["TRAIN.CHECKPOINT_FILE_PATH", str(last_checkpoint(folder / method))]
    training = "image_finetune" if method else "image_scratch"
    lists, name = data / "finetune", method or "image_scratch"
    _stage(training, lists, folder / f"{name}_finetune", [*pairs, *weights], budget)
    for kind in PROBES:
        probe = ["PROBE.KIND", kind, *weights]
        _stage("image_finetune", lists, folder / f"{name}_probe", [*pairs, *probe], 1)


def _stage(config: str, lists: Path, folder: Path, pairs: list[str], budget: float) -> None:
    keys = {"DATA.PATH_TO_DATA_DIR": lists, "DATA.PATH_PREFIX": lists.parent}
    run_stage(config, folder, keys, ["LOG_MODEL_INFO", "False", *pairs], budget)


def _draw(data: Path, folder: Path) -> None:
    """The same masked images, as each pre-trained network completes them."""
    names = (data / "pretrain" / "val.csv").read_text(encoding="utf-8").split()[:_NUM_DRAWN]
    methods = [method for method in METHODS if method]
    command = [sys.executable, str(ROOT / "tools" / "visualize.py")]
    command += ["--checkpoint", *(str(last_checkpoint(folder / method)) for method in methods)]
    command += ["--name", *(METHODS[method] for method in methods)]
    command += ["--input", *(str(data / name) for name in names)]
    subprocess.run([*command, "--output", str(folder / "predictions.png")], check=True)


def _report(folders: list[Path]) -> None:
    """The table: mean and, of several seeds, standard deviation of top-1."""
    print(f"\n{'test top-1 (%)':24} {'fine-tuned':>14} {'linear probe':>14} {'kNN':>14}")
    for method, title in METHODS.items():
        name = method or "image_scratch"
        of_seeds = [_figures(folder, name) for folder in folders]
        columns = [mean_text(values, 1) for values in zip(*of_seeds, strict=True)]
        print(f"{title:24} " + " ".join(f"{column:>14}" for column in columns))
    tests = [events(folder / "image_scratch_finetune", "test")[-1] for folder in folders]
    print(
        f"\n{statistics.mean(test['num_videos_scored'] for test in tests):g} of "
        f"{tests[-1]['num_videos']} test images decoded; {NUM_CLASSES} classes, so chance is "
        f"{100 / NUM_CLASSES:.1f} %. The probes from scratch are of random weights."
    )


def _figures(folder: Path, name: str) -> list[float]:
    """Top-1 of the fine-tuned network and of each probe."""
    probes = events(folder / f"{name}_probe", "probe")
    of_kind = {probe["kind"]: probe["top1"] for probe in probes}
    return [
        events(folder / f"{name}_finetune", "test")[-1]["top1"],
        *(of_kind[kind] for kind in PROBES),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
