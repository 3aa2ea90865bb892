"""Rows added from outside: a package that knows the extension points trains like our own.

The package (helpers/toylab.py) is written into a folder and named by IMPORTS. It adds a backbone of
three attention layers, a target with a frozen network, a mask, a data set, and a method of two
kinds of views with an EMA teacher.
"""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.tiny_run import command, events, losses, make_videos, wait_for

import slowfast_maskfeat
from slowfast_maskfeat import extension
from slowfast_maskfeat.checkpoints import find_checkpoints, load_checkpoint

SOURCE = Path(__file__).parent / "helpers" / "toylab.py"

COMMON = {
    "IMPORTS": ["toylab"],
    "TASK": "ssl",
    "MODEL.ARCH": "toy",
    "TRAIN.DATASET": "pairs",
    "TEST.DATASET": "pairs",
    "MVIT.ZERO_DECAY_POS_CLS": True,
    "TEST.ENABLE": False,
}
MASKED = {
    **COMMON,
    "MODEL.MODEL_NAME": "MaskMViT",
    "MODEL.LOSS_FUNC": "multi_mse",
    "MASK.ENABLE": True,
    "MASK.TARGET": "toy_features",
    "AUG.MASK_KIND": "checkerboard",
    "AUG.MASK_RATIO": 0.5,
}
TWINS = {**COMMON, "MODEL.MODEL_NAME": "ToyTwins"}
METHODS = {"masked": (MASKED, "baseline"), "twins": (TWINS, "agreement")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_videos(tmp_path_factory.mktemp("data"))
    for split in ("train", "val"):
        rows = "".join(f"{n % 3}|{folder}/{n}.mp4\n" for n in range(12))
        (folder / f"{split}.pairs").write_text(rows)
        (folder / f"{split}.csv").unlink()
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Where toylab can be imported."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "toylab").mkdir()
    (folder / "toylab" / "__init__.py").write_text(SOURCE.read_text())
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", params=METHODS)
def method(request, data, environment, tmp_path_factory):
    """Options of a method, its scalar, and the folder of a run that nothing interrupts."""
    options, scalar = METHODS[request.param]
    output = tmp_path_factory.mktemp(request.param)
    done = _run(data, output, environment, options)
    assert done.returncode == 0, done.stderr
    return options, scalar, output


def _run(data, output, environment, *options, torchrun=False):
    python, *words = command(data, output, *options)
    if torchrun:
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words]
    return subprocess.run([python, *words], capture_output=True, text=True, env=environment)


def _last(output):
    return load_checkpoint(find_checkpoints(output / "checkpoints", "ssl")[-1])


def _assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        same = value.equal(second[name]) if isinstance(value, torch.Tensor) else None
        assert same or value == second[name], name


def test_the_package_imports_public_names_alone():
    for node in ast.walk(ast.parse(SOURCE.read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("slowfast_maskfeat") for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("slowfast"):
            homes = {
                "slowfast_maskfeat": slowfast_maskfeat.__all__,
                "slowfast_maskfeat.extension": extension.__all__,
            }
            assert {name.name for name in node.names} <= set(homes[node.module])


def test_a_run_validates_saves_logs_and_draws(method):
    _, scalar, output = method
    assert sorted(losses(output)) == [1, 2, 3, 4, 5, 6]
    for kind in ("train", "epoch", "validation"):
        assert all(scalar in event for event in events(output, kind)), kind
    assert events(output, "validation")[-1]["num_decoded"] == 12
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert _last(output)["epoch"] == 1


def test_a_killed_run_resumes_exactly(method, data, environment, tmp_path):
    options, _, whole = method
    options = {**options, "TRAIN.CHECKPOINT_STEP_PERIOD": 1}
    process = subprocess.Popen(
        command(data, tmp_path, options), stderr=subprocess.DEVNULL, env=environment
    )
    name = "ssl_checkpoint_epoch_00000_step_0000002.pyth"
    wait_for((tmp_path / "checkpoints" / name).exists)
    process.kill()
    process.wait()
    done = _run(data, tmp_path, environment, options)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == losses(whole)
    for part in ("model_state", "task_state"):
        _assert_equal(_last(tmp_path)[part], _last(whole)[part])


def test_two_processes_equal_one(method, data, environment, tmp_path):
    options, scalar, whole = method
    done = _run(data, tmp_path, environment, options, torchrun=True)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-4)
    one, two = events(whole, "validation")[-1], events(tmp_path, "validation")[-1]
    # The baseline is that of the best constant for a batch, which two processes share.
    for name in ["loss", scalar][: 1 if scalar == "baseline" else 2]:
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    for part in ("model_state", "task_state"):
        mine, theirs = _last(tmp_path)[part], _last(whole)[part]
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)


