"""Pieces are made once, in order; a failure costs what needs it; other settings are refused."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.comparison import SMALL_KEYS, PageTables, stand_in, write_recipe
from helpers.load_tool import ROOT

from slowfast_maskfeat.log import read_events
from slowfast_maskfeat.runs.comparison.execute import LOG_NAME, Executor
from slowfast_maskfeat.runs.comparison.plan import make_plan
from slowfast_maskfeat.runs.comparison.recipe import read_recipe
from slowfast_maskfeat.runs.comparison.report import write_report


def _make(folder: Path, *, failing=(), pairs=(), **sections):
    """Make a comparison with a program that logs numbers at once; return outcomes and page."""
    recipe = read_recipe(write_recipe(folder / "recipe.yaml", **sections), data="/data")
    plan = make_plan(recipe, {**recipe.data, "few": recipe.data["finetune"]}, pairs)
    output = folder / "out"
    outcomes = Executor(plan, output, stand_in(failing=failing)).make_all()
    write_report(plan, output, outcomes)
    return outcomes, output


def _starts(output: Path) -> dict[str, int]:
    return {
        path.parent.relative_to(output).as_posix(): len(path.read_text())
        for path in output.rglob("starts")
    }


def test_each_piece_is_made_once(tmp_path):
    outcomes, output = _make(tmp_path)
    assert all(outcome.is_done for outcome in outcomes.values())
    first = _starts(output)
    assert set(first.values()) == {1}
    again, _ = _make(tmp_path)
    assert _starts(output) == first
    assert again == outcomes


def test_what_is_made_is_collected_without_a_run(tmp_path):
    """Also for more seeds than were made, and what lacks a network that it needs is left out."""
    made, output = _make(tmp_path, methods=["hog", "beit"])
    starts = _starts(output)
    recipe = read_recipe(tmp_path / "recipe.yaml", data="/data", seeds=[1, 0])
    plan = make_plan(recipe, {**recipe.data, "few": recipe.data["finetune"]}, [])
    events = (output / LOG_NAME).read_text().splitlines(keepends=True)
    dvae = "seed_0/dvae/pretrain"
    (output / LOG_NAME).write_text("".join(line for line in events if f'"{dvae}"' not in line))
    found = Executor(plan, output, stand_in()).collect()
    assert found == {
        name: of for name, of in made.items() if not name.startswith((dvae, "seed_0/beit"))
    }
    assert _starts(output) == starts


def test_the_page_has_what_is_made_at_any_time(tmp_path):
    _make(tmp_path, methods=["hog", "scratch"])
    recipe = read_recipe(
        write_recipe(tmp_path / "recipe.yaml", methods=["pixels", "hog", "scratch"]), data="/data"
    )
    plan = make_plan(recipe, {**recipe.data, "few": recipe.data["finetune"]}, [])
    executor = Executor(plan, tmp_path / "out", stand_in())
    counts: list[int] = []
    executor.make_all(after_piece=lambda: counts.append(len(executor.outcomes())))
    num_new = sum("/pixels/" in name for name in plan.pieces)
    assert counts == list(range(len(plan.pieces) - num_new + 1, len(plan.pieces) + 1))


def test_what_cannot_be_built_is_said_before_anything_is_made(tmp_path, capsys):
    keys = {**SMALL_KEYS, "pixels": {"MASK.PRETRAIN_DEPTH": [99]}}
    outcomes, output = _make(tmp_path, keys=keys)
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: seed_0/pixels/pretrain cannot be made: MASK.PRETRAIN_DEPTH")
    assert not any("pixels/pretrain" in line for line in others)
    assert not (output / "seed_0" / "pixels").exists()
    assert outcomes["seed_0/hog/finetune"].is_done
    assert "MASK.PRETRAIN_DEPTH" in (output / "comparison.md").read_text()


def test_a_failure_costs_only_what_needs_it(tmp_path):
    outcomes, output = _make(tmp_path, failing=["dvae"], methods=["hog", "beit", "scratch"])
    failed = {name: outcome.reason for name, outcome in outcomes.items() if outcome.reason}
    reason = "MASK.TARGET must be another, got this"
    assert failed["seed_0/dvae/pretrain"] == reason
    assert set(failed) == {
        "seed_0/dvae/pretrain",
        *(f"seed_0/beit/{kind}" for kind in ("pretrain", "finetune", "knn")),
    }
    page = (output / "comparison.html").read_text()
    assert page.count(reason) >= 2
    value, text = PageTables(page).tables["results"]["beit"]["finetune"]
    assert value == ""
    assert text.startswith("failed")
    assert reason in (output / "comparison.md").read_text()
    assert (
        reason
        in json.loads((output / "comparison.json").read_text())["methods"]["beit"]["failures"][
            "seed_0/beit/pretrain"
        ]
    )
    # What failed is tried again, what is done is not.
    repaired, _ = _make(tmp_path, methods=["hog", "beit", "scratch"])
    assert all(outcome.is_done for outcome in repaired.values())
    assert _starts(output)["seed_0/hog/pretrain"] == 1


def test_other_settings_need_another_folder(tmp_path):
    _make(tmp_path)
    with pytest.raises(
        ValueError, match=r"seed_0/hog/pretrain with other .*AUG.RE_PROB was 0.25, is 0.1"
    ):
        _make(tmp_path, pairs=["AUG.RE_PROB", "0.1"])


def test_other_samples_need_another_folder(tmp_path):
    def make(few: str):
        recipe = read_recipe(
            write_recipe(tmp_path / "recipe.yaml", judges=["finetune", "few"]), data="/data"
        )
        part = {**recipe.data["finetune"], "DATA.PATH_TO_DATA_DIR": str(tmp_path / "out" / few)}
        plan = make_plan(recipe, {**recipe.data, "few": part})
        return Executor(plan, tmp_path / "out", stand_in()).make_all()

    make("data/few_1")
    make("data/few_1")
    with pytest.raises(ValueError, match=r"hog/few with other settings: .*few_labels were changed"):
        make("data/few_2")


def test_another_content_of_a_configuration_needs_another_folder(tmp_path):
    """But not another name of it: the command line may name a file in several ways."""
    demo = ROOT / "configs" / "demo"
    configs = {
        "pretrain": str(tmp_path / "a.yaml"),
        "finetune": str(demo / "image_finetune.yaml"),
    }
    base = f"_BASE_: {demo / '_base_image_pretrain.yaml'}\n"
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(base)
    _make(tmp_path, configs=configs)
    _, output = _make(tmp_path, configs={**configs, "pretrain": str(tmp_path / "b.yaml")})
    assert set(_starts(output).values()) == {1}
    (tmp_path / "a.yaml").write_text(base + "AUG: {RE_PROB: 0.3}\n")
    with pytest.raises(ValueError, match=r"pretrain with other settings: AUG.RE_PROB was 0.25, is"):
        _make(tmp_path, configs=configs)


def test_data_are_not_set_on_the_command_line(tmp_path):
    with pytest.raises(ValueError, match=r"DATA.PATH_PREFIX must be in the section data"):
        _make(tmp_path, pairs=["DATA.PATH_PREFIX", "/other"])


def test_a_page_of_what_was_made_has_the_failures(tmp_path):
    _, output = _make(tmp_path, failing=["dvae"], methods=["hog", "beit"])
    recipe = read_recipe(tmp_path / "recipe.yaml", data="/data")
    plan = make_plan(recipe, {**recipe.data, "few": recipe.data["finetune"]})
    found = Executor(plan, output, stand_in()).collect(with_failures=True)
    failed = {name for name, outcome in found.items() if outcome.reason}
    beit = {f"seed_0/beit/{kind}" for kind in ("pretrain", "finetune", "knn")}
    assert failed == {"seed_0/dvae/pretrain", *beit}
    assert "needs seed_0/dvae/pretrain, which failed" in found["seed_0/beit/pretrain"].reason


def test_what_was_deleted_is_made_again_or_not_needed(tmp_path):
    _, output = _make(tmp_path, methods=["hog", "beit"])
    shutil.rmtree(output / "seed_0/hog/pretrain/checkpoints")  # to save space
    shutil.rmtree(output / "seed_0/dvae")
    outcomes, _ = _make(tmp_path, methods=["hog", "beit"])
    assert all(outcome.is_done for outcome in outcomes.values())
    assert set(_starts(output).values()) == {1}
    shutil.rmtree(output / "seed_0/hog/finetune")
    outcomes, _ = _make(tmp_path, methods=["hog", "beit"])
    reason = outcomes["seed_0/hog/finetune"].reason
    assert reason.startswith("needs the checkpoint of seed_0/hog/pretrain, which is gone; delete")
    shutil.rmtree(output / "seed_0/hog/pretrain")
    outcomes, _ = _make(tmp_path, methods=["hog", "beit"])
    assert all(outcome.is_done for outcome in outcomes.values())


def test_a_run_that_outlived_its_comparison_is_no_failure(tmp_path):
    _, output = _make(tmp_path, failing=["hog/finetune"], methods=["hog"])
    code = f"""
