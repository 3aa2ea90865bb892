"""A run small enough for a test: real videos, real model, real loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import torch
from helpers.load_tool import Done, run_tool, tool_command
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]

# 4 frames of 32x32, a token of 2x8x8 pixels after the first block.
MODEL = {
    "DATA.NUM_FRAMES": 4,
    "DATA.SAMPLING_RATE": 2,
    "DATA.TRAIN_CROP_SIZE": 32,
    "DATA.TEST_CROP_SIZE": 32,
    "DATA.TRAIN_JITTER_SCALES": [36, 40],
    "MVIT.DEPTH": 2,
    "MVIT.EMBED_DIM": 8,
    "MVIT.PATCH_PADDING": [1, 3, 3],
    "MVIT.POOL_Q_STRIDE": [[0, 1, 2, 2]],
    "MVIT.POOL_KVQ_KERNEL": [3, 3, 3],
    "MVIT.POOL_KV_STRIDE_ADAPTIVE": [1, 2, 2],
    "MVIT.USE_ABS_POS": False,
    "MVIT.REL_POS_SPATIAL": True,
    "MVIT.REL_POS_TEMPORAL": True,
    "MVIT.RESIDUAL_POOLING": True,
    "SOLVER.OPTIMIZING_METHOD": "adamw",
    "SOLVER.BASE_LR": 0.003,
    "SOLVER.WARMUP_START_LR": 0.001,
    "SOLVER.MAX_EPOCH": 2,
    "TRAIN.BATCH_SIZE": 4,
    "TRAIN.EVAL_PERIOD": 1,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "TEST.BATCH_SIZE": 4,
    "TEST.NUM_ENSEMBLE_VIEWS": 2,
    "TEST.NUM_SPATIAL_CROPS": 1,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "LOG_MODEL_INFO": False,  # counting costs each process two seconds
    "NUM_GPUS": 0,
}
PRETRAINING = {
    "TASK": "ssl",
    "MODEL.ARCH": "maskmvit",
    "MODEL.MODEL_NAME": "MaskMViT",
    "MODEL.LOSS_FUNC": "multi_mse",
    "MVIT.DROPPATH_RATE": 0.3,  # so that a resumed run needs its random state back
    "MASK.ENABLE": True,
    "MASK.PRED_HOG": True,
    "MASK.PRETRAIN_DEPTH": [1],
    "AUG.MASK_RATIO": 0.4,
}
FINETUNING = {
    "TASK": "ssl_eval",
    "MODEL.ARCH": "mvit",
    "MODEL.MODEL_NAME": "MViT",
    "MODEL.NUM_CLASSES": 3,
    "MVIT.CLS_EMBED_ON": False,
    "MVIT.USE_MEAN_POOLING": True,
}


def make_videos(folder: Path, num_videos: int = 12, num_classes: int = 3) -> Path:
    """Write videos with train, val and test lists and class names."""
    for number in range(num_videos):
        write_video(folder / f"{number}.mp4", numbered_frames(20 + number), fps=30)
    rows = "".join(f"{folder / f'{n}.mp4'} {n % num_classes}\n" for n in range(num_videos))
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text(rows)
    (folder / "classes.txt").write_text("".join(f"class {n}\n" for n in range(num_classes)))
    return folder


def copy_lists(data: Path, folder: Path) -> Path:
    """Copy the lists and class names of `make_videos` into a new folder."""
    folder.mkdir()
    for path in (*data.glob("*.csv"), *data.glob("*.txt")):
        shutil.copy(path, folder)
    return folder


def pairs(*options: dict) -> list[str]:
    """Options, later ones win, as the words of a command line."""
    merged = {key: value for option in options for key, value in option.items()}
    return [str(word) for pair in merged.items() for word in pair]


def _words(data: Path, output: Path, *options: dict) -> list[str]:
    folders = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": output}
    return ["--cfg", *pairs(MODEL, folders, *options)]


def run(data: Path, output: Path, *options: dict) -> Done:
    """Run in this process to the end; the exit code is the caller's to check."""
    return run_tool("tools/run_net.py", *_words(data, output, *options))


def command(data: Path, output: Path, *options: dict) -> list[str]:
    """The command line of a run, for tests that need a process of its own."""
    return tool_command("tools/run_net.py", *_words(data, output, *options))


def run_two_processes(data: Path, output: Path, *options: dict) -> subprocess.CompletedProcess:
    """Run to the end in two processes that torchrun starts."""
    python, *words = command(data, output, *options)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run([python, *torchrun, *words], capture_output=True, text=True)


def events(output: Path, kind: str) -> list[dict]:
    """The events of one kind in a run's log, without a line that is still being written."""
    *lines, _ = (output / "stats.jsonl").read_text().split("\n")
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(output: Path) -> dict[int, float]:
    """Loss by step; a step that was done twice, before and after a kill, counts as the last."""
    return {event["step"]: event["loss"] for event in events(output, "train")}


def last_checkpoint(output: Path, task: str = "ssl") -> Path:
    """The last checkpoint of a run."""
    return find_checkpoints(output / "checkpoints", task)[-1]


def kill_and_resume(data: Path, output: Path, *options: dict, step: int = 1) -> Done:
    """Kill a run once it has saved a step of its first epoch, and resume it to the end."""
    options = (*options, {"TRAIN.CHECKPOINT_STEP_PERIOD": 1})
    process = subprocess.Popen(command(data, output, *options), stderr=subprocess.DEVNULL)
    saved = f"*_checkpoint_epoch_00000_step_{step:07d}.pyth"
    wait_for(lambda: list((output / "checkpoints").glob(saved)))
    process.kill()
    process.wait()
    done = run(data, output, *options)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    return done


def assert_same_training(output: Path, whole: Path, task: str = "ssl") -> None:
    """Check that two runs had equal losses and ended in equal states."""
    assert losses(output) == losses(whole)
    assert_same_state(output, whole, task)


def assert_same_state(output: Path, whole: Path, task: str = "ssl") -> None:
    """Check that model and task of two runs are equal in their last checkpoints."""
    mine, expected = (load_checkpoint(last_checkpoint(folder, task)) for folder in (output, whole))
    for part in ("model_state", "task_state"):
        assert mine[part].keys() == expected[part].keys()
        for name, value in expected[part].items():
            if isinstance(value, torch.Tensor):
                assert value.equal(mine[part][name]), name
            else:
                assert value == mine[part][name], name


def wait_for(condition, seconds: float = 120.0) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.02)
