"""One run a folder: its lock, its name, what lies in it, and what a resumed run still owes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.load_tool import run_tool
from helpers.tiny_run import (
    FINETUNING,
    MODEL,
    PRETRAINING,
    command,
    events,
    make_videos,
    pairs,
    run,
    wait_for,
)

from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint
from slowfast_maskfeat.runs.resume import free_folder

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"), num_videos=4)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A pre-training of one epoch, which other tests copy."""
    output = tmp_path_factory.mktemp("whole")
    done = run(data, output, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def output(whole, tmp_path):
    folder = tmp_path / "output"
    subprocess.run(["cp", "-r", whole, folder], check=True)
    return folder


def _saved(output: Path, task: str = "ssl") -> dict:
    return load_checkpoint(find_checkpoints(output / "checkpoints", task)[-1])


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# Checkpoints of an earlier run


def test_a_new_run_does_not_touch_the_checkpoints_of_an_earlier_one(data, output):
    before = {path: path.read_bytes() for path in output.rglob("*.pyth")}
    options = {"TRAIN.AUTO_RESUME": False, "TRAIN.KEEP_CHECKPOINTS": 1, "RNG_SEED": 5}
    done = run(data, output, PRETRAINING, ONE_EPOCH, options)
    assert done.returncode == 2
    last = _lines(done.stderr)[-1]
    assert "ssl_checkpoint_epoch_00001.pyth of an earlier run" in last
    assert f"OUTPUT_DIR {output}_2" in last
    assert {path: path.read_bytes() for path in output.rglob("*.pyth")} == before


def test_the_advised_folder_is_one_that_is_free(data, output):
    Path(f"{output}_2").mkdir()
    done = run(data, output, PRETRAINING, {"TRAIN.AUTO_RESUME": False})
    assert f"OUTPUT_DIR {output}_3" in done.stderr


@pytest.mark.parametrize(
    ("folder", "free"), [("a", "a_3"), ("a/", "a_3"), (".", "./run_2"), ("..", "../run_2")]
)
def test_the_advised_folder_has_a_name(tmp_path, monkeypatch, folder, free):
    inside = tmp_path / "inside"
    (inside / "a_2").mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert free_folder(folder) == free


def test_checkpoints_of_another_task_are_told(data, output):
    done = run(data, output, PRETRAINING, ONE_EPOCH, {"TASK": "sll"})
    assert done.returncode == 0, done.stderr
    assert "has checkpoints of TASK 'ssl', none of TASK 'sll'" in done.stderr


def test_fine_tuning_that_picks_up_its_pre_training_is_told_nothing(data, output):
    done = run(data, output, FINETUNING, ONE_EPOCH, {"TEST.ENABLE": False})
    assert done.returncode == 0, done.stderr
    assert "none of TASK" not in done.stderr
    assert events(output, "start")[-1]["started_from"].endswith("ssl_checkpoint_epoch_00001.pyth")


def test_weights_that_a_resumed_run_does_not_start_from_are_told(data, output, tmp_path):
    words = {"TRAIN.CHECKPOINT_FILE_PATH": tmp_path / "absent.pyth"}
    done = run(data, output, PRETRAINING, ONE_EPOCH, words)
    assert done.returncode == 0, done.stderr
    assert "TRAIN.CHECKPOINT_FILE_PATH is not used: OUTPUT_DIR has a run to resume" in done.stderr


@pytest.mark.parametrize("task", ["a/ssl", "ssl\\", "/ssl"])
def test_a_task_is_a_part_of_a_file_name(data, tmp_path, task):
    done = run(data, tmp_path / "output", PRETRAINING, {"TASK": task})
    assert done.returncode == 2
    assert "TASK must be a name without slashes" in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("a\nb", "TASK must be printable, got 'a\\nb'"),
        ("a\x1b[31m", "TASK must be printable, got 'a\\x1b[31m'"),
        ("ä" * 76, "TASK must be at most 150 bytes"),
    ],
)
def test_a_task_makes_file_names_of_one_short_line(data, tmp_path, task, message):
    done = run(data, tmp_path / "output", PRETRAINING, {"TASK": task})
    assert done.returncode == 2
    (line,) = _lines(done.stderr)
    assert message in line
    assert not (tmp_path / "output").exists()


# The lock

