"""Every YAML file loads, builds, and resolves to the published values; no key is dead."""

from __future__ import annotations

import ast
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_json
from helpers.own_recipes import OWN_BASE, OWN_RECIPES
from helpers.paper_recipes import EXEMPT, PAPERS
from helpers.published_files import OF_PAPERS, OF_TARGETS, PUBLISHED, SHIPPED_CONFIGS, write_yaml
from helpers.target_recipes import BASE_OF, OURS, TARGET_EXEMPT, TARGET_RECIPES
from helpers.tiny_teachers import networks_of
from helpers.view_recipes import VIEW_RECIPES

from slowfast_maskfeat.builders import (
    build_loader,
    build_mask_sampler,
    build_model,
    build_optimizer,
    build_task,
)
from slowfast_maskfeat.builders.methods import METHODS
from slowfast_maskfeat.config import default_config, load_config

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = golden_json("defaults.json")["defaults"]

# Where ours differ from the published files on purpose.
DEVIATIONS = {
    "LOG_MODEL_INFO": "the published code can't count a masked model; this one can",
}
# Published keys without effect that ours leave out; those of the recipe (augmentations) are kept.
LEFT_OUT = {
    "BN.*": "none of these models has batch normalization",
    "DATA.DECODING_SHORT_SIZE": "it says how to decode, not what is trained",
    "PREFETCH.*": "the published code refuses it, too",
    "TRAIN.KILL_LOSS_EXPLOSION_FACTOR": "TRAIN.MAX_NONFINITE says it",
}
# Where our defaults differ from the published ones: no published file relies on any of them.
OTHER_DEFAULTS = {
    "AUG.MASK_WINDOW_SIZE": "derived from the model",
    "AVA.ANNOTATION_DIR": "a folder of the authors",
    "AVA.FRAME_DIR": "a folder of the authors",
    "AVA.FRAME_LIST_DIR": "a folder of the authors",
    "DATA.DECODING_BACKEND": "torchvision has no decoder any more",
    "DATA.INPUT_CHANNEL_NUM": "of one pathway",
    "DETECTION.SPATIAL_SCALE_FACTOR": "derived from the model",
    "MODEL.ARCH": "SlowFast is not part of this package",
    "MODEL.MODEL_NAME": "SlowFast is not part of this package",
}


def _flat(node, prefix=""):
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _load(files, overrides=()):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config([str(file) for file in files], overrides)


@pytest.mark.parametrize(
    "path", SHIPPED_CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs"))
)
def test_a_config_builds_its_model_and_task(path, tmp_path):
    cfg = _load([path], networks_of([str(path)], tmp_path))
    with torch.device("meta"):
        model = build_model(cfg)
    build_task(cfg, model)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    if cfg.MASK.ENABLE:
        mask = build_mask_sampler(cfg)(np.random.default_rng(0))
        # Random masks are rounded up to a whole token or block.
        most = cfg.AUG.MASK_RATIO + math.prod(cfg.MASK.RANDOM_BLOCK) / mask.numel()
        if cfg.AUG.MASK_KIND == "multiblock":  # has areas of blocks instead of a ratio
            most = max(number * area for number, area in cfg.AUG.MASK_BLOCKS)
            assert not mask.flatten(1).all(dim=1).any()
        assert 0 < mask.float().mean() <= most


def test_the_configs_have_the_published_names():
    names = {str(path.relative_to(ROOT / "configs").with_suffix("")) for path in SHIPPED_CONFIGS}
    own = ("demo/", "AVA/", "teachers/", "own/")
    ours = {name for name in names if name.startswith(own) or name in (*OF_PAPERS, *OF_TARGETS)}
    assert names - ours == set(PUBLISHED)
    assert {*OF_PAPERS, *OF_TARGETS} <= names


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_resolves_to_the_published_values(name, tmp_path):
    assert _different(name, tmp_path) <= set(DEVIATIONS)


def test_every_deviation_is_one(tmp_path):
    assert set().union(*(_different(name, tmp_path) for name in PUBLISHED)) == set(DEVIATIONS)
    published = (write_yaml(tmp_path / "a.yaml", values) for values in PUBLISHED.values())
    texts = [text for path in published for text in _warnings(path)]
    assert [key for key in LEFT_OUT if not any(text.startswith(key) for text in texts)] == []


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_config_of_a_paper_resolves_to_its_values(name):
    """And differs from the defaults, which are the published ones, in nothing else."""
    ours, defaults = (
        dict(_flat(_load([ROOT / f"configs/{name}.yaml"]))),
        dict(_flat(default_config())),
    )
    values = PAPERS[name]
    assert {key: ours[key] for key in values} == values
    assert {key for key in ours if ours[key] != defaults[key]} <= set(values)


@pytest.mark.parametrize("name", [*OF_TARGETS, *OWN_RECIPES])
def test_a_config_of_ours_resolves_to_values_with_a_source(name):
    """And differs in nothing else from the published file that it names, or from the defaults."""
    ours = dict(_flat(_load([ROOT / f"configs/{name}.yaml"])))
    base = OWN_BASE if name in OWN_RECIPES else BASE_OF.get(name)
    others = dict(_flat(_load([ROOT / f"configs/{base}.yaml"]) if base else default_config()))
    recipe = {**TARGET_RECIPES, **VIEW_RECIPES, **OWN_RECIPES}[name]
    assert {key: ours[key] for key in recipe} == {key: value for key, (value, _) in recipe.items()}
    assert {key for key in ours if ours[key] != others[key]} <= set(recipe)
    assert base is None or base in PUBLISHED
    assert all(source for _, source in recipe.values())
    says = (ROOT / f"configs/{name}.yaml").read_text().replace("\n# ", " ")
    assert OURS in says, "the file must say that it has values of no source"