def test_other_frozen_weights_are_refused(data, environment, tmp_path):
    done = _run(data, tmp_path, environment, MASKED, {"SOLVER.MAX_EPOCH": 1})
    assert done.returncode == 0, done.stderr
    state = _last(tmp_path)["task_state"]
    (extra,) = [value for name, value in state.items() if name.endswith("_extra_state")]
    assert len(extra["sha256"]) == 64
    assert not any("network" in name and "extra" not in name for name in state)
    done = _run(data, tmp_path, environment, MASKED, {"TOY.SEED": 8})
    assert done.returncode == 2
    assert "frozen network" in done.stderr
    assert "seed 7" in done.stderr
    assert "seed 8" in done.stderr


def test_its_checkpoint_starts_a_fine_tuning(method, data, environment, tmp_path):
    """By its path alone; of a method with a teacher the teacher is loaded."""
    _, scalar, whole = method
    checkpoint = find_checkpoints(whole / "checkpoints", "ssl")[-1]
    tuned = {
        **COMMON,
        "TASK": "ssl_eval",
        "MODEL.MODEL_NAME": "MViT",
        "TRAIN.CHECKPOINT_FILE_PATH": checkpoint,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
        "SOLVER.BASE_LR": 1e-30,  # which leaves the weights as they are
        "SOLVER.WARMUP_START_LR": 0.0,
        "SOLVER.MAX_EPOCH": 1,
    }
    # Two processes, which must not wait for the gradient of the mask token.
    done = _run(data, tmp_path, environment, tuned, torchrun=True)
    assert done.returncode == 0, done.stderr
    assert "100.0% of the backbone" in done.stderr
    found = load_checkpoint(find_checkpoints(tmp_path / "checkpoints", "ssl_eval")[-1])
    source = load_checkpoint(checkpoint)
    name = "backbone.patches.weight"
    expected = source["model_state"][name]
    if scalar == "agreement":
        expected = source["task_state"][f"teacher.network.{name}"]
        assert not expected.equal(source["model_state"][name])
    assert found["model_state"][name].equal(expected)


def test_a_checkpoint_does_not_import_modules(method, environment, tmp_path):
    _, _, whole = method
    code = (
        "import sys\n"
        "from slowfast_maskfeat import from_pretrained\n"
        "try:\n"
        f"    from_pretrained({str(whole)!r})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print('toylab' in sys.modules)\n"
        f"model = from_pretrained({str(whole)!r}, overrides=['IMPORTS', 'toylab'])\n"
        "print(type(model).__name__, model.cfg.TOY.WIDTH)\n"
    )
    python = command(tmp_path, tmp_path)[0]
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    refused, imported, trusted = done.stdout.strip().splitlines()
    assert "IMPORTS ['toylab']" in refused
    assert imported == "False"
    assert trusted.endswith(" 12")


def test_a_module_that_is_not_there_is_one_error(data, environment, tmp_path):
    done = _run(data, tmp_path, environment, {**MASKED, "IMPORTS": ["no_such_module"]})
    assert done.returncode == 2
    assert "IMPORTS" in done.stderr
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr


def test_our_own_method_of_views_trains_and_fine_tunes_its_backbone(data, environment, tmp_path):
    """The backbone has no tables of positions, so that its checkpoint has no grid of them."""
    views = {
        "MODEL.MODEL_NAME": "ContrastiveModel",
        "CONTRASTIVE.TYPE": "byol",
        "CONTRASTIVE.DIM": 8,
        "CONTRASTIVE.MLP_DIM": 16,
        "CONTRASTIVE.NUM_MLP_LAYERS": 2,
        "CONTRASTIVE.PREDICTOR_DEPTHS": [2],
        "DATA.TRAIN_CROP_NUM_TEMPORAL": 2,
    }
    done = _run(data, tmp_path, environment, {**COMMON, **views})
    assert done.returncode == 0, done.stderr
    assert _last(tmp_path)["token_grid"] == []
    start = find_checkpoints(tmp_path / "checkpoints", "ssl")[-1]
    fine = {
        "TASK": "",
        "MODEL.MODEL_NAME": "MViT",
        "MODEL.NUM_CLASSES": 3,
        "TRAIN.CHECKPOINT_FILE_PATH": start,
        "TRAIN.CHECKPOINT_EPOCH_RESET": True,
    }
    done = _run(data, tmp_path / "fine", environment, {**COMMON, **fine})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fine" / "curves.png").is_file()
