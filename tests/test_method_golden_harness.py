"""The harness of tests/test_method_goldens.py fails where a golden is absent or not compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import test_method_goldens
import torch
from helpers.method_goldens import MethodGolden, golden_folder, gumbel


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MethodGolden:
    """A golden of a sum, a product, and some integers."""
    x = np.arange(7.0)
    content = {
        "weights_prefix": "p.",
        "inputs": {"x": {"kind": "randn", "seed": 1, "shape": [7], "scale": 2.0, "shift": 1.0}},
        "settings": {},
        "scalars": {"sum": 21.0, "doubled/norm": float(np.linalg.norm(2 * x))},
        "stride": {"doubled": 3, "rounded": 1},
        "shape": {"doubled": [7], "rounded": [7]},
    }
    (tmp_path / "toy.json").write_text(json.dumps(content))
    np.savez(tmp_path / "toy.npz", doubled=2 * x[::3], rounded=x.astype(np.int32))
    monkeypatch.setenv("METHOD_GOLDENS", str(tmp_path))
    return MethodGolden("toy")


def test_all_values_compared(golden: MethodGolden) -> None:
    x = torch.arange(7.0, dtype=torch.float64)
    golden.compare("sum", x.sum())
    golden.compare("doubled", 2 * x)
    golden.compare("rounded", x.long())
    assert golden.finish() == 4


@pytest.mark.parametrize("left_out", ["sum", "doubled", "rounded"])
def test_a_value_that_is_not_compared(golden: MethodGolden, left_out: str) -> None:
    x = torch.arange(7.0, dtype=torch.float64)
    values = {"sum": x.sum(), "doubled": 2 * x, "rounded": x.long()}
    for name, value in values.items():
        if name != left_out:
            golden.compare(name, value)
    with pytest.raises(AssertionError, match=rf"not compared: .*{left_out}"):
        golden.finish()


def test_a_required_value_of_the_settings(golden: MethodGolden) -> None:
    test_all_values_compared(golden)
    golden.require({"mean": 3.0})
    with pytest.raises(AssertionError, match="mean"):
        golden.finish()
    with pytest.raises(AssertionError, match="mean: off by 1"):
        golden.compare_absolutely("mean", 4.0, tolerance=0.5)
    golden.compare_absolutely("mean", 3.25, tolerance=0.5)
    assert golden.finish() == 5


def test_other_values_are_errors(golden: MethodGolden) -> None:
    x = torch.arange(7.0, dtype=torch.float64)
    with pytest.raises(AssertionError, match="sum: relative error"):
        golden.compare("sum", x.sum() * (1 + 2e-9))
    with pytest.raises(AssertionError, match="not finite"):
        golden.compare("sum", x.sum() * torch.nan)
    other = 2 * x
    other[1] += 1e-6  # not in the sample: only the norm of the whole array shows it
    with pytest.raises(AssertionError, match="doubled/norm"):
        golden.compare("doubled", other)
    with pytest.raises(AssertionError, match="1 of 7 integers"):
        golden.compare("rounded", x.long().clamp(min=1))
    with pytest.raises(AssertionError, match=r"\(8,\)"):
        golden.compare("doubled", torch.zeros(8))


def test_inputs_and_weights_follow_their_seeds(golden: MethodGolden) -> None:
    normal = np.random.Generator(np.random.PCG64(1)).standard_normal(7, dtype=np.float32)
    assert golden.input("x").tolist() == (2 * normal + 1).tolist()
    weights = golden.weights({"a.weight": [3], "n.running_var": [2], "weight_g": [4]}, "q.")
    assert set(weights) == {"a.weight", "n.running_var"}
    # The seed is zlib.crc32(b"p.q.a.weight").
    normal = np.random.Generator(np.random.PCG64(3976282843)).standard_normal(3, dtype=np.float32)
    assert weights["a.weight"].numpy() == pytest.approx(1 + 0.1 * normal, rel=1e-6)
    assert (weights["n.running_var"] >= 1).all()
    noise = gumbel(3, (20000,), torch.float64)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)  # Euler's constant


def test_absent_goldens_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHOD_GOLDENS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="METHOD_GOLDENS"):
        golden_folder()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"the golden toy .*toy\.json"):
        MethodGolden("toy")


def test_a_golden_without_a_check_is_an_error(
    golden: MethodGolden, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="no check of the golden toy"):
        test_method_goldens.test_golden("toy", "float64", capsys)
