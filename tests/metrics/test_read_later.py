"""Results that are read together: the same rows in the same order, read seldom."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.metrics.read_later import ReadLater


def test_chunks_are_used_in_order_once_there_are_many() -> None:
    used: list[tuple[str, Tensor]] = []
    later = ReadLater(max_numbers=12)
    chunks = {"a": torch.rand(2, 2), "none": torch.rand(0, 2), "b": torch.rand(2, 2)}
    columns = {"a": torch.tensor([2**53 - 1, 3]), "none": torch.tensor([]), "b": torch.ones(2)}
    for name, rows in chunks.items():
        assert not used  # 6 numbers, with those of the column
        later.add(lambda found, name=name: used.append((name, found)), rows, columns[name])
    assert [name for name, _ in used] == list(chunks)
    for name, found in used:
        assert found.dtype == torch.float64
        assert torch.equal(found[:, :2], chunks[name].double())
        assert torch.equal(found[:, 2].to(columns[name].dtype), columns[name])  # not rounded
    later.add(lambda found: used.append(("last", found)), chunks["a"], columns["a"])
    assert len(used) == 3
    later.read()
    later.read()
    assert [name for name, _ in used] == [*chunks, "last"]
