"""The processes of a new attempt meet, whatever earlier attempts left in the store."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from slowfast_maskfeat.rendezvous import meet

WORLD_SIZE = 4
TIMEOUT = timedelta(seconds=20)


@pytest.fixture
def connect():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    kept = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    yield lambda: dist.TCPStore("127.0.0.1", port, is_master=False)
    del kept


def _attempt(connect, ranks, timeout=TIMEOUT):
    """Start processes in an order; the results by rank are views of the store or errors."""

    def join(rank):
        try:
            return meet(connect(), rank, WORLD_SIZE, timeout)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(WORLD_SIZE) as pool:
        return dict(zip(ranks, pool.map(join, ranks), strict=True))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_all_processes_of_an_attempt_share_a_view_that_is_new(connect, order):
    for number in range(3):
        views = _attempt(connect, order)
        assert not views[2].check(["address"])
        views[1].set("address", f"of attempt {number}")
        assert {view.get("address") for view in views.values()} == {b"of attempt %d" % number}


@pytest.mark.parametrize("came", [(0,), (1, 2), (0, 1, 3)])
def test_an_attempt_that_failed_half_way_does_not_disturb_the_next(connect, came):
    failed = _attempt(connect, came, timedelta(seconds=0.5))
    assert isinstance(failed[came[0]], ValueError)
    views = _attempt(connect, range(WORLD_SIZE))
    views[0].set("address", "here")
    assert [view.get("address") for view in views.values()] == [b"here"] * WORLD_SIZE


def test_who_does_not_come_is_said(connect):
    failed = _attempt(connect, (0, 1, 3), timedelta(seconds=0.5))
    assert str(failed[0]) == "process 0 waited 0:00:00.500000 for the others: 2 of 3 came"
    failed = _attempt(connect, (2,), timedelta(seconds=0.2))
    assert str(failed[2]).startswith("process 2 waited 0:00:00.200000 for process 0")