import pathlib
from slowfast_maskfeat.engine.coordination import locked
with locked(pathlib.Path({str(output / "seed_0/hog/finetune")!r})):
    print(flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="must have no other run"):
            _make(tmp_path, methods=["hog"])
        other.communicate("\n")
    outcomes, _ = _make(tmp_path, methods=["hog"])
    assert all(outcome.is_done for outcome in outcomes.values())


def test_damaged_records_are_left_out(tmp_path):
    _, output = _make(tmp_path, methods=["hog"])
    lines = (output / LOG_NAME).read_text().splitlines()
    ends = [json.loads(line) for line in lines if '"end"' in line]
    damaged = [{"event": "end"}, {"event": "begin", "name": "x"}, {**ends[0], "seconds": None}]
    with open(output / LOG_NAME, "a") as log:
        log.writelines(f"{json.dumps(event)}\n" for event in damaged)
    (output / "seed_0/hog/finetune/report.json").write_text("{}")
    outcomes, _ = _make(tmp_path, methods=["hog"])
    assert all(outcome.is_done for outcome in outcomes.values())
    assert set(_starts(output).values()) == {1}


def test_the_page_says_that_time_is_missing(tmp_path):
    _, output = _make(tmp_path, methods=["hog", "pixels"])
    (begin,) = (
        line
        for line in (output / LOG_NAME).read_text().splitlines(keepends=True)
        if '"begin"' in line and '"seed_0/pixels/pretrain"' in line
    )
    with open(output / LOG_NAME, "a") as log:
        log.write(begin)
    _make(tmp_path, methods=["hog", "pixels"])
    said = json.loads((output / "comparison.json").read_text())["not_comparable"]
    (text,) = (text for text in said if "too low" in text)
    assert text.startswith("The seconds of pixels, as MaskFeat are too low")


