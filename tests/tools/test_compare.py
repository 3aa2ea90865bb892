"""tools/compare.py from end to end: the page has the logs' numbers, a killed comparison goes on."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest
from helpers import sessions
from helpers.comparison import COUNTS, SMALL_KEYS, PageTables, write_recipe
from helpers.dataset_scripts import run
from helpers.load_tool import run_tool, tool_command
from helpers.tiny_run import events, wait_for

TOOL = "tools/compare.py"
METHODS = ["hog", "beit", "features", "scratch"]
JUDGES = ["finetune", "linear", "knn"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "images"
    run("make_shape_images.py", "--output", folder, *COUNTS)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Four methods of seconds each, of which features has a layer that does not exist."""
    keys = {**SMALL_KEYS, "features": {"MASK.TEACHER_LAYER": 9}}
    return write_recipe(
        tmp_path_factory.mktemp("recipe") / "small.yaml",
        methods=METHODS,
        judges=JUDGES,
        keys=keys,
        needs={"features": {"MASK.TEACHER_CHECKPOINT": "hog"}},
        panel=2,
    )


@pytest.fixture(scope="module")
def killed(images, recipe, tmp_path_factory):
    """A comparison that was killed while the first method was fine-tuned, and then went on."""
    output = tmp_path_factory.mktemp("killed")
    words = ["--recipe", recipe, "--data", images, "--output", output]
    process = sessions.start(tool_command(TOOL, *words))
    finetuning = output / "seed_0" / "hog" / "finetune"
    try:
        wait_for(lambda: list((finetuning / "checkpoints").glob("*_00001.pyth")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    wait_for(lambda: sessions.is_over(process.pid))
    return output, run_tool(TOOL, *words)


def _logged(output, method: str, judge: str) -> float:
    if judge == "finetune":
        return events(output / "seed_0" / method / judge, "test")[-1]["top1"]
    found = events(output / "seed_0" / method / "probes", "probe")
    return {event["kind"]: event["top1"] for event in found}[judge]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_number_of_the_page_is_that_of_the_logs(killed):
    output, done = killed
    assert done.returncode == 1, done.stderr
    page = PageTables((output / "comparison.html").read_text())
    assert list(page.tables["results"]) == METHODS
    ended = {
        event["name"]: event
        for event in map(json.loads, (output / "pieces.jsonl").read_text().splitlines())
        if event["event"] == "end"
    }
    for method in ("hog", "beit", "scratch"):
        row = {column: value for column, (value, _) in page.tables["results"][method].items()}
        cost = {column: value for column, (value, _) in page.tables["cost"][method].items()}
        for judge in JUDGES:
            assert float(row[judge]) == _logged(output, method, judge)
            if method != "hog":
                difference = _logged(output, method, judge) - _logged(output, "hog", judge)
                value, text = page.tables["paired"][method][judge]
                assert float(value) == pytest.approx(difference)
                assert f"wins {int(difference > 0)} of 1" in text
        folder = output / "seed_0" / method / "finetune"
        accuracies = [events(folder, kind)[-1]["top1"] for kind in ("epoch", "validation")]
        assert float(row["gap"]) == pytest.approx(accuracies[0] - accuracies[1])
        assert row["labels"] == "0"
        if method == "scratch":
            continue
        name = f"seed_0/{method}/pretrain"
        assert float(cost["own_seconds"]) == pytest.approx(ended[name]["seconds"])
        networks = ended["seed_0/dvae/pretrain"]["seconds"] if method == "beit" else 0
        assert float(row["seconds"]) == pytest.approx(ended[name]["seconds"] + networks)
        assert float(cost["memory"]) == pytest.approx(ended[name]["peak_memory"] / 2**20)
        (start, *_) = events(output / name, "start")
        assert float(cost["multiply_adds"]) == pytest.approx(start["multiply_adds"] / 1e6)
    (tokenizer,) = events(output / "seed_0/dvae/pretrain", "start")
    # 12 test images of six classes.
    assert json.loads((output / "comparison.json").read_text())["chance"] == pytest.approx(100 / 6)
    for name in ("comparison.html", "comparison.md"):
        assert "Always the most frequent class: 16.7 %." in (output / name).read_text()
    parameters = float(page.tables["cost"]["beit"]["networks"][0])
    assert parameters == pytest.approx(tokenizer["num_parameters"] / 1e6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_failing_method_is_in_the_page_with_its_reason(killed):
    output, done = killed
    page = (output / "comparison.html").read_text()
    reason = json.loads((output / "comparison.json").read_text())["methods"]["features"][
        "failures"
    ]["seed_0/features/pretrain"]
    assert "MASK.TEACHER_LAYER" in reason
    assert reason.split("'")[0] in page
    assert PageTables(page).tables["results"]["features"]["finetune"][1].startswith("failed")
    assert f"failed: seed_0/features/pretrain: {reason}" in done.stderr
    assert 'src="data:image/png;base64,' in page


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_comparison_has_the_numbers_of_an_uninterrupted_one(
    killed, images, recipe, tmp_path
):
    output, _ = killed
    methods = ["hog", "scratch"]
    words = ["--recipe", recipe, "--data", images, "--output", tmp_path, "--methods", *methods]
    done = run_tool(TOOL, *words)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in (output / "seed_0/hog/finetune/console.txt").read_text()
    tables = [
        PageTables((folder / "comparison.html").read_text()).tables["results"]
        for folder in (output, tmp_path)
    ]
    for method in methods:
        for column in (*JUDGES, "gap", "against_hog"):
            assert tables[0][method][column] == tables[1][method][column]
    curves = [
        json.loads((folder / "comparison.json").read_text())["methods"]["hog"]["curves"]
        for folder in (output, tmp_path)
    ]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_an_estimate_makes_nothing_of_the_comparison(images, recipe, tmp_path):
    words = ["--recipe", recipe, "--data", images, "--output", tmp_path, "--estimate"]
    done = run_tool(TOOL, *words, "--methods", "hog", "scratch")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "hog, pretrain",
        "finetune",
        "linear",
        "knn",
        "in all",
    ]
    minutes = [float(line.split()[-2]) for line in lines]
    assert minutes[-1] == pytest.approx(sum(minutes[:-1]), abs=0.3)
    assert minutes[-1] > 0
    assert not (tmp_path / "seed_0").exists()


@pytest.mark.slow
def test_an_estimate_without_one_of_the_methods_says_so(images, recipe, tmp_path):
    words = ["--recipe", recipe, "--data", images, "--output", tmp_path, "--estimate"]
    done = run_tool(TOOL, *words, "--methods", "hog", "features")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not measured: ")]
    assert line.startswith("not measured: features, pretrain: ")
    assert "MASK.TEACHER_LAYER" in line
    assert "hog, pretrain" in done.stdout
    assert "features" not in done.stdout


def test_a_missing_recipe_is_one_line(tmp_path):
    done = run_tool(TOOL, "--recipe", tmp_path / "none.yaml", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_data_are_one_line(recipe, tmp_path):
    words = ["--recipe", recipe, "--data", tmp_path / "none", "--output", tmp_path / "out"]
    done = run_tool(TOOL, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "DATA.PATH_TO_DATA_DIR" in line