HOLD = """
import sys, time
from pathlib import Path
from slowfast_maskfeat.engine.coordination import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_run_in_a_folder_ends_and_writes_nothing(data, tmp_path, holder):
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 2
    (line,) = _lines(done.stderr)
    assert f"{tmp_path} is in use by process {holder.pid} on " in line
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is of Linux")
def test_a_folder_in_which_no_lock_can_be_created_is_named(data):
    done = run(data, Path("/proc"), PRETRAINING, ONE_EPOCH)
    assert done.returncode == 2
    (line,) = _lines(done.stderr)
    assert line.startswith("error: OUTPUT_DIR must be writable, got /proc: ")
    assert ".lock" not in line


def test_a_lock_of_somebody_else_is_named(data, tmp_path):
    (tmp_path / ".lock").mkdir()  # as one without permission
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 2
    (line,) = _lines(done.stderr)
    assert line.startswith(f"error: OUTPUT_DIR must be writable, got {tmp_path}: {tmp_path}/.lock:")


def test_a_killed_process_holds_no_lock(data, tmp_path, holder):
    holder.kill()
    holder.wait()
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_second_run_of_two_processes_ends_with_one_line(data, tmp_path, holder):
    python, *words = command(data, tmp_path, PRETRAINING, ONE_EPOCH)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([python, *torchrun, *words], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("is in use by process") == 1


# The name of the folder


def _run_file(data: Path, cwd: Path, *options: dict, name: str = "pretrain.yaml"):
    (cwd / name).write_text("OUTPUT_DIR: .\n")
    words = pairs(MODEL, {"DATA.PATH_TO_DATA_DIR": data}, PRETRAINING, ONE_EPOCH, *options)
    return run_tool("tools/run_net.py", "--cfg", name, *words, cwd=cwd)


def test_a_run_without_output_dir_writes_where_its_file_says(data, tmp_path):
    done = _run_file(data, tmp_path)
    assert done.returncode == 0, done.stderr
    assert _lines(done.stderr)[0] == "OUTPUT_DIR is output/pretrain"
    assert _saved(tmp_path / "output" / "pretrain")["epoch"] == 0


def test_another_configuration_is_not_mixed_into_a_folder_that_nobody_named(data, tmp_path):
    assert _run_file(data, tmp_path).returncode == 0
    other = {"SOLVER.WEIGHT_DECAY": 0.25, "SOLVER.MAX_EPOCH": 2}
    done = _run_file(data, tmp_path, other)
    assert done.returncode == 2
    lines = _lines(done.stderr)
    assert ["SOLVER.WEIGHT_DECAY", "0.0001", "0.25"] in [line.split() for line in lines]
    assert "OUTPUT_DIR output/pretrain_2 for a new run" in lines[-1]
    done = _run_file(data, tmp_path, other, {"OUTPUT_DIR": "output/pretrain"})
    assert done.returncode == 0, done.stderr
    assert _saved(tmp_path / "output" / "pretrain")["epoch"] == 1


def test_keys_of_a_start_alone_resume_a_folder_that_nobody_named(data, tmp_path):
    assert _run_file(data, tmp_path).returncode == 0
    done = _run_file(data, tmp_path, {"LOG_PERIOD": 7, "TRAIN.EVAL_PERIOD": 5})
    assert done.returncode == 0, done.stderr
    assert ["LOG_PERIOD", "1", "7"] in [line.split() for line in _lines(done.stderr)]
    assert "nothing left to train" in done.stderr


# Keys that change at a resume


def _resume(data: Path, output: Path, **keys: object):
    options = {key.replace("__", "."): value for key, value in keys.items()}
    return run(data, output, PRETRAINING, {"SOLVER.MAX_EPOCH": 2, **options})


def test_what_differs_at_a_resume_is_one_table(data, output):
    done = _resume(data, output, AUG__MASK_RATIO=0.5, SOLVER__BASE_LR=0.001)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines()]
    head = lines.index(["key", "checkpoint", "now"])
    rows = lines[head + 1 : head + 4]
    assert sorted(rows) == [
        ["AUG.MASK_RATIO", "0.4", "0.5"],
        ["SOLVER.BASE_LR", "0.003", "0.001"],
        ["SOLVER.MAX_EPOCH", "1", "2"],
    ]
    assert done.stderr.count("key ") == 1


def test_keys_of_the_optimizer_are_applied_at_a_resume(data, output):
    done = _resume(data, output, SOLVER__WEIGHT_DECAY=0.25, SOLVER__BETAS="[0.8, 0.9]")
    assert done.returncode == 0, done.stderr
    groups = _saved(output)["optimizer_state"]["param_groups"]
    assert {tuple(group["betas"]) for group in groups} == {(0.8, 0.9)}
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}
    steps = {
        float(moments["step"]) for moments in _saved(output)["optimizer_state"]["state"].values()
    }
    assert steps == {2.0}  # one of each epoch: the moments went on


def test_a_method_with_other_moments_is_one_line(data, output):
    before = {path.name for path in (output / "checkpoints").iterdir()}
    done = _resume(data, output, SOLVER__OPTIMIZING_METHOD="sgd")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "SOLVER.OPTIMIZING_METHOD must be adam or adamw, as in the" in _lines(done.stderr)[-1]
    assert {path.name for path in (output / "checkpoints").iterdir()} == before


def test_an_average_that_begins_at_a_resume_begins_at_the_resumed_weights(data, output):
    before = _saved(output)["model_state"]
    done = _resume(data, output, TRAIN__EMA_DECAY=0.999999)
    assert done.returncode == 0, done.stderr
    average = _saved(output)["average_state"]["weights"]
    for name, weight in before.items():
        torch.testing.assert_close(average[name], weight, rtol=1e-3, atol=1e-5)


# Validations that a run owes


@pytest.fixture(scope="module")
def long_validation(data, tmp_path_factory):
    """The same data with a validation that takes far longer than a stop may."""
    folder = tmp_path_factory.mktemp("long")
    rows = (data / "train.csv").read_text()
    for split, times in (("train", 1), ("val", 5000), ("test", 5000)):
        (folder / f"{split}.csv").write_text(rows * times)
    return folder


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_a_resumed_run_makes_the_validation_it_owes(data, long_validation, tmp_path, number):
    output = tmp_path / "output"
    process = subprocess.Popen(
        command(long_validation, output, PRETRAINING, ONE_EPOCH),
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = "ssl_checkpoint_epoch_00001.pyth"
    wait_for(lambda: (output / "stats.jsonl").exists() and events(output, "checkpoint"))
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 143, error
        assert f"stopped by signal 15; {output}/checkpoints/{checkpoint}" in error
    assert events(output, "validation") == []
    folders = {"DATA.PATH_TO_DATA_DIR": data}
    done = run(data, output, PRETRAINING, ONE_EPOCH, folders)
    assert done.returncode == 0, done.stderr
    assert "nothing left to train" in done.stderr
    (validation,) = events(output, "validation")
    assert (validation["epoch"], validation["checkpoint"]) == (1, checkpoint)
    assert run(data, output, PRETRAINING, ONE_EPOCH).returncode == 0
    assert len(events(output, "validation")) == 1


def test_a_signal_ends_a_test_within_seconds(long_validation, tmp_path, data):
    output = tmp_path / "output"
    trained = run(data, output, FINETUNING, ONE_EPOCH, {"TEST.ENABLE": False})
    assert trained.returncode == 0, trained.stderr
    with open(tmp_path / "stderr", "w") as stderr:
        options = {"TRAIN.ENABLE": False, "TEST.ENABLE": True}
        process = subprocess.Popen(
            command(long_validation, output, FINETUNING, options), stderr=stderr
        )
    wait_for(lambda: "loaded" in (tmp_path / "stderr").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    last = _lines((tmp_path / "stderr").read_text())[-1]
    assert last.startswith("stopped by signal 15; 'test' is not finished")
    assert not list(output.glob("*.npz"))


def test_the_log_says_where_a_resumed_run_starts(data, output):
    assert events(output, "resume") == []
    assert _resume(data, output).returncode == 0
    (event,) = events(output, "resume")
    assert os.path.basename(event["checkpoint"]) == "ssl_checkpoint_epoch_00001.pyth"
    assert (event["epoch"], event["step"]) == (1.0, 1)


@pytest.mark.parametrize("line", ['{"event": "checkpoint"}', '{"event": "checkpoint", "path": 5}'])
def test_an_event_without_a_path_does_not_stop_a_resumed_run(data, output, line):
    with open(output / "stats.jsonl", "a") as log:
        log.write(f"{line}\n")
    done = run(data, output, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    assert len(events(output, "validation")) == 1
