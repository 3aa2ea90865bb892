"""Every YAML file loads, builds, and resolves to the published values; no key is dead."""

from __future__ import annotations

import ast
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from slowfast_maskfeat.build import build_mask_sampler, build_model, build_task
from slowfast_maskfeat.config import default_config, load_config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if path.relative_to(ROOT / "configs").parts[0] != "_base_"
)
PUBLISHED = json.loads((ROOT / "tests/golden/published_configs.json").read_text())["files"]

# Where ours differ from the published files on purpose.
DEVIATIONS = {
    "LOG_MODEL_INFO": "the published code can't count a masked model; this one can",
    "DATA.DECODING_BACKEND": "torchvision has no decoder any more; auto is what it means here",
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


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_a_config_builds_its_model_and_task(path):
    cfg = _load([path])
    with torch.device("meta"):
        model = build_model(cfg)
    build_task(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    if cfg.MASK.ENABLE:
        mask = build_mask_sampler(cfg)(np.random.default_rng(0))
        assert 0 < mask.float().mean() <= cfg.AUG.MASK_RATIO + 0.01


@pytest.mark.parametrize(
    "path",
    [path for path in CONFIGS if "demo" not in path.parts],
    ids=lambda path: str(path.relative_to(ROOT / "configs")),
)
def test_a_config_resolves_to_the_published_values(path, tmp_path):
    name = str(path.relative_to(ROOT / "configs").with_suffix(""))
    nested: dict = {}
    for key, value in PUBLISHED[name]["values"].items():
        *sections, last = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    published = tmp_path / "published.yaml"
    published.write_text(yaml.safe_dump(nested))
    theirs, ours = dict(_flat(_load([published]))), dict(_flat(_load([path])))
    different = {key for key in theirs if theirs[key] != ours[key]}
    assert different <= set(DEVIATIONS)


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
    readers = [*(ROOT / "slowfast_maskfeat/build").glob("*.py"), ROOT / "tools/run_net.py"]
    read = set().union(*(_keys_read(path.read_text()) for path in readers))
    live = {key for key, _ in _flat(default_config())}
    assert live - read == set()


def test_no_key_is_read_that_does_not_exist():
    readers = (ROOT / "slowfast_maskfeat/build").glob("*.py")
    read = set().union(*(_keys_read(path.read_text()) for path in readers))
    live = {key for key, _ in _flat(default_config())}
    assert {key for key in read if key.isupper() and "." in key} - live == set()
