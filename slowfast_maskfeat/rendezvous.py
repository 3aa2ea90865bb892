"""Where the processes of a run meet: the address, and for torchrun the part of its store.

torchrun keeps one store for all attempts of a run, and torch writes the addresses of the processes
into it under the same names each time: after a restart a process can read the address of one that
has ended, and the restart fails (https://github.com/pytorch/pytorch/issues/167288). The number of
restarts that torchrun signals to its processes does not help, since each machine of a run counts
its own.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from datetime import timedelta
from urllib.parse import urlparse

from torch.distributed import DistStoreError, PrefixStore, Store  # type: ignore[attr-defined]

_POLL_SECONDS = 0.05


def check_address(init_method: str) -> None:
    """Check the form of an address at which processes can meet.

    Args:
        init_method: rendezvous of the processes, of `--init_method`.

    Raises:
        ValueError: it has another form, or a port that does not exist.
    """
    address = urlparse(init_method)
    try:
        has_port = bool(address.port)
    except ValueError:  # above 65535, or no number
        has_port = False
    is_known = {
        "tcp": bool(address.hostname) and has_port,
        "file": bool(address.path),
        "env": True,
    }.get(address.scheme, False)
    if not is_known:
        raise ValueError(
            "--init_method must be tcp://HOST:PORT with a port in [1, 65535], file:///PATH or "
            f"env://, got {init_method!r}"
        )


def check_port_is_free(init_method: str) -> None:
    """Check the port of an address on this machine, where its first process will listen.

    Args:
        init_method: rendezvous of the processes; without a port, nothing is checked.

    Raises:
        ValueError: if another program listens on the port.
    """
    _, port = _source_and_port(init_method)
    if not port:
        return
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise port_in_use(init_method) from None


def port_in_use(init_method: str) -> ValueError:
    """Return the error for an address whose port another program has."""
    source, port = _source_and_port(init_method)
    return ValueError(
        f"{source}: port {port} is in use on this machine, maybe by another run; choose another"
    )


def shares_store() -> bool:
    """Whether the store of this process is torchrun's, which outlives the process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def meet(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """Agree with the other processes of this attempt on a part of the store of their own.

    Each process counts its arrivals over all attempts. Process 0 answers each arrival with the
    number of its own, and answers again where a count that it read was of an earlier attempt.

    Args:
        store: store of all attempts.
        rank: number of this process.
        world_size: number of processes.
        timeout: for how long to wait for the others.

    Returns:
        A view of the store in which nothing is written yet.

    Raises:
        ValueError: if a process does not come in time.
    """
    arrival = store.add(f"arrivals/{rank}", 1)
    if rank:
        try:
            store.wait([f"answer/{rank}/{arrival}"], timeout)
        except DistStoreError:
            raise ValueError(
                f"process {rank} waited {timeout} for process 0, which did not start"
            ) from None
        attempt = store.get(f"answer/{rank}/{arrival}").decode()
        store.add(f"met/{attempt}", 1)
    else:
        attempt = str(arrival)
        _answer(store, attempt, world_size, timeout)
    return PrefixStore(f"attempt/{attempt}", store)


def _answer(store: Store, attempt: str, world_size: int, timeout: timedelta) -> None:
    deadline = time.monotonic() + timeout.total_seconds()
    answered = dict.fromkeys(range(1, world_size), 0)
    while (met := store.add(f"met/{attempt}", 0)) < world_size - 1:
        if time.monotonic() > deadline:
            raise ValueError(
                f"process 0 waited {timeout} for the others: {met} of {world_size - 1} came"
            )
        for rank, last in answered.items():
            arrival = store.add(f"arrivals/{rank}", 0)
            if arrival > last:
                store.set(f"answer/{rank}/{arrival}", attempt)
                answered[rank] = arrival
        time.sleep(_POLL_SECONDS)


def _source_and_port(init_method: str) -> tuple[str, int | None]:
    """Name of the setting that an address comes from, and its port."""
    if init_method.startswith("env://"):
        port = os.environ.get("MASTER_PORT", "")
        return f"MASTER_PORT {port}", int(port) if port.isdecimal() else None
    return f"--init_method {init_method}", urlparse(init_method).port