def test_the_page_has_what_differs_from_scratch(tmp_path):
    keys = {**SMALL_KEYS, "scratch": {"SOLVER.LAYER_DECAY": 1.0, "SOLVER.MAX_EPOCH": 3}}
    _, output = _make(tmp_path, keys=keys)
    found = json.loads((output / "comparison.json").read_text())["differences"]["scratch"]
    assert found == {"SOLVER.LAYER_DECAY": [1.0, 0.75], "SOLVER.MAX_EPOCH": [3, 2]}


def test_a_rate_of_few_labels_is_not_that_of_the_grid(tmp_path):
    keys = {**SMALL_KEYS, "few": {"SOLVER.BASE_LR": 0.0001}}
    grid = {"finetune": [1.0, 2.0], "epochs": 0.5}
    _, output = _make(tmp_path, keys=keys, grid=grid, judges=["finetune", "few"], methods=["hog"])
    rates = {
        event["name"]: event["words"][event["words"].index("SOLVER.BASE_LR") + 1]
        for event in read_events(output / LOG_NAME)
        if event["event"] == "begin"
    }
    assert rates["seed_0/hog/few"] == "0.0001"
    assert rates["seed_0/hog/finetune"] in ("0.002", "0.004")


def test_a_comparison_may_be_moved(tmp_path):
    _make(tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "out").rename(moved / "out")
    _, output = _make(moved)
    assert set(_starts(output).values()) == {1}


def test_the_best_rate_on_validation_is_taken(tmp_path):
    grid = {"pretrain": [0.5, 1.0, 2.0], "finetune": [1.0, 2.0], "epochs": 0.5}
    _, output = _make(tmp_path, grid=grid, methods=["hog", "scratch"])
    # The program is better the larger the rate, up to 0.003; fine-tuning after each pre-training
    # has the same rate, so that the first of equal ones is taken.
    begins = {
        event["name"]: dict(zip(event["words"][2::2], event["words"][3::2], strict=True))
        for event in read_events(output / LOG_NAME)
        if event["event"] == "begin"
    }
    assert begins["seed_0/hog/pretrain"]["SOLVER.BASE_LR"] == "0.001"
    assert begins["seed_0/hog/finetune"]["SOLVER.BASE_LR"] == "0.002"
    for name, keys in begins.items():
        assert name.startswith("grid/") == (keys.get("TEST.ENABLE") == "False") or (
            "pretrain" in name or "PROBE.KIND" in keys
        )
    tables = PageTables((output / "comparison.html").read_text()).tables
    assert float(tables["rates"]["hog"]["pretrain"][0]) == 0.001
    content = json.loads((output / "comparison.json").read_text())
    assert "The test split was not used" in content["tuning"]


