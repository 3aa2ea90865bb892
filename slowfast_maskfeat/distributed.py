"""The processes of a run: ranks, collectives with and without gradient, and DDP.

torch.distributed holds the state. Every function also works in a run of a single process, which
calls none of the setup functions.
"""

from __future__ import annotations

import atexit
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from slowfast_maskfeat import slurm
from slowfast_maskfeat.rendezvous import meet, port_in_use, shares_store
from slowfast_maskfeat.workers import SIGNALS

Item = TypeVar("Item")
AllReduce = Callable[[Tensor, str], Tensor]
"""Combines a tensor over all processes by "sum", "max" or "min"; see `all_reduce`."""

# Of a collective: the other processes wait in one while the main process reads or writes files.
_TIMEOUT = timedelta(minutes=30)

# In the messages of gloo, in "Connection closed by peer" and "Connection reset by peer".
_LOST = "by peer"

_OPERATIONS = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "min": dist.ReduceOp.MIN,
}


class DeviceChoice(NamedTuple):
    """Device type and number of processes of a run.

    Attributes:
        type: `cpu` or `cuda`.
        num_processes: processes on this machine, one per GPU; 1 on the CPU.
        warning: how this differs from `NUM_GPUS`, for the log, or None.
    """

    type: str
    num_processes: int
    warning: str | None


def choose_device(num_gpus: int, *, num_available: int | None = None) -> DeviceChoice:
    """Choose the device from `NUM_GPUS` and the GPUs of this machine.

    `NUM_GPUS` 0, or a machine without GPU, means one process on the CPU. Where `NUM_GPUS` is
    larger than the number of GPUs, all of them are used: the batch size is the total over all
    processes, so the learning rate does not change.

    Args:
        num_gpus: `NUM_GPUS`.
        num_available: GPUs of this machine; None for what torch finds.

    Returns:
        Device type, number of processes and a warning or None.

    Raises:
        ValueError: if `num_gpus` is negative.
    """
    if num_gpus < 0:
        raise ValueError(f"NUM_GPUS must be >= 0 (0 means the CPU), got {num_gpus}")
    if num_gpus == 0:
        return DeviceChoice("cpu", 1, None)
    found = torch.cuda.device_count() if num_available is None else num_available
    if found == 0:
        return DeviceChoice(
            "cpu", 1, f"NUM_GPUS is {num_gpus}, but torch finds none: using the CPU"
        )
    if found < num_gpus:
        return DeviceChoice("cuda", found, f"NUM_GPUS is {num_gpus}, but torch finds {found}")
    return DeviceChoice("cuda", num_gpus, None)


def setup(
    rank: int,
    local_rank: int,
    world_size: int,
    backend: str,
    init_method: str,
) -> None:
    """Join the process group of the run.

    Args:
        rank: number of this process among those of all machines.
        local_rank: number of this process on its machine; with `nccl`, its GPU.
        world_size: processes on all machines.
        backend: `gloo` (CPU) or `nccl` (GPU).
        init_method: rendezvous of the processes: `tcp://host:port`, `file:///path` or
            `env://`.

    Raises:
        ValueError: if the backend is unknown, the GPU does not exist, or the processes can't meet
            at the address, for example because its port is in use.
    """
    if backend not in ("gloo", "nccl"):
        raise ValueError(f"DIST_BACKEND must be 'gloo' (CPU) or 'nccl' (GPU), got {backend!r}")
    if backend == "nccl":
        num_found = torch.cuda.device_count()
        if local_rank >= num_found:
            raise ValueError(
                f"local rank {local_rank} has no GPU: torch finds {num_found} on this machine; "
                "start at most one process per GPU"
            )
        torch.cuda.set_device(local_rank)
    try:
        with _ending_at_signals():
            store, *_ = next(rendezvous(init_method, rank, world_size, timeout=_TIMEOUT))
            store.set_timeout(_TIMEOUT)
            if shares_store():
                store = meet(store, rank, world_size, _TIMEOUT)
            dist.init_process_group(
                backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT
            )
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in reason:
            raise port_in_use(init_method) from None
        raise ValueError(f"the processes can't meet at {init_method}: {reason}") from None


@contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Let the signals that stop a run end this process at once.

    While the processes meet, in C++, no handler of Python would run: one that waits for others that
    do not come would ignore them.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    changed = [number for number, handler in handlers.items() if callable(handler)]
    for number in changed:  # not what is ignored, as in the background of a script
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, handlers[number])


def from_environment(backend: str, task: slurm.SlurmTask | None = None) -> bool:
    """Join the process group of `torchrun` or, without it, of SLURM's `srun`.

    Args:
        backend: `gloo` or `nccl`.
        task: the task of SLURM that this process is; None: by the environment.

    Returns:
        Whether one of them started this process as one of several; otherwise nothing is done.

    Raises:
        ValueError: if a variable is missing or not a number, or from `setup`.
    """
    if not started_by_torchrun():
        task = task or slurm.find_task(os.environ)
        if task is None:
            return False
        # With --gpus-per-task each task sees its own GPU alone.
        sees_one = backend == "nccl" and torch.cuda.device_count() == 1
        local_rank = 0 if sees_one else task.local_rank
        setup(task.rank, local_rank, task.num_tasks, backend, task.address)
        return True
    numbers: dict[str, int] = {}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        text = os.environ.get(name, "")
        if not text.isdecimal():
            raise ValueError(
                f"the environment variable {name} must be a number, got {text!r}; torchrun sets "
                "RANK, LOCAL_RANK and WORLD_SIZE (unset all three to run without it)"
            )
        numbers[name] = int(text)
    setup(numbers["RANK"], numbers["LOCAL_RANK"], numbers["WORLD_SIZE"], backend, "env://")
    return True


