"""Tasks of SLURM: variables of srun, lists of nodes, and shells that are no task."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from helpers.slurm_step import STEP, end_tasks, free_port, start_tasks
from helpers.tiny_run import PRETRAINING, command, events, losses, make_videos, run, wait_for

from slowfast_maskfeat import slurm
from slowfast_maskfeat.slurm import expand_nodes, find_task, unused_tasks

ONE_EPOCH = {"SOLVER.MAX_EPOCH": 1, "TRAIN.EVAL_PERIOD": 10}


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("node1", "node1"),
        ("node[01-03,07]", "node01 node02 node03 node07"),
        ("a1,gpu-b[9-11],c.example.org", "a1 gpu-b9 gpu-b10 gpu-b11 c.example.org"),
        ("rack[1-2]n[08-09]-ib", "rack1n08-ib rack1n09-ib rack2n08-ib rack2n09-ib"),
        ("n[098-101]", "n098 n099 n100 n101"),
    ],
)
def test_lists_of_nodes(text, nodes):
    assert expand_nodes(text) == nodes.split()


@pytest.mark.parametrize(
    "text", ["", "node[", "node[a]", "node[3-1]", "a,,b", "a,", "node[1]]", "n[]"]
)
def test_malformed_lists_of_nodes(text):
    with pytest.raises(
        ValueError, match=r"^the list of nodes must be such as node\[01-03,07\], got"
    ):
        expand_nodes(text)
    variables = {**STEP, "SLURM_STEP_NODELIST": text or " ", "SLURM_JOB_NODELIST": ""}
    with pytest.raises(ValueError, match=r"SLURM_\w*NODELIST"):
        find_task(variables)


def test_a_task_of_a_step():
    task = find_task(STEP)
    assert task is not None
    assert task[:4] == (3, 1, 4, False)
    host, port = task.address.removeprefix("tcp://").split(":")
    assert host == "node08"  # of the step, which may have fewer nodes than the job
    assert 1024 <= int(port) < 32768
    assert find_task({**STEP, "SLURM_PROCID": "0"}).address == task.address
    for other in ({"SLURM_JOB_ID": "1234568"}, {"SLURM_STEP_ID": "1"}):
        assert find_task({**STEP, **other}).address != task.address


def test_names_of_older_versions_and_chosen_addresses():
    older = {
        "SLURM_JOBID": "7",
        "SLURM_STEPID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "a[1-2]",
    }
    assert find_task(older) == (1, 0, 2, True, find_task(older).address)
    assert find_task(older).machine == (2, 1, find_task(older).address)
    assert find_task(older).address.startswith("tcp://a1:")
    chosen = {**older, "MASTER_ADDR": "a1-ib", "MASTER_PORT": "29500"}
    assert find_task(chosen).address == "tcp://a1-ib:29500"


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"SLURM_PROCID": ""}, "SLURM_PROCID"),
        ({"SLURM_PROCID": "4"}, "SLURM_PROCID"),
        ({"SLURM_LOCALID": "x"}, "SLURM_LOCALID"),
        ({"SLURM_STEP_NUM_TASKS": "", "SLURM_NTASKS": ""}, "SLURM_STEP_NUM_TASKS"),
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID"),
        ({"MASTER_PORT": "high"}, "MASTER_PORT"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT"),  # of which each process would take another
        ({"MASTER_PORT": "65536"}, "MASTER_PORT"),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(changed, name):
    with pytest.raises(ValueError, match=f"^the environment variable {name} must be "):
        find_task({**STEP, **changed})


NO_STEP = {"SLURM_STEP_ID": ""}
INTERACTIVE_STEP = {"SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}


@pytest.mark.parametrize("changed", [NO_STEP, INTERACTIVE_STEP], ids=["script", "salloc"])
def test_a_shell_of_a_job_is_no_task(changed):
    shell = {**STEP, "SLURM_PROCID": "0", **changed}
    assert find_task(shell) is None
    assert "the SLURM job has 4 tasks, but srun did not start" in unused_tasks(shell)
    # A step of one task, such as `srun --ntasks 1`, or a job of one task, is a run on one machine.
    assert find_task({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert unused_tasks({**shell, "SLURM_NTASKS": "1"}) is None
    assert unused_tasks({}) is None


def test_a_shell_of_srun_is_no_task(monkeypatch):
    """The first task of `srun --ntasks 4 --pty bash` has a terminal; the others have ended."""
    shell = {**STEP, "SLURM_PROCID": "0", "SLURM_PTY_PORT": "34889"}
    leader, terminal = os.openpty()
    with open(terminal) as stdin, open(leader, "rb"):
        monkeypatch.setattr(slurm.sys, "stdin", stdin)
        assert find_task(shell) is None
        assert find_task(STEP) is not None
    with open(os.devnull) as stdin:  # a task that srun starts from that shell
        monkeypatch.setattr(slurm.sys, "stdin", stdin)
        assert find_task(shell) is not None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


def test_two_tasks_of_srun_are_one_run(data, tmp_path):
    words = command(data, tmp_path / "two", PRETRAINING, ONE_EPOCH, {"MVIT.DROPPATH_RATE": 0.0})
    codes, printed = end_tasks(start_tasks(words))
    assert codes == [0, 0], printed
    (start,) = events(tmp_path / "two", "start")
    assert start["num_processes"] == 2
    assert [text.count("OUTPUT_DIR is") for text in printed] == [1, 0]
    done = run(data, tmp_path / "one", PRETRAINING, ONE_EPOCH, {"MVIT.DROPPATH_RATE": 0.0})
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_sigusr1_to_all_tasks_ends_the_run_with_a_checkpoint(data, tmp_path):
    """As with `sbatch --signal=USR1@120`: srun ends with the code by which a script requeues."""
    endless = {"SOLVER.MAX_EPOCH": 1000, "TRAIN.EVAL_PERIOD": 2000, "TRAIN.CHECKPOINT_PERIOD": 2000}
    tasks = start_tasks(command(data, tmp_path, PRETRAINING, endless))
    try:
        wait_for(lambda: (tmp_path / "stats.jsonl").exists() and losses(tmp_path))
        for task in tasks:
            task.send_signal(signal.SIGUSR1)
    except BaseException:
        for task in tasks:
            task.kill()
        raise
    codes, printed = end_tasks(tasks)
    assert codes == [128 + signal.SIGUSR1] * 2, printed
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert printed[0].splitlines()[-1] == f"stopped by signal {int(signal.SIGUSR1)}; {saved}"
    assert "Traceback" not in "".join(printed)


def _listens(port):
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return True
    return False


def test_a_signal_ends_a_task_that_waits_for_the_others():
    """It waits in C++, where no handler of Python runs."""
    port = free_port()
    variables = {"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "this-node", "MASTER_PORT": port}
    code = (
        "from slowfast_maskfeat import distributed as d; from slowfast_maskfeat import cli\n"
        "with cli.raising_signals(): d.from_environment('gloo')"
    )
    task = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **STEP, **variables})
    try:
        wait_for(lambda: task.poll() is not None or _listens(int(port)))
        task.send_signal(signal.SIGTERM)
        assert task.wait(20) == -signal.SIGTERM
    finally:
        task.kill()


@pytest.mark.slow
def test_a_port_in_use_is_an_error_that_names_it(data, tmp_path):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        python, *words = command(data, tmp_path, PRETRAINING, ONE_EPOCH)
        environment = {**os.environ, **STEP, "SLURM_PROCID": "0", "MASTER_PORT": str(port)}
        environment["SLURM_STEP_NODELIST"] = "this-node"
        done = subprocess.run([python, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr.splitlines()[-1]


def test_the_command_in_a_shell_of_salloc_runs_alone(data, tmp_path, monkeypatch):
    for name, value in {**STEP, **NO_STEP, "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    done = run(data, tmp_path, PRETRAINING, ONE_EPOCH)
    assert done.returncode == 0, done.stderr
    (note,) = [line for line in done.stderr.splitlines() if "SLURM" in line]
    assert note.startswith("warning: the SLURM job has 4 tasks")
    assert "put srun before it" in note
    assert events(tmp_path, "start")[0]["num_processes"] == 1


def test_torchrun_comes_before_slurm(monkeypatch):
    """A process of torchrun in a step joins torchrun's group, not SLURM's."""
    code = (
        "import os; from slowfast_maskfeat import distributed as d; "
        "assert d.from_environment('gloo'); print(d.rank(), d.world_size()); d.end_process()"
    )
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    variables |= {"MASTER_PORT": free_port()}
    environment = {**os.environ, **STEP, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "0 1\n"), done.stderr
