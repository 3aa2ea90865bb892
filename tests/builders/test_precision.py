"""Number formats of a run: what is set in torch, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from slowfast_maskfeat.builders import precision as precisions
from slowfast_maskfeat.builders.precision import (
    autocast_precision,
    precision_name,
    precision_note,
    set_precision,
)
from slowfast_maskfeat.config import load_config

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def flags() -> Iterator[None]:
    """Restore those of torch."""
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = found


def cpu_has_bf16(monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    monkeypatch.setattr(precisions, "_cpu_has_bf16", lambda: answer)


@pytest.mark.parametrize(
    ("pairs", "name"),
    [
        ([], "float32"),
        (["TRAIN.MIXED_PRECISION", "True"], "bf16"),
        (["TRAIN.PRECISION", "tf32"], "tf32"),
        (["TRAIN.PRECISION", "float32", "TRAIN.MIXED_PRECISION", "True"], "float32"),
    ],
)
def test_the_name_of_the_precision(pairs: list[str], name: str) -> None:
    assert precision_name(load_config([], pairs)) == name


@pytest.mark.parametrize("name", ["float32", "tf32", "bf16", "fp16"])
def test_only_tf32_rounds_the_factors_of_float32_products(name: str) -> None:
    torch.backends.cudnn.allow_tf32 = True  # as torch has it by itself
    set_precision(load_config([], ["TRAIN.PRECISION", name]))
    assert torch.backends.cuda.matmul.allow_tf32 == (name == "tf32")
    assert torch.backends.cudnn.allow_tf32 == (name == "tf32")


def test_autocast_has_the_dtype_of_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_has_bf16(monkeypatch, False)
    found = {
        name: autocast_precision(load_config([], ["TRAIN.PRECISION", name]), GPU)
        for name in ("float32", "tf32", "bf16", "fp16")
    }
    assert found == {
        "float32": None,
        "tf32": None,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
    }


def test_a_cpu_without_bf16_computes_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = load_config([], ["TRAIN.PRECISION", "bf16"])
    cpu_has_bf16(monkeypatch, True)
    assert autocast_precision(cfg, CPU) == torch.bfloat16
    assert not precision_note(cfg, CPU)
    cpu_has_bf16(monkeypatch, False)
    assert autocast_precision(cfg, CPU) is None
    assert "bf16 computes in float32 here" in precision_note(cfg, CPU)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("processor : 0\nflags : fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features : fp asimd bf16\n", True),
        ("flags : fpu avx512f avx512_bf16x\n", False),
        ("", False),
    ],
)
def test_instructions_for_bf16_are_read_from_the_system(
    text: str, answer: bool, tmp_path: Path
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert precisions._cpu_has_bf16(file) == answer
    assert not precisions._cpu_has_bf16(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "capability", "says"),
    [
        ("float32", (8, 0), "uses no tensor cores; tf32 does"),
        ("float32", (7, 5), ""),
        ("tf32", (8, 0), ""),
        ("bf16", (9, 0), ""),
    ],
)
def test_float32_on_a_gpu_is_told_of_faster_formats(
    name: str, capability: tuple[int, int], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    note = precision_note(load_config([], ["TRAIN.PRECISION", name]), GPU)
    assert says in note
    assert bool(note) == bool(says)
    assert "\n" not in note


def test_a_cpu_has_no_tf32() -> None:
    assert "only a GPU" in precision_note(load_config([], ["TRAIN.PRECISION", "tf32"]), CPU)
