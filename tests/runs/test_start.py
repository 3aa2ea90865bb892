"""A training that Python code starts is that of the command, and its result is usable."""

from __future__ import annotations

import pytest
import torch
from helpers.load_tool import ROOT
from helpers.tiny_run import FINETUNING, MODEL, copy_lists, events, losses, make_videos, run

from slowfast_maskfeat import Predictor, from_pretrained, train
from slowfast_maskfeat.checkpoints import load_checkpoint

OPTIONS = {**MODEL, **FINETUNING, "SOLVER.MAX_EPOCH": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_videos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train("demo/finetune", data=data, output=tmp_path_factory.mktemp("run"), **OPTIONS)


def test_the_losses_are_those_of_the_command(data, trained, tmp_path):
    done = run(data, tmp_path, FINETUNING, {"SOLVER.MAX_EPOCH": 1, "TEST.ENABLE": True})
    assert done.returncode == 0, done.stderr
    same = train([], data=data, output=tmp_path / "same", **OPTIONS)
    assert losses(same.folder) == losses(tmp_path)
    assert len(losses(trained.folder)) == 3


def test_the_result_has_the_test_and_a_checkpoint_to_use(data, trained):
    (test,) = events(trained.folder, "test")
    assert trained.results["top1"] == test["top1"]
    assert trained.checkpoint.parent == trained.folder / "checkpoints"
    assert Predictor(trained.checkpoint)(data / "1.mp4").labels[0].startswith("class ")


def test_the_same_call_resumes_and_another_trains_on(data, trained, tmp_path):
    again = train("demo/finetune", data=data, output=trained.folder, **OPTIONS)
    assert again.checkpoint == trained.checkpoint
    assert len(losses(trained.folder)) == 3
    further = train(
        "demo/finetune",
        data=data,
        output=tmp_path,
        checkpoint=trained.checkpoint,
        **{**OPTIONS, "TEST.ENABLE": False},
    )
    (start,) = events(further.folder, "start")
    assert start["started_from"] == str(trained.checkpoint)
    assert "top1" in further.results


def test_the_best_checkpoint_is_the_one_that_was_tested(data, tmp_path):
    lists = copy_lists(data, tmp_path / "lists")
    held_out = (data / "val.csv").read_text().splitlines(keepends=True)[:4]
    (lists / "val.csv").write_text("".join(held_out))
    best = {
        **OPTIONS,
        "SOLVER.MAX_EPOCH": 2,
        "SOLVER.BASE_LR": 1e-12,  # only the first validation is progress
        "SOLVER.WARMUP_START_LR": 0,
        "SOLVER.COSINE_END_LR": 0,
        "TRAIN.KEEP_BEST": "validation",
    }
    trained = train("demo/finetune", data=lists, output=tmp_path / "run", **best)
    assert trained.checkpoint.name.endswith("checkpoint_best.pyth")
    assert load_checkpoint(trained.checkpoint)["epoch"] == 0
    assert trained.results["checkpoint"] == str(trained.checkpoint)
    again = train("demo/finetune", data=lists, output=tmp_path / "run", **best)
    assert again.results["checkpoint"] == trained.results["checkpoint"]
    more = {**best, "SOLVER.MAX_EPOCH": 3, "TEST.ENABLE": False, "LOG_PERIOD": 10}
    longer = train("demo/finetune", data=lists, output=tmp_path / "run", **more)
    assert "num_views" not in longer.results


def test_an_older_test_is_not_the_result_of_a_longer_training(data, tmp_path):
    short = train("demo/finetune", data=data, output=tmp_path, **OPTIONS)
    assert "num_views" in short.results or short.results["checkpoint"] == str(short.checkpoint)
    more = {**OPTIONS, "SOLVER.MAX_EPOCH": 2, "TEST.ENABLE": False}
    longer = train("demo/finetune", data=data, output=tmp_path, **more)
    validation = events(tmp_path, "validation")[-1]
    assert longer.results == {name: x for name, x in validation.items() if name != "event"}
    again = train("demo/finetune", data=data, output=tmp_path, **more)  # nothing is left to train
    assert again.results == longer.results


@pytest.mark.parametrize("key", [{"TRAIN.ENABLE": False}, {"PROBE.KIND": "knn"}])
def test_what_is_no_training_is_an_error(data, tmp_path, key):
    with pytest.raises(
        ValueError, match=r"train\(\) needs TRAIN.ENABLE True and PROBE.KIND '', got"
    ):
        train("demo/finetune", data=data, output=tmp_path / "run", **{**OPTIONS, **key})
    assert not (tmp_path / "run").exists()


def test_keys_and_arguments_are_the_same(data, tmp_path):
    keys = {"DATA.PATH_TO_DATA_DIR": data, "OUTPUT_DIR": tmp_path, "TEST.ENABLE": False}
    trained = train("demo/finetune", **{**OPTIONS, **keys, "DATA.PATH_PREFIX": ""})
    assert trained.folder == tmp_path
    assert len(losses(tmp_path)) == 3


def test_an_error_is_one_that_a_user_can_fix(tmp_path):
    with pytest.raises(ValueError, match=r"unknown key 'SOLVER\.NO'"):
        train("demo/finetune", output=tmp_path / "run", **{"SOLVER.NO": 1})
    with pytest.raises(ValueError, match="must be a folder"):
        train("demo/finetune", data=tmp_path / "none", output=tmp_path / "run", **OPTIONS)


def test_torch_hub_loads_models_from_a_checkout(trained):
    model = torch.hub.load(str(ROOT), "from_pretrained", str(trained.checkpoint), source="local")
    expected = from_pretrained(trained.checkpoint).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    words = ("MODEL.NUM_CLASSES", "7", "MVIT.DEPTH", "2")
    network = torch.hub.load(str(ROOT), "network", "in1k_VIT_B_MaskFeat_FT", *words, source="local")
    assert network(torch.zeros(1, 3, 1, 224, 224)).shape == (1, 7)
