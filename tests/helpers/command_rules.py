"""A rule for each documented command: how it runs small, and what it must have written.

`PROGRAMS` has the rules by the first word of a command; they get the other words.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from helpers import ava_data, converted_files, detection_commands, tiny_run
from helpers.command_forms import check_venv
from helpers.command_sandbox import (
    SMALL,
    Sandbox,
    as_run_net,
    configuration,
    pairs_of_networks,
    small,
)
from helpers.documents import ROOT
from helpers.load_tool import Done, run_command, run_tool
from helpers.slurm_step import end_tasks, start_tasks

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.features import load_features

FEW_CLIPS = [
    "--num-pretrain",
    "64",
    "--num-train",
    "32",
    "--num-val",
    "8",
    "--num-test",
    "8",
    "--processes",
    "1",
]
NUM_SCORED = 12  # videos of `videos`; key frames to test of `boxes`


def as_subprocess(words: Sequence[str], num_processes: int) -> list[str]:
    """The command with this interpreter, and with as few processes as a test can have."""
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    assert words[0] == "torchrun"
    place = list(words).index("--nproc_per_node") + 1
    changed = [*words[1:place], str(num_processes), *words[place + 1 :]]
    alone = [] if "--nnodes" in words else ["--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *alone, *changed]


def assert_that_it_ran(words: Sequence[str]) -> None:
    cfg = configuration(words)
    output = Path(cfg.OUTPUT_DIR)
    if cfg.PROBE.KIND:
        (probe,) = tiny_run.events(output, "probe")
        assert probe["num_videos_scored"] == 12
        return
    assert len(tiny_run.events(output, "epoch")) == cfg.TRAIN.ENABLE
    tests = tiny_run.events(output, "test")
    assert bool(tests) == (cfg.TEST.ENABLE and not cfg.MASK.ENABLE)
    scored = "num_frames_matched" if cfg.DETECTION.ENABLE else "num_videos_scored"
    assert all(test[scored] == NUM_SCORED for test in tests)


def _builds_at_full_size(words: Sequence[str]) -> None:
    """The configuration as documented, before it is made small, makes a model and a task."""
    cfg = configuration(words)
    with torch.device("meta"):
        model = build_model(cfg)
    build_task(cfg, model)


def _python(words: Sequence[str], sandbox: Sandbox) -> None:
    if words[0] == "-c":
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout
        return
    if words[0] == "-m":
        assert words[1] in ("venv", "pytest"), f"no rule covers python -m {words[1]}"
        check_venv(words[2:]) if words[1] == "venv" else _collect(words[2:])
        return
    rule = SCRIPTS.get(words[0])
    assert rule is not None, f"no rule covers the script {words[0]}"
    rule(words, sandbox)


def _run_net(words: Sequence[str], sandbox: Sandbox) -> None:
    _builds_at_full_size([*words, *pairs_of_networks(words)])
    _run(*small(words))
    assert_that_it_ran(words)


def _run(program: str, *words: str) -> Done:
    """Run a script or a command, such as `maskfeat predict`, in this process; it must succeed."""
    is_command = program.startswith("maskfeat ")
    done = run_command(*program.split()[1:], *words) if is_command else run_tool(program, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def _plain_script(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words)


def _predict(words: Sequence[str], sandbox: Sandbox) -> None:
    pairs: list[str] = []
    if "--cfg" in words:
        _builds_at_full_size(words[words.index("--cfg") : words.index("--cfg") + 2])
        pairs = tiny_run.pairs(SMALL)
    _run(*words, *pairs)
    if "--logits" in words:
        assert np.load(words[words.index("--logits") + 1]).shape == (2, 3)


def _detect(words: Sequence[str], sandbox: Sandbox) -> None:
    options = dict(pairwise(words))
    Path(options["--boxes"]).write_text(detection_commands.boxes_of([0.5, 1.0]))
    _run(*words, "--threshold", "0")
    written = {path.name for path in Path(options["--output"]).iterdir()}
    assert written == {"detections.csv", "detections.mp4"}


def _motion_boxes(words: Sequence[str], sandbox: Sandbox) -> None:
    few = ["--num-train", "8", "--num-val", "2", "--seconds", "3", "--processes", "1"]
    _run(*words, *few)
    output = Path(words[words.index("--output") + 1])
    assert (output / "annotations" / "motion_train.csv").is_file()


def _motion_clips(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words, *FEW_CLIPS)
    output = Path(words[words.index("--output") + 1])
    assert (output / "pretrain" / "train.csv").is_file()


def _data_tool(words: Sequence[str], sandbox: Sandbox) -> None:
    options = dict(pairwise(words))
    folder = Path(options.get("--data") or options["--prefix"])
    names = [f"{label}/{number}.mp4" for number in range(3) for label in ("jump", "run")]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sandbox.videos / f"{number}.mp4", folder / name)
    for word in words:
        if word.endswith(".csv"):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            rows = [f"{name} {number % 2}\n" for number, name in enumerate(names)]
            Path(word).write_text("".join(rows))
    _run(*words)
    assert list(Path(options["--output"]).iterdir())


def _check_ava(words: Sequence[str], sandbox: Sandbox) -> None:
    options = dict(pairwise(words))
    folder = Path(options["--videos"]).parent
    ava_data.make_ava(folder, num_frames=70)
    rows = (folder / "truth.csv").read_text().splitlines(keepends=True)
    kept = [row for row in rows if ",0004," not in row]  # which these videos do not have
    for name, video in (("--train", "vid0"), ("--test", "vid1"), ("--ground-truth", "vid1")):
        Path(options[name]).write_text("".join(row for row in kept if row.startswith(video)))
    Path(options["--excluded"]).write_text("vid1,0009\n")
    shutil.copy(folder / "actions.pbtxt", options["--label-map"])
    _run(*words)
    assert len(list(Path(options["--output"]).iterdir())) == 3


def _convert(words: Sequence[str], sandbox: Sandbox) -> None:
    options, pairs = converted_files.split(words)
    converted_files.check_at_full_size(options, pairs)
    small = [*pairs, *converted_files.NARROW]
    converted_files.provide(options, small)
    _run(*words, *converted_files.NARROW)
    converted_files.check_output(options, small)


def _demo(words: Sequence[str], sandbox: Sandbox) -> None:
    output = words[words.index("--output") + 1] if "--output" in words else "output/demo"
    clips = ["datasets/make_motion_clips.py", "--output", f"{output}/data"]
    _motion_clips(clips, sandbox)
    _run(*words, "--budget", "0.04")


def _demo_ava(words: Sequence[str], sandbox: Sandbox) -> None:
    output = words[words.index("--output") + 1]
    clips = ["datasets/make_motion_clips.py", "--output", f"{output}/data"]
    _motion_clips(clips, sandbox)
    boxes = ["datasets/make_motion_boxes.py", "--output", f"{output}/ava"]
    _motion_boxes(boxes, sandbox)
    _run(*words, "--budget", "0.04")


def _shape_images(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words, *FEW_CLIPS[: FEW_CLIPS.index("--processes")])
    assert Path(words[words.index("--output") + 1], "pretrain", "train.csv").is_file()


def _demo_image(words: Sequence[str], sandbox: Sandbox) -> None:
    output = words[words.index("--output") + 1] if "--output" in words else "output/demo"
    images = ["datasets/make_shape_images.py", "--output", f"{output}/images"]
    _shape_images(images, sandbox)
    assert "MAE" in _run(*words, "--budget", "0.05").stdout


def _compare(words: Sequence[str], sandbox: Sandbox) -> None:
    images = words[words.index("--data") + 1]
    _shape_images(["datasets/make_shape_images.py", "--output", images], sandbox)
    pairs = {"SOLVER.MAX_EPOCH": 1, "SOLVER.WARMUP_EPOCHS": 0, "PROBE.EPOCHS": 1}
    pairs |= {"PROBE.NUM_NEIGHBORS": 2, "TRAIN.BATCH_SIZE": 4, "LOG_MODEL_INFO": False}
    done = _run(*words, "--methods", "hog", "--seeds", "1", "--opts", *tiny_run.pairs(pairs))
    output = Path(words[words.index("--output") + 1])
    if "--estimate" in words:
        assert "in all" in done.stdout
    else:
        assert "HOG (MaskFeat)" in (output / "comparison.html").read_text()


def _extract(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words)
    features = load_features(words[words.index("--output") + 1])
    if "--video" in words:
        assert len(features) == 4  # windows of a video of 40 frames
        return
    assert set(features.rows.tolist()) == set(range(12))


def _visualize(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words)
    panel = Path(words[words.index("--output") + 1])
    assert panel.read_bytes().startswith(b"\x89PNG")
    assert panel.with_suffix(".gif").is_file()


def _benchmark(words: Sequence[str], sandbox: Sandbox) -> None:
    assert _run(*words, "--quick").stdout


def _gpu_report(words: Sequence[str], sandbox: Sandbox) -> None:
    few = ["--quick", "--in-process", "--only", "mae"]
    assert "| ViT-L, MAE | eager |" in _read_page(words, _run(*words, *few))


def _read_page(words: Sequence[str], done: Done) -> str:
    page = words[words.index("--output") + 1]
    assert f"wrote {Path(page).resolve()}" in done.stdout
    return Path(page).read_text()


def _decoder_table(words: Sequence[str], sandbox: Sandbox) -> None:
    document = Path(words[words.index("--document") + 1])
    document.parent.mkdir()
    shutil.copy(ROOT / document, document)
    _run(*words, "--files", "h264", "text-named-mp4")
    assert document.read_bytes() == (ROOT / document).read_bytes()


def _torchrun(words: Sequence[str], sandbox: Sandbox) -> None:
    command = small(as_subprocess(["torchrun", *words], num_processes=2))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_that_it_ran(words)


def _srun(words: Sequence[str], sandbox: Sandbox) -> None:
    assert words[0] == "python"
    codes, printed = end_tasks(start_tasks(small([sys.executable, *words[1:]])))
    assert codes == [0, 0], printed
    assert_that_it_ran(words)


def _collect(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


SCRIPTS = {
    "tools/run_net.py": _run_net,
    "tools/predict.py": _predict,
    "tools/model_info.py": _plain_script,
    "tools/compare.py": _compare,
    "tools/check_install.py": _plain_script,
    "tools/decoder_table.py": _decoder_table,
    "tools/detect.py": _detect,
    "tools/demo.py": _demo,
    "tools/demo_ava.py": _demo_ava,
    "tools/demo_image.py": _demo_image,
    "tools/extract_features.py": _extract,
    "tools/visualize.py": _visualize,
    "tools/benchmark.py": _benchmark,
    "tools/benchmark_data.py": _benchmark,
    "tools/gpu_report.py": _gpu_report,
    "datasets/make_motion_clips.py": _motion_clips,
    "datasets/make_motion_boxes.py": _motion_boxes,
    "datasets/make_shape_images.py": _shape_images,
    "datasets/make_manifest.py": _data_tool,
    "datasets/check_videos.py": _data_tool,
    "datasets/resize_videos.py": _data_tool,
    "datasets/summary.py": _data_tool,
    "datasets/make_shards.py": _data_tool,
}


def _report(words: Sequence[str], sandbox: Sandbox) -> None:
    for word in words:
        if word.endswith(".npz"):
            sandbox.results(str(Path(word).parent))
    _run(*words)
    output = Path(words[words.index("--output") + 1])
    assert {path.name for path in output.iterdir()} == {"report.html", "report.json"}


def _export(words: Sequence[str], sandbox: Sandbox) -> None:
    _run(*words)
    assert Path(words[words.index("--output") + 1]).is_file()


def _train_or_test(words: Sequence[str], sandbox: Sandbox) -> None:
    plain = as_run_net([*words[0].split(), *words[1:]])
    _builds_at_full_size([*plain, *pairs_of_networks(plain)])
    _run(*words, *small(plain)[len(plain) :])
    assert_that_it_ran(plain)


COMMANDS = {
    "maskfeat check-install": _plain_script,
    "maskfeat compare": _compare,
    "maskfeat convert": _convert,
    "maskfeat data check": _data_tool,
    "maskfeat data check-ava": _check_ava,
    "maskfeat data manifest": _data_tool,
    "maskfeat data resize": _data_tool,
    "maskfeat data shards": _data_tool,
    "maskfeat data summary": _data_tool,
    "maskfeat detect": _detect,
    "maskfeat embed": _extract,
    "maskfeat export": _export,
    "maskfeat info": _plain_script,
    "maskfeat predict": _predict,
    "maskfeat probe": _train_or_test,
    "maskfeat report": _report,
    "maskfeat test": _train_or_test,
    "maskfeat train": _train_or_test,
    "maskfeat visualize": _visualize,
}


def _maskfeat(words: Sequence[str], sandbox: Sandbox) -> None:
    num_words = 2 if words[0] == "data" else 1
    name = " ".join(["maskfeat", *words[:num_words]])
    assert name in COMMANDS, f"no rule covers {name}"
    COMMANDS[name]([name, *words[num_words:]], sandbox)


PROGRAMS = {
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    "srun": _srun,
    "maskfeat": _maskfeat,
}