def test_if_all_rates_fail_the_method_fails(tmp_path):
    grid = {"pretrain": [1.0, 2.0], "epochs": 0.5}
    outcomes, _ = _make(tmp_path, grid=grid, failing=["grid/hog"], methods=["hog", "scratch"])
    assert "all of its learning rates failed" in outcomes["seed_0/hog/pretrain"].reason
    assert outcomes["seed_0/scratch/finetune"].is_done


def test_every_number_of_the_page_follows_from_the_logs(tmp_path):
    seeds = [0, 2, 5]
    methods = ["hog", "pseudo_labels", "scratch"]
    outcomes, output = _make(tmp_path, methods=methods, seeds=seeds, judges=["finetune", "linear"])
    tables = PageTables((output / "comparison.html").read_text()).tables
    for method in methods:
        row = {column: value for column, (value, _) in tables["results"][method].items()}
        found = {
            seed: read_events(output / f"seed_{seed}/{method}/finetune/stats.jsonl")
            for seed in seeds
        }
        tested = [of_seed[-1]["top1"] for of_seed in found.values()]
        assert float(row["finetune"]) == pytest.approx(statistics.mean(tested))
        text = tables["results"][method]["finetune"][1]
        assert text == f"{statistics.mean(tested):.1f} ± {statistics.stdev(tested):.1f}"
        assert float(row["linear"]) == pytest.approx(statistics.mean(tested) - 5)
        assert float(row["gap"]) == pytest.approx(10)
        assert row["seeds"] == "3"
        assert row["labels"] == ("36" if method == "pseudo_labels" else "0")
        ends = {
            event["name"]: event
            for event in read_events(output / LOG_NAME)
            if event["event"] == "end"
        }
        if method != "scratch":
            made = [f"seed_{seed}/{method}/pretrain" for seed in seeds]
            own = statistics.mean(ends[name]["seconds"] for name in made)
            assert float(tables["cost"][method]["own_seconds"][0]) == pytest.approx(own)
            peak = statistics.mean(ends[name]["peak_memory"] for name in made) / 2**20
            assert float(tables["cost"][method]["memory"][0]) == pytest.approx(peak)
            assert float(tables["cost"][method]["multiply_adds"][0]) == 2
    networks = [ends[f"seed_{seed}/scratch/finetune"]["seconds"] for seed in seeds]
    own = float(tables["cost"]["pseudo_labels"]["own_seconds"][0])
    expected = own + statistics.mean(networks)
    assert float(tables["cost"]["pseudo_labels"]["seconds"][0]) == pytest.approx(expected)
    assert float(tables["cost"]["pseudo_labels"]["networks"][0]) == 3
    assert "wins 0 of 3" in tables["paired"]["scratch"]["finetune"][1]
    assert all(outcome.is_done for outcome in outcomes.values())


def test_the_page_says_what_is_not_comparable(tmp_path):
    methods = ["hog", "pseudo_labels", "beit"]
    _, output = _make(tmp_path, failing=["seed_1/beit"], methods=methods, seeds=[0, 1])
    said = json.loads((output / "comparison.json").read_text())["not_comparable"]
    assert any("Fewer than 2 seeds" in text and "BEiT" in text for text in said)
    assert any("saw 36 labels before fine-tuning" in text for text in said)
    page = (output / "comparison.html").read_text()
    assert all(text[:40].replace("'", "&#x27;") in page for text in said)


def test_the_page_names_methods_without_a_result(tmp_path):
    _, output = _make(tmp_path, failing=["seed_0/beit"], methods=["hog", "beit"], seeds=[0])
    said = json.loads((output / "comparison.json").read_text())["not_comparable"]
    assert "Failed: tokens of a dVAE (BEiT)." in said
    assert not any("Fewer than" in text for text in said)


def test_the_page_needs_no_network(tmp_path):
    _, output = _make(tmp_path)
    page = PageTables((output / "comparison.html").read_text())
    assert page.addresses
    for address in page.addresses:
        assert address.startswith("data:") or (output / address).is_file()
