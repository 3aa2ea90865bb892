"""Commands started as SLURM's srun starts them: processes with the variables of a step."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence

# The last task of four on the first two nodes of a job.
STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[08,10]",
    "SLURM_JOB_NODELIST": "node[07-10]",
}


def start_tasks(
    words: Sequence[str], num_tasks: int = 2, **variables: str
) -> list[subprocess.Popen[str]]:
    """Start a command as the tasks of a step on this machine, at a port that is free."""
    environment = {**os.environ, **STEP, "SLURM_STEP_NODELIST": "this-node"}
    environment |= {"SLURM_STEP_NUM_TASKS": str(num_tasks), "MASTER_PORT": free_port()}
    environment |= variables
    tasks = []
    for rank in map(str, range(num_tasks)):
        place = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
        tasks.append(
            subprocess.Popen(
                words,
                env={**environment, **place},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return tasks


def end_tasks(tasks: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Wait for the end of all tasks; return their exit codes and what each printed to stderr."""
    try:
        printed = [task.communicate(timeout=300)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    return [task.returncode for task in tasks], printed


def free_port() -> str:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
