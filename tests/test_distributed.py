"""What processes do together, and the choice of device."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from slowfast_maskfeat import distributed
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.launch import launch
from slowfast_maskfeat.engine.optimizer import make_optimizer, parameter_groups


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 4))
    groups = parameter_groups(model, weight_decay=0.05, zero_decay_1d=True)
    return model, make_optimizer(groups, method="adamw", lr=0.01)


def train(parts: list[list[slice]], steps: int = 3) -> dict[str, torch.Tensor]:
    """Steps on a fixed batch of 8, of which this process sees its own micro-batches."""
    model, optimizer = make()
    wrapped = distributed.wrap(model)
    step = GradientStep(optimizer, clip_l2norm=0.1)
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    norms = []
    for _ in range(steps):
        weight, total = torch.zeros(()), torch.zeros(())
        own_parts = parts[distributed.rank()]
        for number, part in enumerate(own_parts, 1):
            is_last = number == len(own_parts)
            with nullcontext() if is_last else distributed.without_gradient_exchange(wrapped):
                terms = wrapped(inputs[part]).square().mean(dim=1)
                terms.sum().backward()
            weight += terms.numel()
            total += terms.detach().sum()
        weight = distributed.all_reduce(weight, "sum")
        norms.append(step(weight, distributed.all_reduce(total, "sum")).gradient_norm)
        optimizer.zero_grad()
    return {**model.state_dict(), "norms": torch.stack(norms)}


def in_each_process(folder: str) -> None:
    rank = distributed.rank()
    assert distributed.world_size() == 2
    assert distributed.is_main() == (rank == 0)
    own = torch.tensor([1.0 + rank, 10.0])
    assert distributed.all_reduce(own, "sum").tolist() == [3.0, 20.0]
    assert distributed.all_reduce(own, "max").tolist() == [2.0, 10.0]
    assert own.tolist() == [1.0 + rank, 10.0]  # what was given stays
    assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
    assert distributed.broadcast_object(f"from {rank}") == "from 0"
    distributed.barrier()
    # Unequal shares: 3 of the 8 here, 5 there in three pieces; each process accumulates.
    parts = [[slice(0, 1), slice(1, 3)], [slice(3, 4), slice(4, 6), slice(6, 8)]]
    torch.save(train(parts), Path(folder) / f"{rank}.pt")


@pytest.mark.slow  # of whole runs there is one in test_train_run.py
def test_two_processes_equal_one(tmp_path: Path) -> None:
    launch(in_each_process, 2, (str(tmp_path),))
    expected = train([[slice(0, 8)]])
    for rank in (0, 1):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-6, msg=name)


def standardized_loss(own: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A loss of rows that are standardized by mean and variance over the rows of all processes."""
    count = torch.full((1,), float(len(own)), dtype=own.dtype)
    sums = torch.stack([own.sum(0), own.square().sum(0)])
    if distributed.rank() == 1:  # the layout may differ between processes, the values may not
        sums = sums.T.contiguous().T
    count, sums = map(distributed.all_reduce_with_grad, (count, sums))
    mean, mean_square = sums / count
    standardized = (own - mean) / (mean_square - mean.square()).sqrt()
    return (standardized.tanh() * weight).sum()


def standardize_in_each_process(folder: str) -> None:
    rank = distributed.rank()
    own = slice(0, 3) if rank == 0 else slice(3, 8)
    rows, weight = rows_and_weight()
    mine = rows[own].requires_grad_()
    loss = standardized_loss(mine, weight[own])
    loss.backward()
    transposed = torch.arange(6.0).reshape(2, 3).T if rank else torch.arange(6.0).reshape(3, 2)
    summed = distributed.all_reduce(transposed, "sum")
    results = {"loss": loss.detach(), "gradient": mine.grad, "summed": summed}
    torch.save(results, Path(folder) / f"{rank}.pt")


def rows_and_weight() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = 3 + torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return rows, torch.randn(8, 4, generator=generator, dtype=torch.float64)


def test_gradients_through_a_sum_over_processes(tmp_path: Path) -> None:
    """Two processes with 3 and 5 rows against torch's batch norm of all 8 in one process."""
    launch(standardize_in_each_process, 2, (str(tmp_path),))
    got = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    rows, weight = rows_and_weight()
    rows.requires_grad_()
    standardized = nn.functional.batch_norm(rows, None, None, training=True, eps=1e-12)
    loss = (standardized.tanh() * weight).sum()
    loss.backward()
    torch.testing.assert_close(got[0]["loss"] + got[1]["loss"], loss.detach())
    gradient = torch.cat([got[0]["gradient"], got[1]["gradient"]])
    torch.testing.assert_close(gradient, rows.grad)
    # [[0, 1], [2, 3], [4, 5]] and [[0, 3], [1, 4], [2, 5]], entry by entry.
    for rank in (0, 1):
        assert got[rank]["summed"].tolist() == [[0.0, 4.0], [3.0, 7.0], [6.0, 10.0]]


def test_a_run_of_one_needs_no_set_up() -> None:
    tensor, model = torch.ones(2), nn.Linear(2, 2)
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.all_reduce(tensor, "sum") is tensor
    assert distributed.all_reduce_with_grad(tensor) is tensor
    assert distributed.gather_objects("x") == ["x"]
    assert distributed.broadcast_object("x") == "x"
    assert distributed.wrap(model) is model
    assert distributed.own_device("cpu") == torch.device("cpu")
    distributed.barrier()
    distributed.shutdown()
    assert not distributed.from_environment("gloo")


def test_from_the_environment_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match=r"LOCAL_RANK .* ''"):
        distributed.from_environment("gloo")
    monkeypatch.setenv("LOCAL_RANK", "0")
    try:
        assert distributed.from_environment("gloo")
        assert torch.distributed.get_backend() == "gloo"
    finally:
        distributed.shutdown()


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"DIST_BACKEND .*'mpi'"):
        distributed.setup(0, 0, 1, "mpi", "env://")


@pytest.mark.parametrize(
    ("asked", "there", "expected", "warns"),
    [
        (0, 8, ("cpu", 1), False),
        (0, 0, ("cpu", 1), False),
        (8, 0, ("cpu", 1), True),
        (8, 2, ("cuda", 2), True),
        (2, 8, ("cuda", 2), False),
    ],
)
def test_choice_of_device(asked: int, there: int, expected: tuple[str, int], warns: bool) -> None:
    choice = distributed.choose_device(asked, num_available=there)
    assert choice[:2] == expected
    assert (choice.warning is not None) == warns
    if choice.warning:
        assert re.search(rf"NUM_GPUS .*\b{asked}\b", choice.warning)


def test_negative_number_of_gpus() -> None:
    with pytest.raises(ValueError, match=r"NUM_GPUS .*-1"):
        distributed.choose_device(-1)


def test_a_process_ends_without_the_teardown_of_the_interpreter():
    script = """
import atexit, os
from slowfast_maskfeat import distributed

class AbortsAtTeardown:
    def __del__(self):
        os.abort()

kept = AbortsAtTeardown()
atexit.register(print, "and what was registered ran")
print("done", end=" ")
distributed.end_process()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "done and what was registered ran\n"), done.stderr
