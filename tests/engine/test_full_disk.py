"""Runs that cannot write: one line with the path and the reason, and nothing half-written."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest
from helpers.full_disk import TOO_LARGE, files_limited_to, unfinished
from helpers.tiny_run import (
    FINETUNING,
    PRETRAINING,
    command,
    losses,
    make_videos,
    run,
    run_two_processes,
)

from slowfast_maskfeat.checkpoints import load_checkpoint

_BELOW_A_CHECKPOINT = 60_000  # bytes; stats.jsonl of these runs is smaller


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


def _line(done) -> str:
    """The line of the error, after checks that hold for all of them."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.stderr.splitlines()[-1] == line
    return line


def test_a_checkpoint_that_does_not_fit_leaves_the_older_ones(data, tmp_path):
    one = {"SOLVER.MAX_EPOCH": 1}
    assert run(data, tmp_path, PRETRAINING, one).returncode == 0
    with files_limited_to(_BELOW_A_CHECKPOINT):
        line = _line(run(data, tmp_path, PRETRAINING))
    folder = tmp_path / "checkpoints"
    assert line == f"error: {folder / 'ssl_checkpoint_epoch_00002.pyth'}: {TOO_LARGE}"
    assert [path.name for path in folder.iterdir()] == ["ssl_checkpoint_epoch_00001.pyth"]
    assert load_checkpoint(folder / "ssl_checkpoint_epoch_00001.pyth")["epoch"] == 0
    done = run(data, tmp_path, PRETRAINING)
    assert done.returncode == 0, done.stderr
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5, 6]


def test_a_log_that_does_not_fit(data, tmp_path):
    with files_limited_to(7_000):
        line = _line(run(data, tmp_path, PRETRAINING, {"TRAIN.CHECKPOINT_PERIOD": 100}))
    assert line == f"error: {tmp_path / 'stats.jsonl'}: {TOO_LARGE}"


def test_events_of_tensorboard_that_do_not_fit(data, tmp_path):
    pytest.importorskip("tensorboard")
    options = {"TENSORBOARD.ENABLE": True, "LOG_PERIOD": 1, "SOLVER.MAX_EPOCH": 40}
    options.update({"TRAIN.CHECKPOINT_PERIOD": 100, "TRAIN.EVAL_PERIOD": 100})
    options["TRAIN.BATCH_SIZE"] = 1
    (tmp_path / "stats.jsonl").symlink_to("/dev/null")  # would be full first
    with files_limited_to(12_000):
        line = _line(run(data, tmp_path, PRETRAINING, options))
    assert line == f"error: {tmp_path / 'runs'}: {TOO_LARGE}"


def test_scores_that_do_not_fit(data, tmp_path):
    trained = tmp_path / "trained"
    options = {"SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": False}
    assert run(data, trained, FINETUNING, options).returncode == 0
    (checkpoint,) = (trained / "checkpoints").iterdir()
    test = {"TRAIN.ENABLE": False, "TEST.CHECKPOINT_FILE_PATH": checkpoint}
    (tmp_path / "stats.jsonl").symlink_to("/dev/null")
    with files_limited_to(500):
        line = _line(run(data, tmp_path, FINETUNING, test))
    assert line.startswith(f"error: {tmp_path / 'test_scores_'}")
    assert line.endswith(f": {TOO_LARGE}")
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("place", ["output", "output/run", "output/run/checkpoints"])
def test_a_file_where_a_folder_should_be_is_named_before_the_first_step(data, tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("a file")
    line = _line(run(data, tmp_path / "output" / "run", PRETRAINING))
    assert str(tmp_path / place) in line
    assert line.endswith("must be a folder, but is a file")
    assert (tmp_path / place).read_text() == "a file"


@pytest.mark.slow
def test_two_processes_report_it_once(data, tmp_path):
    with files_limited_to(_BELOW_A_CHECKPOINT):
        done = run_two_processes(data, tmp_path, PRETRAINING)
    path = tmp_path / "checkpoints" / "ssl_checkpoint_epoch_00001.pyth"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert lines == [f"error: {path}: {TOO_LARGE}"]
    assert 'run_net.py", line' not in done.stderr  # the traceback is torchrun's own
    assert not unfinished(tmp_path)


def _in_a_small_file_system(folder, size: str, words: list[str], options: str = "") -> list[str]:
    """A command for which a folder is a small file system of its own."""
    mount = f"mount -t tmpfs -o size={size}{options} tmpfs {shlex.quote(str(folder))}"
    script = f"{mount} && {{ {shlex.join(words)}; code=$?; ls -AR {folder} >&2; exit $code; }}"
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]


def _can_mount(folder) -> bool:
    if shutil.which("unshare") is None:
        return False
    words = _in_a_small_file_system(folder, "64k", ["true"])
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "options", "reason"),
    [("300k", "", "No space left on device"), ("300k", ",ro", "Read-only file system")],
)
def test_a_file_system_that_is_full_or_read_only(data, tmp_path, size, options, reason):
    if not _can_mount(tmp_path):
        pytest.skip("this user can mount nothing, not even in a namespace")
    words = command(data, tmp_path / "output", PRETRAINING, {"SOLVER.MAX_EPOCH": 5})
    words = _in_a_small_file_system(tmp_path, size, words, options)
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert str(tmp_path / "output") in line
    assert line.endswith(f": {reason}")
    assert ".part" not in done.stderr  # the list of the files that are left
