"""End this process if it opens a socket or runs a program, and watch which files are opened."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Numbers of the calls socket, execve and execveat, by machine (Linux, asm/unistd.h).
_CALLS = {"x86_64": (41, 59, 322), "aarch64": (198, 221, 281)}
_NO_NEW_PRIVILEGES, _SET_FILTER, _FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_OPENED, _EVENT = 0x20, struct.Struct("iIII")  # linux/inotify.h


def can_forbid() -> bool:
    """Whether this machine has what this file needs."""
    return sys.platform == "linux" and platform.machine() in _CALLS


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.POINTER(_Instruction)))


def forbid_sockets_and_programs() -> None:
    """From now on, the kernel ends this process with SIGSYS when it calls socket or exec."""
    rows = [(_LOAD_WORD, 0, 0, 0)]  # the number of the call
    for call in _CALLS[platform.machine()]:
        rows += [(_JUMP_IF_EQUAL, 0, 1, call), (_RETURN, 0, 0, _KILL_PROCESS)]
    rows.append((_RETURN, 0, 0, _ALLOW))
    program = _Program(len(rows), (_Instruction * len(rows))(*(_Instruction(*row) for row in rows)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SET_FILTER, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel refuses the filter")


@contextmanager
def opened_in(folder: Path) -> Iterator[set[str]]:
    """Names of the files in a folder that any process opens inside; filled after the block."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    names: set[str] = set()
    try:
        if watch < 0 or libc.inotify_add_watch(watch, os.fsencode(folder), _OPENED) < 0:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be watched")
        yield names
        names |= _names(watch)
    finally:
        os.close(watch)


def _names(watch: int) -> set[str]:
    found = set()
    while True:
        try:
            events = os.read(watch, 1 << 16)
        except BlockingIOError:
            return found - {""}  # the folder itself
        while events:
            size = _EVENT.unpack_from(events)[3]
            found.add(os.fsdecode(events[_EVENT.size : _EVENT.size + size].rstrip(b"\0")))
            events = events[_EVENT.size + size :]
