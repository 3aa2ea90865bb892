"""The notebook docs/quickstart.ipynb runs from its first cell to its last."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.documents import ROOT

NOTEBOOK = json.loads((ROOT / "docs/quickstart.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    names = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capfd):
    for name in ("datasets", "docs"):  # a checkout, in which Jupyter starts in docs/
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, Any] = {}
    for number, code in enumerate(CODE, 1):
        exec(compile(code, f"quickstart.ipynb, code cell {number}", "exec"), names)
    trained, predictions = names["trained"], names["predictions"]
    assert trained.results["top1"] >= 75  # of 24 videos; by chance 33
    labels = {"tall_oval", "triangle", "wide_oval"}
    assert [set(prediction.labels) <= labels for prediction in predictions] == [True] * 6
    right = [prediction.labels[0] in prediction.path for prediction in predictions]
    assert sum(right) >= 4
    last = capfd.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{trained.results['top1']:.1f} % of 24 test videos are right: output/")
    assert (tmp_path / last.split(": ")[1]).is_file()
    assert (tmp_path / "output/quickstart/pretrain/predictions.png").is_file()
