"""Damage of files: noticed when they are read, and not written in the first place."""

from __future__ import annotations

import os
import random
import signal
import socket
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from slowfast_maskfeat.checkpoints import (
    checkpoint_path,
    load_checkpoint,
    save_checkpoint,
    save_safetensors,
)
from slowfast_maskfeat.checkpoints.integrity import DamagedError, nonfinite_weights

WEIGHTS = {"w": torch.arange(4096.0), "half": torch.ones(33, dtype=torch.bfloat16)}


def flipped(path: Path, offset: int, bit: int = 0) -> Path:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)
    return path


def offset_of_weights(path: Path) -> int:
    """A position in the middle of the weight `w`."""
    return path.read_bytes().index(WEIGHTS["w"].numpy().tobytes()) + 8000


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "c.pyth", {"model_state": WEIGHTS})
    assert torch.equal(load_checkpoint(path)["model_state"]["w"], WEIGHTS["w"])
    flipped(path, offset_of_weights(path))
    torch.load(path, weights_only=True)  # torch does not notice
    with pytest.raises(DamagedError, match=r"c\.pyth is damaged: its record '\S+data/\d+' does"):
        load_checkpoint(path)


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """A flip in padding or in a header that nothing reads is harmless; others are errors."""
    payload = {"model_state": WEIGHTS, "cfg": "TASK: x", "epoch": 3}
    path = save_checkpoint(tmp_path / "c.pyth", payload)
    content = path.read_bytes()
    generator = random.Random(0)
    num_noticed = 0
    for _ in range(200):
        path.write_bytes(content)
        flipped(path, generator.randrange(len(content)), generator.randrange(8))
        try:
            found = load_checkpoint(path)
        except ValueError:
            num_noticed += 1
            continue
        assert found["cfg"] == "TASK: x"
        assert all(torch.equal(found["model_state"][name], WEIGHTS[name]) for name in WEIGHTS)
    assert num_noticed > 150


@pytest.mark.parametrize("form", ["without checksums", "legacy"])
def test_files_without_checksums_are_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "c.pyth"
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"w": WEIGHTS["w"]}, path, _use_new_zipfile_serialization=form != "legacy")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load_checkpoint(path)["w"], WEIGHTS["w"])


def test_compressed_records_are_not_expanded(tmp_path: Path) -> None:
    path, packed = tmp_path / "c.pyth", tmp_path / "packed.pyth"
    torch.save({"w": torch.zeros(1 << 22)}, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zip:
        for record in source.infolist():
            zip.writestr(record.filename, source.read(record))
    assert packed.stat().st_size < 1 << 16
    with pytest.raises(DamagedError, match="records are compressed"):
        load_checkpoint(packed)


def test_the_error_names_the_newest_undamaged_checkpoint_before(tmp_path: Path) -> None:
    paths = [checkpoint_path(tmp_path, prefix="ssl", epoch=epoch) for epoch in range(1, 6)]
    for path in paths:
        save_checkpoint(path, {"model_state": WEIGHTS})
    save_checkpoint(checkpoint_path(tmp_path, epoch=4), {"model_state": WEIGHTS})  # another task
    for path in paths[2:4]:
        flipped(path, offset_of_weights(path))
    paths[2].write_bytes(b"")
    with pytest.raises(
        DamagedError, match=r"00004\.pyth is damaged: .*before it is \S+ssl_\S+00002"
    ):
        load_checkpoint(paths[3])
    with pytest.raises(DamagedError, match=r"00003\.pyth is not a .*before it is \S+ssl_\S+00002"):
        load_checkpoint(paths[2])
    load_checkpoint(paths[4])
    for path in paths[:2]:
        path.unlink()
    with pytest.raises(DamagedError) as error:
        load_checkpoint(paths[3])
    assert "before it" not in str(error.value)


def test_safetensors_carry_a_hash(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "w.safetensors", WEIGHTS, class_names=["a", "b"])
    assert torch.equal(load_checkpoint(path)["model_state"]["w"], WEIGHTS["w"])
    whole = path.read_bytes()
    flipped(path, offset_of_weights(path))
    with pytest.raises(DamagedError, match=r"w\.safetensors is damaged: .* hash in its header"):
        load_checkpoint(path)
    path.write_bytes(whole.replace(b'[\\"a\\"', b'[\\"c\\"'))
    assert path.read_bytes() != whole
    with pytest.raises(DamagedError, match="hash in its header"):
        load_checkpoint(path)


def test_safetensors_of_others_have_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path, {"format": "pt"})
    assert torch.equal(load_checkpoint(path)["model_state"]["w"], WEIGHTS["w"])
    ours = save_safetensors(tmp_path / "ours.safetensors", WEIGHTS)
    assert torch.equal(load_file(ours)["w"], WEIGHTS["w"])  # and others read ours


@pytest.mark.parametrize("place", ["model_state", "task_state", "average_state"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_not_written(
    tmp_path: Path, place: str, value: float
) -> None:
    path = save_checkpoint(tmp_path / "c.pyth", {"epoch": 1})
    broken = {"fine": torch.ones(3), "broken": torch.tensor([1.0, value]), "count": torch.tensor(1)}
    state = {"weights": broken, "decay": 0.9} if place == "average_state" else broken
    with pytest.raises(ValueError, match=r"infinity or NaN in broken: .*c\.pyth was not written"):
        save_checkpoint(path, {"model_state": WEIGHTS, place: state})
    assert load_checkpoint(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(ValueError, match="infinity or NaN in broken"):
        save_safetensors(tmp_path / "w.safetensors", broken)
    assert os.listdir(tmp_path) == [path.name]


def test_moments_of_an_optimizer_may_overflow() -> None:
    state = {0: {"exp_avg_sq": torch.tensor([float("inf")])}}
    assert nonfinite_weights({"model_state": WEIGHTS, "optimizer_state": {"state": state}}) == []


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Fail what waits."""

    def fail(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("suffix", [".pyth", ".safetensors"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    held = socket.socket(socket.AF_UNIX)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        held.bind(os.path.relpath(path))  # the name of a socket has at most 107 bytes
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with _within(30), pytest.raises(ValueError, match=f"c{suffix} is a {kind}"):
        load_checkpoint(path)
    held.close()


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udcff"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint at|cannot be read"):
        load_checkpoint(tmp_path / name)