def test_every_recipe_for_own_clips_has_its_values():
    names = {f"own/{path.stem}" for path in SHIPPED_CONFIGS if path.parent.name == "own"}
    assert names == set(OWN_RECIPES)


@pytest.mark.parametrize("name", [*OF_PAPERS, *OF_TARGETS])
def test_what_decays_is_what_the_papers_decay(name, tmp_path):
    files = [str(ROOT / f"configs/{name}.yaml")]
    cfg = _load(files, networks_of(files, tmp_path))
    with torch.device("meta"):
        model = build_model(cfg)
        groups = build_optimizer(cfg, model).param_groups
    decays = {n: group["weight_decay"] for group in groups for n in group["names"]}
    assert decays.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    shapes = {n: p.ndim for n, p in model.named_parameters()}
    flat = {n for n in decays if shapes[n] == 1 or n.endswith(".bias")}
    exempt = {**EXEMPT, **TARGET_EXEMPT}.get(name, set())
    assert {n for n, decay in decays.items() if not decay} == flat | exempt
    assert {decay for decay in decays.values() if decay} == {cfg.SOLVER.WEIGHT_DECAY}


def _different(name: str, folder: Path) -> set[str]:
    """The keys in which the file here resolves to another value than the published one."""
    theirs = dict(_flat(_load([write_yaml(folder / "published.yaml", PUBLISHED[name])])))
    ours = dict(_flat(_load([ROOT / f"configs/{name}.yaml"])))
    return {key for key in theirs if theirs[key] != ours[key]}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_keeps_what_the_recipe_asks_for_in_vain(name, tmp_path):
    published = write_yaml(tmp_path / "published.yaml", PUBLISHED[name])
    theirs, ours = _warnings(published), _warnings(ROOT / f"configs/{name}.yaml")
    expected = {text for text in theirs if not text.startswith(tuple(LEFT_OUT))}
    assert ours == expected


def _warnings(path: Path) -> set[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_config([str(path)])
    return {str(warning.message) for warning in caught}


@pytest.mark.parametrize(
    "path", SHIPPED_CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs"))
)
def test_a_config_says_first_what_it_is(path):
    lines = path.read_text().splitlines()
    assert re.match(r"# [A-Z].*", lines[0])
    assert len(lines) <= 20 or path.stem.startswith("_base")


def test_the_defaults_are_the_published_ones():
    defaults = dict(_flat(default_config()))
    different = {
        key
        for key, value in _flat(DEFAULTS)
        if key in defaults and _as_lists(value) != _as_lists(defaults[key])
    }
    assert different == set(OTHER_DEFAULTS)


def _as_lists(value: object) -> object:
    return [_as_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("key", ["TRAIN.DATASET", "TEST.DATASET"])
def test_a_data_set_without_a_reader_is_one_clear_error(key, tmp_path):
    cfg = load_config([], [key, "diving48", "DATA.PATH_TO_DATA_DIR", str(tmp_path)])
    with pytest.raises(ValueError, match=f"{key} must be one of .*'kinetics'.*, got 'diving48'"):
        build_loader(cfg, key.split(".")[0].lower())


def _keys_read(source: str) -> set[str]:
    """Configuration keys that a module reads as `cfg.A.B`, or through a name given to `cfg.A`."""
    found = set()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        sections = {
            node.targets[0].id: node.value.attr
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Attribute)
            and isinstance(node.value.value, ast.Name)
            and node.value.value.id == "cfg"
        }
        for node in ast.walk(function):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id == "cfg":
                found.add(node.attr)
            elif isinstance(owner, ast.Name) and owner.id in sections:
                found.add(f"{sections[owner.id]}.{node.attr}")
            elif (
                isinstance(owner, ast.Attribute)
                and isinstance(owner.value, ast.Name)
                and owner.value.id == "cfg"
            ):
                found.add(f"{owner.attr}.{node.attr}")
    return found


def test_no_key_is_dead():
    readers = [
        *(ROOT / "slowfast_maskfeat/builders").glob("*.py"),
        *(ROOT / "slowfast_maskfeat/runs").glob("*.py"),
        *(ROOT / "slowfast_maskfeat/commands").glob("*.py"),
    ]
    read = set().union(*(_keys_read(path.read_text()) for path in readers))
    read |= {key.kind_key for key in METHODS}
    live = {key for key, _ in _flat(default_config())}
    assert live - read == set()


def test_no_key_is_read_that_does_not_exist():
    readers = [
        *(ROOT / "slowfast_maskfeat/builders").glob("*.py"),
        *(ROOT / "slowfast_maskfeat/runs").glob("*.py"),
    ]
    read = set().union(*(_keys_read(path.read_text()) for path in readers))
    live = {key for key, _ in _flat(default_config())}
    assert {key for key in read if key.isupper() and "." in key} - live == set()
