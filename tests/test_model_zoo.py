"""The model zoo names every experiment, and what it says of the models is what the files build."""

from __future__ import annotations

import json
import re

import pytest
from helpers.documents import ROOT
from helpers.golden_rule import GOLDEN
from helpers.published_files import OF_PAPERS, OF_TARGETS, PUBLISHED

TEXT = (ROOT / "docs/model_zoo.md").read_text()
COUNTED = {
    golden["config"]: golden
    for golden in (json.loads(path.read_text()) for path in (GOLDEN / "models").glob("*.json"))
    if not any(pair.startswith("DETECTION") for pair in golden.get("overrides", ["DETECTION"]))
}


def _rows(last_of_head: str) -> list[list[str]]:
    """The rows of all tables whose head ends with a cell."""
    rows, inside = [], False
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[-1] == last_of_head)
        if inside and cells[-1] != last_of_head and set(line) != set("|-"):
            rows.append(cells)
    return rows


def _configs(cells: list[str]) -> set[str]:
    return set(re.findall(r"\(\.\./configs/(\S+)\.yaml\)", " ".join(cells)))


def test_every_experiment_has_its_results_and_its_size():
    rows, sizes = _rows("status"), _rows("G multiply-adds")
    *with_results, _ = OF_PAPERS
    assert set().union(*map(_configs, rows)) == {*PUBLISHED, *with_results}
    known = sorted([*PUBLISHED, *OF_PAPERS, *OF_TARGETS])
    assert sorted(name for cells in sizes for name in _configs(cells)) == known


def test_every_result_says_whether_it_was_published_or_measured_here():
    assert {cells[-1] for cells in _rows("status")} <= {"published", "measured here"}


def test_every_source_leads_somewhere():
    defined = dict(re.findall(r"^\[([^\]]+)\]: (https://\S+)$", TEXT, re.MULTILINE))
    used = re.findall(r"\]\[([^\]]+)\]", TEXT) + re.findall(r"[\s(]\[([^\]]+)\](?![\[(:])", TEXT)
    assert used
    assert set(used) == set(defined)
    assert len({name.lower() for name in defined}) == len(defined)


@pytest.mark.parametrize("name", COUNTED)
def test_the_sizes_are_those_of_the_published_models(name):
    (cells,) = (cells for cells in _rows("G multiply-adds") if _configs(cells) == {name})
    parameters, multiply_adds = (float(cell.replace(",", "")) for cell in cells[1:])
    assert parameters == round(COUNTED[name]["param_count"] / 1e6, 1)
    assert multiply_adds == pytest.approx(COUNTED[name]["gflops_macs"], rel=1e-3, abs=0.05)


def test_enough_sizes_are_compared():
    assert len(COUNTED) >= 20