def started_by_torchrun() -> bool:
    """Whether torchrun, or a launcher like it, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def shutdown() -> None:
    """Leave the process group; does nothing in a run of one process."""
    if _is_set_up():
        dist.destroy_process_group()


def end_process(code: int = 0) -> NoReturn:
    """Leave the process group and end one of several processes; see `exit_process`."""
    shutdown()
    exit_process(code)


def exit_process(code: int) -> NoReturn:
    """End one of several processes, which may still be in the group after a failure.

    Functions registered with `atexit` run, by which torch ends its workers, and the output is
    flushed, but the interpreter is not finalized: threads of gloo outlive the group, and one that
    frees the tensors of the last collective during finalization aborts the process
    (https://github.com/pytorch/pytorch/pull/179291).

    Args:
        code: exit code; a negative one ends the process by that signal, as if it were not handled.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    os._exit(code)


def has_lost_others(error: Exception) -> bool:
    """Whether an error of this process only says that another process of the run has ended."""
    return world_size() > 1 and isinstance(error, RuntimeError) and _LOST in str(error)


def _is_set_up() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process among those of all machines; 0 in a run of one."""
    return dist.get_rank() if _is_set_up() else 0


def world_size() -> int:
    """Processes on all machines; 1 in a run of one."""
    return dist.get_world_size() if _is_set_up() else 1


def is_main() -> bool:
    """Whether this is rank 0, the process that logs and writes files."""
    return rank() == 0


def own_device(device_type: str) -> torch.device:
    """Device of this process.

    Args:
        device_type: `cpu` or `cuda`, from `choose_device`.

    Returns:
        The CPU, or the GPU that `setup` made the current one.
    """
    if device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(device_type)


def barrier() -> None:
    """Wait until every process has called this."""
    if _is_set_up():
        dist.barrier()


def all_reduce(tensor: Tensor, operation: str = "sum") -> Tensor:
    """Combine a tensor over all processes, without gradient.

    Args:
        tensor: any shape, the same on all processes; not changed.
        operation: `sum`, `max` or `min`.

    Returns:
        The combined tensor, on the same device; in a run of one process, `tensor` itself.
    """
    if world_size() == 1:
        return tensor
    # Contiguous, so that element i is the same one in every process.
    own = tensor.detach().clone(memory_format=torch.contiguous_format)
    combined = _for_communication(own)
    dist.all_reduce(combined, op=_OPERATIONS[operation])
    return combined.to(tensor.device)


class _AllReduceSum(torch.autograd.Function):
    # The loss of the run is the sum of the losses of its processes, each of which depends on the
    # sum: every process's share has the sum of their gradients.
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return all_reduce(tensor, "sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return all_reduce(gradient, "sum")


def all_reduce_with_grad(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, with gradient: backward sums the gradients likewise.

    Forward and backward are collective: every process must run both, and several calls in the same
    order. Each process's gradient is that of the sum of the losses of all, as in one process that
    holds all of the data.

    Args:
        tensor: any shape, the same on all processes; a floating-point type.

    Returns:
        The sum, on the same device; in a run of one process, `tensor` itself.
    """
    if world_size() == 1:
        return tensor
    summed: Tensor = _AllReduceSum.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


def gather_with_grad(rows: Tensor) -> Tensor:
    """Join the rows of all processes, with gradient; collective as `all_reduce_with_grad`.

    Args:
        rows: (B, ...) of this process, the same shape on all; a floating-point type.

    Returns:
        (P * B, ...) in the order of the P processes; in a run of one process, `rows` itself.
    """
    if world_size() == 1:
        return rows
    places = rows.new_zeros(world_size(), *rows.shape)
    places[rank()] = rows
    return all_reduce_with_grad(places).flatten(0, 1)


def _for_communication(tensor: Tensor) -> Tensor:
    # NCCL handles only tensors on a GPU.
    if dist.get_backend() == "nccl" and not tensor.is_cuda:
        return tensor.cuda(torch.cuda.current_device())
    return tensor


def gather_objects(item: Item) -> list[Item]:
    """Gather the items of all processes on every process.

    Args:
        item: any picklable object.

    Returns:
        `world_size()` items, by rank.
    """
    if world_size() == 1:
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def broadcast_object(item: Item) -> Item:
    """Return the main process's item on every process."""
    if world_size() == 1:
        return item
    items: list[Item] = [item]
    dist.broadcast_object_list(items, src=0)
    return items[0]


def wrap(model: nn.Module, *, has_idle_parameters: bool = False) -> nn.Module:
    """Wrap a model so that backward SUMS the gradients over all processes.

    DistributedDataParallel by itself averages them. Sums let
    `GradientStep` divide by the number of all terms,
    in one process as in many.

    With several backward passes before a step, run all but the last inside `with
    without_gradient_exchange(model):`, or the sums of the first would be summed again.

    Args:
        model: a model on its device.
        has_idle_parameters: some losses do not depend on all of its parameters; finding these takes
            a pass over the graph in each step.

    Returns:
        The wrapped model; in a run of one process, the model itself.
    """
    if world_size() == 1:
        return model
    # Without device_ids inputs are not moved: masks stay on the CPU, where their size is known.
    wrapped = DistributedDataParallel(
        model,
        gradient_as_bucket_view=True,
        find_unused_parameters=has_idle_parameters,
        **_no_buffers_on_forward(),
    )
    wrapped.register_comm_hook(None, _sum_gradients)
    return wrapped


def _no_buffers_on_forward() -> dict[str, Any]:
    # Newer versions of torch renamed the argument and warn of the old name in every process.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return {name: False}


def without_gradient_exchange(model: nn.Module) -> AbstractContextManager[None]:
    """Context in which backward accumulates gradients in this process only.

    The next backward outside sums over the processes what each has accumulated.

    Args:
        model: from `wrap`.
    """
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


# Untyped because torch compares the annotations of a hook with its types, not with strings.
def _sum_gradients(state, bucket):  # type: ignore[no-untyped-def]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
