"""The processes of a run: which of how many this is, and what they do together.

torch.distributed holds the state; every function here also works, and does nothing special, in a
run of one process that set nothing up.
"""

from __future__ import annotations

import atexit
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")
# Combines a tensor over all processes by "sum", "max" or "min".
AllReduce = Callable[[Tensor, str], Tensor]

_OPERATIONS = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}


class DeviceChoice(NamedTuple):
    """Where a run takes place.

    Attributes:
        type: ``cpu`` or ``cuda``.
        num_processes: Processes on this machine, one for each device; 1 on the CPU unless more
            were asked for.
        warning: What differs from what was asked for, for the log, or None.
    """

    type: str
    num_processes: int
    warning: str | None


def choose_device(num_gpus: int, *, num_available: int | None = None) -> DeviceChoice:
    """Settle where to run from ``NUM_GPUS`` and what is there.

    ``NUM_GPUS`` 0, or no GPU at all, means one process on the CPU. More than there are means those
    there are: the batch size is the total over all, so the learning rate stays right.

    Args:
        num_gpus: ``NUM_GPUS``.
        num_available: GPUs to count on; None asks torch.

    Returns:
        Device type, number of processes and a warning or None.

    Raises:
        ValueError: If ``num_gpus`` is negative.
    """
    if num_gpus < 0:
        raise ValueError(f"NUM_GPUS is {num_gpus}; 0 (the CPU) or more is right")
    if num_gpus == 0:
        return DeviceChoice("cpu", 1, None)
    found = torch.cuda.device_count() if num_available is None else num_available
    if found == 0:
        return DeviceChoice("cpu", 1, f"NUM_GPUS is {num_gpus}, but torch sees none: using the CPU")
    if found < num_gpus:
        return DeviceChoice("cuda", found, f"NUM_GPUS is {num_gpus}, but torch sees {found}")
    return DeviceChoice("cuda", num_gpus, None)


def setup(
    rank: int,
    local_rank: int,
    world_size: int,
    backend: str,
    init_method: str,
    *,
    timeout_seconds: float = 1800.0,
) -> None:
    """Join the run's processes.

    Args:
        rank: Which process this is, of all machines.
        local_rank: Which process this is on its machine; with ``nccl``, its GPU.
        world_size: Processes on all machines.
        backend: ``gloo`` (CPU) or ``nccl`` (GPU).
        init_method: Where they meet: ``tcp://host:port``, ``file:///path`` or ``env://``.
        timeout_seconds: How long an operation waits for the others before it fails.

    Raises:
        ValueError: If the backend is unknown or the GPU does not exist.
    """
    if backend not in ("gloo", "nccl"):
        raise ValueError(f"DIST_BACKEND is {backend!r}; 'gloo' (CPU) or 'nccl' (GPU) is right")
    if backend == "nccl":
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this machine has no GPU of its own: torch sees "
                f"{torch.cuda.device_count()}; start no more processes than GPUs"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        backend,
        init_method=init_method,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_seconds),
    )


def from_environment(backend: str) -> bool:
    """Join the run's processes as ``torchrun`` says in RANK, WORLD_SIZE and LOCAL_RANK.

    Args:
        backend: ``gloo`` or ``nccl``.

    Returns:
        Whether torchrun started this process; if not, nothing was done.

    Raises:
        ValueError: If a variable is missing or not a number, or from :func:`setup`.
    """
    if not started_by_torchrun():
        return False
    numbers: dict[str, int] = {}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise ValueError(
                f"{name} is {text!r} in the environment; torchrun sets RANK, LOCAL_RANK and "
                "WORLD_SIZE to numbers (unset all three to run without it)"
            )
        numbers[name] = int(text)
    setup(numbers["RANK"], numbers["LOCAL_RANK"], numbers["WORLD_SIZE"], backend, "env://")
    return True


def started_by_torchrun() -> bool:
    """Whether the environment says that torchrun, or something alike, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def shutdown() -> None:
    """Leave the run's processes; harmless in a run of one."""
    if _is_set_up():
        dist.destroy_process_group()


