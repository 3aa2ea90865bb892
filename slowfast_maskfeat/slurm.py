"""Tasks that SLURM's `srun` starts: rank, number of tasks and meeting address of a process.

The variables are those of srun's manual (https://slurm.schedmd.com/srun.html, "Output environment
variables").
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import NamedTuple

# Steps from here on are SLURM's own: batch script, interactive shell of salloc, and others
# (slurm/slurm.h, SLURM_INTERACTIVE_STEP 0xfffffffa and its neighbors).
_FIRST_SPECIAL_STEP = 0xFFFFFFF0

# Below the ports from which Linux takes those of outgoing connections, 32768 to 60999.
_FIRST_PORT, _NUM_PORTS = 12_000, 20_000
_NUMBERS_OF_PORTS = 2**16

_PART = re.compile(r"(?:[^,\[\]\s]|\[[^\[\]]*\])+")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


class SlurmTask(NamedTuple):
    """A process among the tasks of a step.

    Attributes:
        rank: its number among the tasks of all nodes.
        local_rank: its number on its node.
        num_tasks: tasks on all nodes, at least 2.
        is_alone: whether each node has one task.
        address: where the tasks meet: `tcp://node:port`, on the node of the first.
    """

    rank: int
    local_rank: int
    num_tasks: int
    is_alone: bool
    address: str

    @property
    def machine(self) -> tuple[int, int, str]:
        """Number of machines, index of this one, and address, if each has one task."""
        assert self.is_alone
        return self.num_tasks, self.rank, self.address


def find_task(environment: Mapping[str, str]) -> SlurmTask | None:
    """Find the task that this process is.

    A batch script and a shell of `salloc` or `srun --pty` have variables of the job, but are
    not one of several tasks that could meet; nor is the only task of a step.

    Args:
        environment: environment variables.

    Returns:
        The task, or None if `srun` did not start this process as one of several tasks.

    Raises:
        ValueError: if a variable is missing or malformed; the message names it.
    """
    if not _is_in_step(environment):
        return None
    num_tasks = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if num_tasks < 2:
        return None
    nodes = _nodes(environment)
    rank, local_rank = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_LOCALID")
    if rank >= num_tasks:
        raise ValueError(
            f"the environment variable SLURM_PROCID must be below the number of tasks {num_tasks}, "
            f"got {rank}"
        )
    return SlurmTask(
        rank, local_rank, num_tasks, num_tasks == len(nodes), _address(environment, nodes)
    )


def unused_tasks(environment: Mapping[str, str]) -> str | None:
    """Describe the tasks of a job that this process is not one of, because srun did not start it.

    Args:
        environment: environment variables.

    Returns:
        A note for the user, or None if the job has no further task.
    """
    text = environment.get("SLURM_NTASKS", "")
    if _is_in_step(environment) or not text.isdecimal() or int(text) < 2:
        return None
    return (
        f"the SLURM job has {text} tasks, but srun did not start this command: it runs on this "
        "machine alone; put srun before it to use them"
    )


def _is_in_step(environment: Mapping[str, str]) -> bool:
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID", ""))
    if not step.isdecimal() or int(step) >= _FIRST_SPECIAL_STEP:
        return False
    # A task has a terminal only with --pty. The variable alone says nothing: tasks inherit it that
    # srun starts from such a shell.
    has_terminal = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    return not ("SLURM_PTY_PORT" in environment and has_terminal)


def _nodes(environment: Mapping[str, str]) -> list[str]:
    names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    name = next((name for name in names if environment.get(name)), names[0])
    try:
        return expand_nodes(environment.get(name, ""))
    except ValueError as error:
        raise ValueError(f"the environment variable {name}: {error}") from None


def _address(environment: Mapping[str, str], nodes: list[str]) -> str:
    # The name of a node may resolve to an address of its outer network, even for itself.
    host = environment.get("MASTER_ADDR") or (nodes[0] if len(nodes) > 1 else "127.0.0.1")
    if environment.get("MASTER_PORT"):
        port = _number(environment, "MASTER_PORT")
        if not 0 < port < _NUMBERS_OF_PORTS:
            raise ValueError(
                f"the environment variable MASTER_PORT must be in [1, {_NUMBERS_OF_PORTS - 1}], "
                f"got {port}"
            )
        return f"tcp://{host}:{port}"
    job = _number(environment, "SLURM_JOB_ID", "SLURM_JOBID")
    step = _number(environment, "SLURM_STEP_ID", "SLURM_STEPID")  # steps may share a node
    return f"tcp://{host}:{_FIRST_PORT + (job + 1009 * step) % _NUM_PORTS}"


def _number(environment: Mapping[str, str], *names: str) -> int:
    """Value of the first of several variables that is set."""
    name = next((name for name in names if environment.get(name)), names[0])
    text = environment.get(name, "")
    if not text.isdecimal():
        raise ValueError(
            f"the environment variable {name} must be a number, got {text!r}; srun sets it"
        )
    return int(text)


def expand_nodes(text: str) -> list[str]:
    """Expand SLURM's list of nodes.

    Args:
        text: such as `node[01-03,07],login1`; brackets may occur several times in a name.

    Returns:
        Names in the order of the list: `node01`, `node02`, `node03`, `node07`, `login1`.

    Raises:
        ValueError: if it is not such a list.
    """
    nodes: list[str] = []
    position = 0
    while True:
        part = _PART.match(text, position)
        if part is None:
            raise _no_list(text)
        nodes += _expand(part[0], text)
        position = part.end()
        if position == len(text):
            return nodes
        if text[position] != ",":
            raise _no_list(text)
        position += 1


def _expand(part: str, text: str) -> list[str]:
    names = [""]
    for piece in re.split(r"(\[[^\]]*\])", part):
        if not piece.startswith("["):
            names = [name + piece for name in names]
            continue
        numbers: list[str] = []
        for span in piece[1:-1].split(","):
            found = _RANGE.fullmatch(span)
            if found is None:
                raise _no_list(text)
            first, last = found[1], found[2] or found[1]
            if int(last) < int(first):
                raise _no_list(text)
            numbers += [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
        names = [name + number for name in names for number in numbers]
    return names


def _no_list(text: str) -> ValueError:
    return ValueError(f"the list of nodes must be such as node[01-03,07], got {text!r}")
