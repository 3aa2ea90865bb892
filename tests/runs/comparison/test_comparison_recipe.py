"""Recipes: the shipped ones plan valid runs that are fair; wrong ones are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.comparison import SMALL_KEYS, write_recipe
from helpers.load_tool import ROOT

from slowfast_maskfeat.builders import build_model, build_task
from slowfast_maskfeat.config import key_value
from slowfast_maskfeat.runs.comparison.methods import (
    EQUAL_KEYS,
    METHODS,
    NETWORKS,
    ComparedNetwork,
    find_network,
    local_crop_size,
    rate_factor,
)
from slowfast_maskfeat.runs.comparison.pieces import piece_name
from slowfast_maskfeat.runs.comparison.plan import make_plan
from slowfast_maskfeat.runs.comparison.recipe import read_recipe

RECIPES = sorted((ROOT / "configs" / "compare").glob("*.yaml"))
# Not with an MViT: their encoder receives the visible tokens alone.
ON_VISIBLE = ("mae", "vjepa")
CONFIGURATION = "configs must name a YAML file for"
KNOWN = list(METHODS)


def _plan(path: Path, methods=(), seeds=(), pairs=()):
    recipe = read_recipe(path, data="/data", methods=methods, seeds=seeds)
    return make_plan(recipe, {**recipe.data, "few": recipe.data["finetune"]}, pairs)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_plans_valid_runs(path):
    named = read_recipe(path, data="/data").methods
    plan = _plan(path, named)
    assert [piece.problem for piece in plan.pieces.values() if piece.problem] == []
    for seed in plan.recipe.seeds:
        for method in plan.recipe.methods:
            for judge in plan.recipe.judges:
                assert piece_name(seed, method, judge) in plan.pieces
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_method_of_a_shipped_recipe_can_run(path):
    plan = _plan(path, KNOWN, [0])
    trainings = [p for p in plan.pieces.values() if p.kind in ("pretrain", "tokenizer")]
    assert {p.name.split("/")[1] for p in trainings} >= {*METHODS, "dvae"} - {"scratch"}
    for piece in (*trainings, plan.pieces[piece_name(0, "scratch", "finetune")]):
        cfg = piece.config()
        if piece.name.split("/")[1] in ON_VISIBLE and cfg.MVIT.REL_POS_SPATIAL:
            assert "the encoder must not pool" in piece.problem
            continue
        assert not piece.problem
        if "grid" in piece.name or piece.checkpoints:
            continue  # the same again, or of a network that is not there
        cfg.defrost()
        cfg.DATA.PATH_TO_DATA_DIR = ""  # its class names
        cfg.DATA.TRAIN_SHARDS = ""
        with torch.device("meta"):
            model = build_model(cfg)
        build_task(cfg, model)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_makes_a_target_sees_no_labels_but_those_of_fine_tuning(path):
    plan = _plan(path, KNOWN, [0])
    seed = plan.recipe.seeds[0]
    for method in KNOWN:
        name = piece_name(seed, method, "pretrain")
        for maker in plan.makers(name) if name in plan.pieces else ():
            piece = plan.pieces[maker]
            stage = "finetune" if piece.kind == "finetune" else "pretrain"
            expected = {key: str(value) for key, value in plan.recipe.data[stage].items()}
            assert {key: piece.keys[key] for key in expected} == expected
            # A network of the stage "finetune" is the classifier, which only pseudo-labels need.
            assert stage == "pretrain" or method == "pseudo_labels"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_budget_and_backbone_are_the_same_for_all_methods(path):
    plan = _plan(path, KNOWN, [0])
    seed = plan.recipe.seeds[0]
    found = {key: set() for key in EQUAL_KEYS}
    for method in KNOWN:
        if method != "scratch":
            cfg = plan.pieces[piece_name(seed, method, "pretrain")].config()
            for key in EQUAL_KEYS:
                found[key].add(repr(key_value(cfg, key)))
    assert {key: len(values) for key, values in found.items()} == dict.fromkeys(EQUAL_KEYS, 1)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_published_figures_stand_in_the_model_zoo(path):
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in (ROOT / "docs/model_zoo.md").read_text().splitlines()
    ]
    for top1, source in read_recipe(path, data="/data").published.values():
        assert source.startswith("docs/model_zoo.md")
        assert any(f"{top1:.1f}" in cells for cells in rows)


def test_the_rates_follow_one_rule():
    assert rate_factor(METHODS["hog"]) == 1
    assert rate_factor(METHODS["mae"]) == pytest.approx(1.5e-4 / 2e-4)
    assert rate_factor(ComparedNetwork(title="none published")) == 1
    plan = _plan(ROOT / "configs/compare/shapes.yaml", KNOWN)
    for method in KNOWN:
        if method != "scratch":
            rate = plan.pieces[piece_name(0, method, "pretrain")].config().SOLVER.BASE_LR
            assert rate == pytest.approx(0.002 * rate_factor(find_network(method)))


@pytest.mark.parametrize(
    ("crop_size", "patch", "expected"), [(224, 16, 96), (224, 4, 96), (48, 8, 24), (16, 16, 16)]
)
def test_small_views_are_as_large_for_the_crop_as_those_of_dino(crop_size, patch, expected):
    assert local_crop_size(crop_size, patch) == expected


def test_a_recipe_says_how_many_small_views_there_are():
    for name, count, size in (("in1k_vit_b_300", 8, 96), ("shapes", 2, 24), ("motion", 2, 24)):
        plan = _plan(ROOT / f"configs/compare/{name}.yaml", ["dino"], [0])
        data = plan.pieces[piece_name(0, "dino", "pretrain")].config().DATA
        assert [count, size] == [data.SSL_LOCAL_VIEWS, data.SSL_LOCAL_CROP_SIZE]


def test_every_network_that_a_method_needs_is_a_row():
    for row in (*METHODS.values(), *NETWORKS.values()):
        for name in row.needs.values():
            assert find_network(name)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"metods": ["hog"]}, "unknown section 'metods'; did you mean methods?"),
        ({"methods": ["hgo"]}, "methods must be among .*, got 'hgo'"),
        ({"methods": []}, "methods must have at least one entry, got"),
        ({"seeds": []}, "seeds must have at least one entry, got"),
        ({"judges": []}, "judges must have at least one entry, got"),
        ({"judges": ["svm"]}, "judges must be among finetune, .*, got 'svm'"),
        ({"configs": {"pretrain": "a.yaml"}}, f"{CONFIGURATION} finetune, got none"),
        ({"configs": {"pretraining": "a.yaml"}}, f"{CONFIGURATION} pretrain, got none"),
        ({"few_labels": 0}, "few_labels must be at least 1, got 0"),
        ({"hold_out": 1.0}, r"hold_out in \[0, 1\), got 0 and 1"),
        ({"grid": {"epochs": 0}}, r"grid.epochs must be in \(0, 1\], got 0"),
        ({"grid": {"rates": [1]}}, "grid must be among pretrain, finetune, .*, got 'rates'"),
        ({"needs": {"features": {"MASK.TEACHER_CHECKPOINT": "none"}}}, "must be one of .*'none'"),
        ({"seeds": ["a"]}, r"seeds must be a list of whole numbers, got \['a'\]"),
        ({"seeds": 3}, "seeds must be a list of whole numbers, got 3"),
        ({"seeds": "12"}, "seeds must be a list of whole numbers, got '12'"),
        ({"seeds": [0.7]}, r"seeds must be a list of whole numbers, got \[0.7\]"),
        ({"seeds": [True]}, r"seeds must be a list of whole numbers, got \[True\]"),
        ({"seeds": [-1, 0]}, "seeds must be at least 0, got -1"),
        ({"methods": "hog"}, "methods must be a list of words, got 'hog'"),
        ({"judges": "knn"}, "judges must be a list of words, got 'knn'"),
        ({"notes": "A note"}, "notes must be a list of words, got 'A note'"),
        ({"few_labels": 2.7}, "few_labels must be a whole number, got 2.7"),
        ({"few_labels": "many"}, "few_labels must be a whole number, got 'many'"),
        ({"hold_out": "half"}, "hold_out must be a number, got 'half'"),
        ({"panel": -1}, "panel must be at least 0, got -1"),
        ({"grid": {"finetune": "12"}}, "grid.finetune must be a list of numbers, got '12'"),
        ({"grid": {"pretrain": [-1, 1]}}, "grid must have factors > 0, got .*-1"),
        ({"grid": {"pretrain": [float("nan")]}}, "grid must have factors > 0, got .*nan"),
        ({"keys": {"all": None, "hog": 3}}, "keys.hog must be a section of names and values"),
        ({"keys": {"classifier": {"SOLVER.BASE_LR": 7.0}}}, "keys must not have classifier"),
        ({"keys": {"scratch": {"MVIT.DEPTH": 4}}}, "MVIT.DEPTH must be the same for all methods"),
        (
            {"keys": {"scratch": {"TRAIN.CHECKPOINT_FILE_PATH": "x.pyth"}}},
            "TRAIN.CHECKPOINT_FILE_PATH is set by the comparison, got it in scratch",
        ),
        ({"needs": {"scratch": {"A": "mae"}}}, "needs must not have scratch"),
        ({"published": {"hog": {"top1": 80.0}}}, "published must have a number top1 and a source"),
        ({"keys": {"hog": {"MASK.TIME_STRIDE_LOSS": False}}}, "must be the same for all methods"),
        ({"keys": {"hog": {"SOLVER.BASE_LR": 0.1}}}, "must be the same for all methods"),
        ({"keys": {"dvae": {"DATA.PATH_TO_DATA_DIR": "x"}}}, "must be in the section data"),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path, sections, message):
    path = write_recipe(tmp_path / "recipe.yaml", **sections)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(path, data="/data")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_may_have_an_exponent(tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml", grid={"pretrain": ["1e-1", 1]}, hold_out="1e-1")
    recipe = read_recipe(path, data="/data")
    assert recipe.grid.pretrain == (0.1, 1.0)
    assert recipe.hold_out == 0.1


def test_paths_of_a_recipe_do_not_depend_on_how_they_are_written(tmp_path, monkeypatch):
    path = write_recipe(tmp_path / "recipe.yaml")
    expected = read_recipe(path, data=str(tmp_path / "images"))
    monkeypatch.chdir(tmp_path)
    assert read_recipe("recipe.yaml", data="images/") == expected
    assert read_recipe("./recipe.yaml", data=f"{tmp_path}//images") == expected
    remote = read_recipe(path, data="s3://bucket/images")
    assert remote.data["pretrain"]["DATA.PATH_PREFIX"] == "s3://bucket/images"


def test_a_missing_folder_of_data_is_named(tmp_path):
    path = write_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ValueError, match="--data must be the folder of the data, got none"):
        read_recipe(path)


def test_networks_that_need_each_other_are_named(tmp_path):
    needs = {
        "features": {"MASK.TEACHER_CHECKPOINT": "beit"},
        "dvae": {"MASK.TEACHER_CHECKPOINT": "features"},
    }
    path = write_recipe(tmp_path / "recipe.yaml", methods=["features"], needs=needs)
    with pytest.raises(ValueError, match="features -> beit -> dvae -> features"):
        _plan(path)


def test_a_configuration_that_is_wrong_costs_only_its_method(tmp_path):
    keys = {**SMALL_KEYS, "pixels": {"MASK.PIXEL_LOSS": "none"}}
    plan = _plan(write_recipe(tmp_path / "recipe.yaml", keys=keys))
    wrong = {name: piece.problem for name, piece in plan.pieces.items() if piece.problem}
    assert list(wrong) == ["seed_0/pixels/pretrain"]
    assert "MASK.PIXEL_LOSS" in wrong["seed_0/pixels/pretrain"]


@pytest.mark.parametrize(
    ("sections", "pairs", "message"),
    [
        ({"keys": {"hog": {"MASK.TARGT": "hog"}}}, (), r"^keys\.hog: unknown key 'MASK\.TARGT'"),
        ({"keys": {"all": {"NUM_GPUS": "two"}}}, (), r"^keys\.all: NUM_GPUS must be an integer"),
        (
            {"needs": {"features": {"MASK.TEACHER_CHECKPOINTS": "mae"}}},
            (),
            r"^needs\.features: unknown key .*; did you mean MASK\.TEACHER_CHECKPOINT\?",
        ),
        ({"keys": {"hog": {"MASK.TARGET": "pixels"}}}, (), "MASK.TARGET must be 'hog' for hog"),
        ({}, ("MASK.TARGET", "pixels"), "MASK.TARGET must be 'hog' for hog, which it defines, got"),
        ({}, ("RNG_SEED", "5"), "RNG_SEED is set by the comparison, got it in --opts"),
    ],
)
def test_what_would_be_another_comparison_is_an_error(tmp_path, sections, pairs, message):
    path = write_recipe(tmp_path / "recipe.yaml", **sections)
    with pytest.raises(ValueError, match=message):
        _plan(path, pairs=pairs)


def test_networks_are_shared_and_classifiers_are_the_training_from_scratch(tmp_path):
    methods = ["beit", "pseudo_labels", "features", "scratch"]
    needs = {"features": {"MASK.TEACHER_CHECKPOINT": "beit"}}
    plan = _plan(write_recipe(tmp_path / "recipe.yaml", methods=methods, needs=needs, seeds=[0, 1]))
    assert plan.makers("seed_1/features/pretrain") == (
        "seed_1/dvae/pretrain",
        "seed_1/beit/pretrain",
    )
    assert plan.makers("seed_0/pseudo_labels/pretrain") == ("seed_0/scratch/finetune",)
    assert sum("dvae" in name for name in plan.pieces) == 2


def test_the_grid_never_tests(tmp_path):
    grid = {"pretrain": [0.5, 1.0], "finetune": [1.0, 2.0], "epochs": 0.5, "seed": 3}
    plan = _plan(write_recipe(tmp_path / "recipe.yaml", grid=grid, seeds=[0]))
    tried = {name: piece for name, piece in plan.pieces.items() if name.startswith("grid/")}
    assert len(tried) == 2 * (2 * 2 + 2) + 2  # scratch has no pre-training
    for name, piece in tried.items():
        cfg = piece.config()
        assert not cfg.TEST.ENABLE
        assert cfg.RNG_SEED == 3
        assert cfg.SOLVER.MAX_EPOCH == 1, name
    assert plan.pieces["seed_0/hog/pretrain"].rates == {
        "grid/hog/pretrain_x0.5/finetune": 0.001,
        "grid/hog/pretrain_x1/finetune": 0.002,
    }
