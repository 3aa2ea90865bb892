"""Where the processes of one attempt of torchrun find each other, apart from earlier attempts.

torchrun keeps one store for all attempts of a run, and torch writes the addresses of the processes
into it under the same names each time: after a restart a process can read the address of one that
has ended, and the restart fails (https://github.com/pytorch/pytorch/issues/167288). The number of
restarts that torchrun tells its processes does not help, since the machines of a run count apart.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta

from torch.distributed import DistStoreError, PrefixStore, Store  # type: ignore[attr-defined]

_POLL_SECONDS = 0.05


def shares_store() -> bool:
    """Whether the store of this process is torchrun's, which outlives the process."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def meet(store: Store, rank: int, world_size: int, timeout: timedelta) -> Store:
    """Agree with the other processes of this attempt on a part of the store of their own.

    Each process counts its arrivals over all attempts. Process 0 answers each arrival with the
    number of its own, and answers again where a count that it read was of an earlier attempt.

    Args:
        store: Store of all attempts.
        rank: Number of this process.
        world_size: Number of processes.
        timeout: For how long to wait for the others.

    Returns:
        A view of the store in which nothing is written yet.

    Raises:
        ValueError: If a process does not come in time.
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
