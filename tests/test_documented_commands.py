"""Every command in the documentation is run, small; one that no rule covers fails.

Commands of this project run as they stand, in a folder where the files that they name exist, with
pairs appended that make model, data and training tiny. What would change the machine (pip, a
virtual environment) is checked by its form.
"""

from __future__ import annotations

import re
import runpy
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fvcore.common.config import CfgNode
from helpers import ava_data, converted_files, detection_commands, tiny_run
from helpers.command_forms import FORMS, check_venv
from helpers.documents import ROOT, Block, all_blocks
from helpers.tar_shards import write_shard
from helpers.tiny_detection import make_boxes
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.datasets import registry
from slowfast_maskfeat.features import load_features

# Later pairs win, so these make any configuration as small as a test's.
SMALL = {
    **tiny_run.MODEL,
    "MVIT.NUM_HEADS": 1,
    "MVIT.PATCH_KERNEL": [3, 7, 7],
    "MVIT.PATCH_STRIDE": [2, 4, 4],
    "MVIT.DIM_MUL": [],
    "MVIT.HEAD_MUL": [],
    "MASK.PRETRAIN_DEPTH": [1],
    "AUG.MASK_WINDOW_SIZE": [],
    "SOLVER.MAX_EPOCH": 1,
    "SOLVER.WARMUP_EPOCHS": 0,
}
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
# What images need in the place of the above, and what has one clip along the time.
SMALL_IMAGES = {
    "DATA.NUM_FRAMES": 1,
    "MVIT.PATCH_KERNEL": [7, 7],
    "MVIT.PATCH_STRIDE": [4, 4],
    "MVIT.PATCH_PADDING": [3, 3],
    "MVIT.POOL_KVQ_KERNEL": [1, 3, 3],
    "MVIT.REL_POS_TEMPORAL": False,
}
# An autoencoder is a plain transformer with absolute positions.
SMALL_AUTOENCODER = {
    "MVIT.POOL_Q_STRIDE": [],
    "MVIT.POOL_KVQ_KERNEL": None,
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": None,
    "MVIT.REL_POS_SPATIAL": False,
    "MVIT.REL_POS_TEMPORAL": False,
    "MVIT.USE_ABS_POS": True,
    "MVIT.PATCH_KERNEL": [8, 8],
    "MVIT.PATCH_STRIDE": [8, 8],
    "MVIT.PATCH_PADDING": [0, 0],
}
SMALL_SEGMENTS = {"TEST.NUM_ENSEMBLE_VIEWS": 1}
CONFIGS = {
    "ssl": ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml",
    "ssl_eval": ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml",
}
DETECTOR = ROOT / "configs/AVA/MVITv2_S_16x4_MaskFeat.yaml"
LONG = {
    *("tools/demo.py", "tools/demo_ava.py", "tools/demo_image.py"),
    *("tools/benchmark.py", "tools/benchmark_data.py"),
}
NUM_SCORED = 12  # videos of `videos`; key frames to test of `boxes`
BLOCKS = all_blocks()


def _is_of_several_machines(words: Sequence[str]) -> bool:
    return "--num_shards" in words or "--nnodes" in words


def _single_commands() -> list[object]:
    """One case for each command that needs no other one beside it."""
    cases, known = [], set()
    for block in BLOCKS:
        for words in block.commands():
            if tuple(words) in known or _is_of_several_machines(words):
                continue
            known.add(tuple(words))
            is_long = words[0] == "torchrun" or LONG & set(words)
            marks = [pytest.mark.slow] if is_long else []
            name = f"{block.name} {' '.join(words)[:50]}"
            cases.append(pytest.param(words, id=name, marks=marks))
    return cases


def _blocks_of_several_machines() -> list[object]:
    found = [b for b in BLOCKS if any(_is_of_several_machines(w) for w in b.commands())]
    return [pytest.param(block, id=block.name) for block in found]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tiny_run.make_videos(tmp_path_factory.mktemp("videos"))
    write_video(folder / "long.mp4", numbered_frames(40))
    return folder


