"""Errors of the system while writing get the path of the file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from slowfast_maskfeat.disk import make_folder, write_error, writing


def _during(first: Exception, second: Exception) -> Exception:
    """An error that a library raises while it handles another one."""
    try:
        try:
            raise first
        except OSError:
            raise second  # noqa: B904 - as torch.save does it
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (
            _during(OSError(errno.ENOSPC, "x"), RuntimeError("unexpected pos 64 vs 0")),
            errno.ENOSPC,
        ),
        (Exception("Error while serializing: I/O error: no space (os error 28)"), errno.ENOSPC),
    ],
    ids=["write", "quota", "torch", "safetensors"],
)
def test_a_full_disk_is_named_with_the_path(error, number, tmp_path):
    with pytest.raises(OSError) as raised, writing(tmp_path / "a.pyth"):
        raise error
    assert raised.value.errno == write_error(error) == number
    assert raised.value.strerror == os.strerror(number)
    assert raised.value.filename == str(tmp_path / "a.pyth")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape"),
        OSError("HTTP 500"),
        FileNotFoundError(2, "No such file", "b.mp4"),
        ValueError("for users (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_are_unchanged(error):
    with pytest.raises(type(error)) as raised, writing("a.pyth"):
        raise error
    assert raised.value is error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is of Linux")
def test_numpys_short_write_gets_its_reason():
    with (
        pytest.raises(OSError) as raised,
        writing("/dev/full"),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        np.zeros(100_000).tofile(file)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == "/dev/full"


@pytest.mark.parametrize("inside", ["", "below", "below/further"])
def test_a_file_in_the_way_of_a_folder_is_named(inside, tmp_path):
    (tmp_path / "output").write_text("a file")
    with pytest.raises(NotADirectoryError) as raised:
        make_folder(tmp_path / "output" / inside)
    assert raised.value.filename == str(tmp_path / "output")
    assert raised.value.strerror == "must be a folder, but is a file"


def test_a_folder_may_exist(tmp_path):
    assert make_folder(make_folder(tmp_path / "a" / "b")).is_dir()