def end_process() -> NoReturn:
    """End one of several processes that has done its part, with exit code 0.

    What is registered with `atexit` runs and the output is flushed, but the interpreter is not
    taken down: gloo's threads outlive the group, and one that lets go of the tensors of the last
    exchange meanwhile aborts the process (https://github.com/pytorch/pytorch/pull/179291).
    """
    shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _is_set_up() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Which process this is, of all machines; 0 in a run of one."""
    return dist.get_rank() if _is_set_up() else 0


def world_size() -> int:
    """Processes on all machines; 1 in a run of one."""
    return dist.get_world_size() if _is_set_up() else 1


def is_main() -> bool:
    """Whether this is the process that logs and writes files."""
    return rank() == 0


def own_device(device_type: str) -> torch.device:
    """This process's device.

    Args:
        device_type: ``cpu`` or ``cuda``, from :func:`choose_device`.

    Returns:
        The CPU, or the GPU that :func:`setup` made the current one.
    """
    if device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device_type)


def barrier() -> None:
    """Wait until every process is here."""
    if _is_set_up():
        dist.barrier()


def all_reduce(tensor: Tensor, operation: str = "sum") -> Tensor:
    """Combine a tensor over all processes.

    Args:
        tensor: Any shape, the same on all processes; not changed.
        operation: ``sum``, ``max`` or ``min``.

    Returns:
        The combined tensor on the device of the one given; in a run of one, the one given.
    """
    if world_size() == 1:
        return tensor
    combined = _for_communication(tensor.detach().clone())
    dist.all_reduce(combined, op=_OPERATIONS[operation])
    return combined.to(tensor.device)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes; see :func:`all_reduce`."""
    return all_reduce(tensor, "sum")


def _for_communication(tensor: Tensor) -> Tensor:
    # nccl moves only what lies on a GPU.
    if dist.get_backend() == "nccl" and not tensor.is_cuda:
        return tensor.cuda(torch.cuda.current_device())
    return tensor


def gather_objects(item: Item) -> list[Item]:
    """Every process's item, by rank, on every process.

    Args:
        item: Anything that can be pickled.

    Returns:
        ``world_size()`` items.
    """
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def broadcast_object(item: Item) -> Item:
    """The main process's item, on every process."""
    if world_size() == 1:
        return item
    items: list[Item] = [item]
    dist.broadcast_object_list(items, src=0)
    return items[0]


def wrap(model: nn.Module, *, static_graph: bool = False) -> nn.Module:
    """Make backward ADD the gradients of all processes up.

    They are summed, not averaged as DistributedDataParallel does of itself, so that what
    :class:`slowfast_maskfeat.engine.gradient_step.GradientStep` divides is the sum of all terms in
    one process and in many.

    With several backwards before a step, all but the last belong inside ``with
    accumulating(model):``, or the sums of the first would be added up again.

    Args:
        model: On its device already. All of its parameters take part in every loss.
        static_graph: The same parameters take part, the same number of times, in every backward;
            needed with activation checkpointing that is re-entrant, and a little faster.

    Returns:
        The wrapped model; in a run of one, the model itself.
    """
    if world_size() == 1:
        return model
    # Without device_ids inputs come as they are: masks stay on the CPU, where their size is known.
    wrapped = DistributedDataParallel(
        model,
        gradient_as_bucket_view=True,
        find_unused_parameters=False,
        static_graph=static_graph,
        **_no_buffers_on_forward(),
    )
    wrapped.register_comm_hook(None, _sum_gradients)
    return wrapped


def _no_buffers_on_forward() -> dict[str, Any]:
    # Newer torch has a new name for it, and warns of the old one in every process.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return {name: False}


@contextmanager
def accumulating(model: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Forward and backward inside leave the gradients of this process to itself for now.

    Args:
        model: From :func:`wrap`; a bare model accumulates anyway.
        enabled: False for the last micro-batch before a step, whose backward adds up over the
            processes what all have accumulated.
    """
    if enabled and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


# Untyped because torch compares the types of a hook with its own, and not as strings.
def _sum_gradients(state, bucket):  # type: ignore[no-untyped-def]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