def _call(script: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a script as `python script arguments` would, in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(str(Path(script).resolve().parent))  # parts lie beside it
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # put back afterwards
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def finished(videos, tmp_path_factory):
    """A pre-training and the fine-tuning from it, by TASK."""
    folders = {}
    for task, config in CONFIGS.items():
        folders[task] = tmp_path_factory.mktemp(task)
        pairs = {"DATA.PATH_TO_DATA_DIR": videos, "OUTPUT_DIR": folders[task], **SMALL}
        pairs["TEST.NUM_TEMPORAL_CLIPS"] = []
        if task == "ssl_eval":
            pairs["TRAIN.CHECKPOINT_FILE_PATH"] = _checkpoint(folders["ssl"])
        with pytest.MonkeyPatch.context() as patch:
            words = ["--cfg", str(config), *tiny_run.pairs(pairs)]
            assert _call(str(ROOT / "tools/run_net.py"), words, patch) == 0
    return folders


def _checkpoint(folder: Path) -> Path:
    (path,) = (folder / "checkpoints").glob("*.pyth")
    return path


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Videos and annotations in the form of AVA; validation looks at second 4 alone."""
    return make_boxes(tmp_path_factory.mktemp("boxes"), seconds=5)


class Sandbox:
    """A folder that looks like the checkout, where commands may write."""

    def __init__(
        self,
        folder: Path,
        videos: Path,
        finished: Callable[[], dict[str, Path]],
        boxes: Callable[[], Path],
    ) -> None:
        self.folder = folder
        self.videos = videos
        self.finished = finished
        self.boxes = boxes
        for name in ("tools", "configs", "datasets", "slowfast_maskfeat"):
            (folder / name).symlink_to(ROOT / name)

    def provide(self, words: Sequence[str]) -> None:
        """Make the files that a command names."""
        if "tools/convert_checkpoint.py" in words:
            return  # its rule makes them
        for word in words:
            if "/ava_checkpoint" in word:
                path, small = self.folder / word, tiny_run.pairs(SMALL)
                detection_commands.write_detector(path, self.boxes(), DETECTOR, small)
            elif word.endswith(".pyth"):
                is_pretrained = "ssl_checkpoint" in word or "_PT_" in word
                task = "ssl" if is_pretrained else "ssl_eval"
                self._copy(_checkpoint(self.finished()[task]), word)
            elif word.endswith(".mp4"):
                self._copy(self.videos / "long.mp4", word)
        if "--clips" in words:
            np.save(words[words.index("--clips") + 1], np.zeros((2, 3, 4, 32, 32), np.uint8))
        pairs = dict(pairwise(words))
        if "AVA.VIDEO_DIR" in pairs:
            detection_commands.provide_files(_configuration(words), self.boxes())
        elif "DATA.PATH_TO_DATA_DIR" in pairs:
            self._lists(pairs)
        if pairs.get("TRAIN.ENABLE") == "False" and "TEST.CHECKPOINT_FILE_PATH" not in pairs:
            trained = _checkpoint(self.finished()["ssl_eval"])
            self._copy(trained, f"{pairs['OUTPUT_DIR']}/checkpoints/{trained.name}")

    def results(self, folder: str) -> None:
        """Put what a finished fine-tuning has written."""
        shutil.copytree(self.finished()["ssl_eval"], self.folder / folder)
        for scores in list((self.folder / folder).glob("test_scores_*.npz")):
            shutil.copy(scores, scores.with_name("test_scores_1x10.npz"))

    def _copy(self, source: Path, target: str) -> None:
        path = self.folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, path)

    def _lists(self, pairs: dict[str, str]) -> None:
        """Lists in the form and with the prefix that the command says."""
        lists = self.folder / pairs["DATA.PATH_TO_DATA_DIR"]
        lists.mkdir(parents=True)
        prefix = pairs.get("DATA.PATH_PREFIX")
        if prefix is not None:
            (self.folder / prefix).symlink_to(self.videos)
        separator = pairs.get("DATA.PATH_LABEL_SEPARATOR", " ")
        for split in ("train", "val", "test"):
            rows = (self.videos / f"{split}.csv").read_text().splitlines()
            fields = [row.split() for row in rows]
            if prefix is not None:
                fields = [[Path(path).name, label] for path, label in fields]
            text = "".join(separator.join(row) + "\n" for row in fields)
            (lists / f"{split}.csv").write_text(text)
        shutil.copy(self.videos / "classes.txt", lists)
        if pairs.get("TRAIN.DATASET") == "webdataset":
            members = {path.name: path.read_bytes() for path in self.videos.glob("[0-9]*.mp4")}
            members |= {f"{name[:-4]}.cls": b"%d" % (int(name[:-4]) % 3) for name in members}
            for split in ("train", "val", "test"):
                write_shard(lists / f"{split}-000000.tar", members)


@pytest.fixture
def sandbox(tmp_path, videos, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Trained only where a command needs it.
    finished, boxes = (partial(request.getfixturevalue, name) for name in ("finished", "boxes"))
    return Sandbox(tmp_path, videos, finished, boxes)


def test_there_are_commands_to_run():
    assert len(_single_commands()) > 15
    assert len(_blocks_of_several_machines()) == 2


@pytest.mark.parametrize("words", _single_commands())
def test_a_documented_command_works(words, sandbox, monkeypatch):
    program = words[0]
    assert program in PROGRAMS or program in FORMS, f"no rule covers {' '.join(words)}"
    if program in FORMS:
        FORMS[program](words[1:])
        return
    sandbox.provide(words)
    PROGRAMS[program](words[1:], sandbox, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("block", _blocks_of_several_machines())
def test_machines_work_together(block, sandbox):
    port = _free_port()
    commands = block.commands()
    assert all(map(_is_of_several_machines, commands)), "one command for each machine is wanted"
    sandbox.provide(commands[0])
    running = [subprocess.Popen(_small(_on_this_host(words, port))) for words in commands]
    try:
        assert [process.wait(timeout=300) for process in running] == [0] * len(commands)
    finally:
        for process in running:
            process.kill()
    _assert_that_it_ran(commands[0])


def _on_this_host(words: Sequence[str], port: int) -> list[str]:
    """The command of one machine, with this host for the one where they meet."""
    local = [re.sub(r":\d+$", f":{port}", w.replace("first-machine", "127.0.0.1")) for w in words]
    if local[0] == "torchrun":
        local[1:1] = ["--master_port", str(port)]
    return _as_subprocess(local, num_processes=1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _as_subprocess(words: Sequence[str], num_processes: int) -> list[str]:
    """The command with this interpreter, and with as few processes as a test can have."""
    if words[0] == "python":
        return [sys.executable, *words[1:]]
    assert words[0] == "torchrun"
    place = list(words).index("--nproc_per_node") + 1
    changed = [*words[1:place], str(num_processes), *words[place + 1 :]]
    alone = [] if "--nnodes" in words else ["--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *alone, *changed]


def _small(words: Sequence[str]) -> list[str]:
    """A command of run_net.py with the pairs that make it tiny."""
    small, cfg = dict(SMALL), _configuration(words)
    if cfg.MVIT.PATCH_2D:
        small |= SMALL_IMAGES
    if cfg.MASK.MAE_ON:
        small |= SMALL_AUTOENCODER
    if cfg.TEST.DATASET == "ssv2":
        small |= SMALL_SEGMENTS
    if "TEST.NUM_TEMPORAL_CLIPS" not in words:
        small["TEST.NUM_TEMPORAL_CLIPS"] = []
    return [*words, *tiny_run.pairs(small)]


def _assert_that_it_ran(words: Sequence[str]) -> None:
    cfg = _configuration(words)
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


def _configuration(words: Sequence[str]) -> CfgNode:
    """What a command of run_net.py asks for, before it is made small."""
    options = list(words[list(words).index("--cfg") + 1 :])
    files = [word for word in options if word.endswith(".yaml")]
    return load_config(files, options[len(files) :])


def _builds_at_full_size(words: Sequence[str]) -> None:
    """The configuration as documented, before it is made small, makes a model and a task."""
    cfg = _configuration(words)
    with torch.device("meta"):
        build_model(cfg)
    build_task(cfg)


def _python(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
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
    rule(words, sandbox, monkeypatch)


def _run_net(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    _builds_at_full_size(words)
    assert _call(words[0], _small(words[1:]), monkeypatch) == 0
    _assert_that_it_ran(words)


def _plain_script(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(words[0], words[1:], monkeypatch) == 0


def _predict(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[str] = []
    if "--cfg" in words:
        _builds_at_full_size(words[words.index("--cfg") : words.index("--cfg") + 2])
        pairs = tiny_run.pairs(SMALL)
    assert _call(words[0], [*words[1:], *pairs], monkeypatch) == 0
    if "--logits" in words:
        assert np.load(words[words.index("--logits") + 1]).shape == (2, 3)


def _detect(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(pairwise(words))
    Path(options["--boxes"]).write_text(detection_commands.boxes_of([0.5, 1.0]))
    assert _call(words[0], [*words[1:], "--threshold", "0"], monkeypatch) == 0
    written = {path.name for path in Path(options["--output"]).iterdir()}
    assert written == {"detections.csv", "detections.mp4"}


def _motion_boxes(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["--num-train", "8", "--num-val", "2", "--seconds", "3", "--processes", "1"]
    assert _call(words[0], [*words[1:], *few], monkeypatch) == 0
    output = Path(words[words.index("--output") + 1])
    assert (output / "annotations" / "motion_train.csv").is_file()


def _motion_clips(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(words[0], [*words[1:], *FEW_CLIPS], monkeypatch) == 0
    output = Path(words[words.index("--output") + 1])
    assert (output / "pretrain" / "train.csv").is_file()


def _data_tool(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # Processes of their own, which a test's __main__ could not start.
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(Path(options["--output"]).iterdir())


def _check_ava(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(pairwise(words))
    folder = Path(options["--videos"]).parent
    ava_data.make_ava(folder, num_frames=70)
    rows = (folder / "truth.csv").read_text().splitlines(keepends=True)
    kept = [row for row in rows if ",0004," not in row]  # which these videos do not have
    for name, video in (("--train", "vid0"), ("--test", "vid1"), ("--ground-truth", "vid1")):
        Path(options[name]).write_text("".join(row for row in kept if row.startswith(video)))
    Path(options["--excluded"]).write_text("vid1,0009\n")
    shutil.copy(folder / "actions.pbtxt", options["--label-map"])
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(Path(options["--output"]).iterdir())) == 3


def _convert(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    options, pairs = converted_files.split(words)
    converted_files.check_at_full_size(options, pairs)
    small = [*pairs, *converted_files.NARROW]
    converted_files.provide(options, small)
    assert _call(words[0], [*words[1:], *converted_files.NARROW], monkeypatch) == 0
    converted_files.check_output(options, small)


def _demo(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    output = words[words.index("--output") + 1] if "--output" in words else "output/demo"
    clips = ["datasets/make_motion_clips.py", "--output", f"{output}/data"]
    _motion_clips(clips, sandbox, monkeypatch)
    assert _call(words[0], [*words[1:], "--budget", "0.04"], monkeypatch) == 0


def _demo_ava(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    output = words[words.index("--output") + 1]
    clips = ["datasets/make_motion_clips.py", "--output", f"{output}/data"]
    _motion_clips(clips, sandbox, monkeypatch)
    boxes = ["datasets/make_motion_boxes.py", "--output", f"{output}/ava"]
    _motion_boxes(boxes, sandbox, monkeypatch)
    assert _call(words[0], [*words[1:], "--budget", "0.04"], monkeypatch) == 0


def _shape_images(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # It imports the script beside it, which a path run by runpy would not find.
    counts = FEW_CLIPS[: FEW_CLIPS.index("--processes")]
    subprocess.run([sys.executable, *words, *counts], check=True)
    assert Path(words[words.index("--output") + 1], "pretrain", "train.csv").is_file()


def _demo_image(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    output = words[words.index("--output") + 1] if "--output" in words else "output/demo"
    images = ["datasets/make_shape_images.py", "--output", f"{output}/images"]
    _shape_images(images, sandbox, monkeypatch)
    command = [sys.executable, *words, "--budget", "0.05"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "MAE" in done.stdout


def _extract(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(words[0], words[1:], monkeypatch) == 0
    features = load_features(words[words.index("--output") + 1])
    assert set(features.rows.tolist()) == set(range(12))


def _visualize(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(words[0], words[1:], monkeypatch) == 0
    panel = Path(words[words.index("--output") + 1])
    assert panel.read_bytes().startswith(b"\x89PNG")
    assert panel.with_suffix(".gif").is_file()


def _benchmark(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # It starts processes of its own script, and its parts lie beside it.
    command = [sys.executable, *words, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def _torchrun(words: Sequence[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    command = _small(_as_subprocess(["torchrun", *words], num_processes=2))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _assert_that_it_ran(words)


def _collect(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


SCRIPTS = {
    "tools/run_net.py": _run_net,
    "tools/predict.py": _predict,
    "tools/model_info.py": _plain_script,
    "tools/convert_checkpoint.py": _convert,
    "tools/check_install.py": _plain_script,
    "tools/detect.py": _detect,
    "tools/demo.py": _demo,
    "tools/demo_ava.py": _demo_ava,
    "tools/demo_image.py": _demo_image,
    "tools/extract_features.py": _extract,
    "tools/visualize.py": _visualize,
    "tools/benchmark.py": _benchmark,
    "tools/benchmark_data.py": _benchmark,
    "datasets/make_motion_clips.py": _motion_clips,
    "datasets/make_motion_boxes.py": _motion_boxes,
    "datasets/make_shape_images.py": _shape_images,
    "datasets/check_ava.py": _check_ava,
    "datasets/make_manifest.py": _data_tool,
    "datasets/check_videos.py": _data_tool,
    "datasets/resize_videos.py": _data_tool,
    "datasets/summary.py": _data_tool,
    "datasets/make_shards.py": _data_tool,
}
PROGRAMS = {"python": _python, "python3": _python, "torchrun": _torchrun}


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=block.name) for block in BLOCKS if block.language == "python"],
)
def test_a_documented_example_works(block: Block, sandbox, monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))  # an example adds to it
    code = "\n".join(block.lines)
    sandbox.provide(re.findall(r'"([^"\n]+\.mp4)"', code))
    for folder in set(re.findall(r'"(output/\w+)"', code)):
        sandbox.results(folder)
    if "output/ava/test_detections.csv" in code:
        detection_commands.provide_detections(sandbox.boxes())
    exec(compile(code, block.name, "exec"), {})


def test_documented_checkpoints_are_those_of_the_last_epoch(sandbox):
    last, named = set(), set()
    for block in BLOCKS:
        for words in block.commands():
            named |= set(re.findall(r"checkpoint_epoch_(\d+)\.pyth", " ".join(words)))
            if "--cfg" in words and "tools/run_net.py" in words:
                last.add(f"{_configuration(words).SOLVER.MAX_EPOCH:05d}")
    assert named
    assert named <= last
