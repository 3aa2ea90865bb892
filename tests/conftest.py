"""Puts tests/ on the path, so that test files share `golden_rule` and the video makers."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def _share_cores() -> None:
    """Leave a worker of pytest-xdist its part of the cores; processes that it starts inherit it.

    Torch reads the variable when it is first imported, which is after this.
    """
    workers = os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if workers is not None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // int(workers))))


_share_cores()


def _interpret_kernels() -> None:
    """Without an NVIDIA GPU let Triton interpret its kernels, which then run on a CPU.

    Triton reads the variable when it is first imported, which is after this.
    """
    if not os.path.exists("/dev/nvidiactl"):
        os.environ.setdefault("TRITON_INTERPRET", "1")


_interpret_kernels()


def pytest_configure() -> None:
    """Ctrl-C reaches the tests' processes, too, where the shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that no worker is left alone with one at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
