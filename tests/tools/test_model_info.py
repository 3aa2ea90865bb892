"""tools/model_info.py: the table, the JSON file, the views of a test, and wrong input."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import tiny_run
from helpers.load_tool import Done, run_tool
from helpers.published_files import SHIPPED_CONFIGS
from helpers.tiny_run import ROOT, pairs
from helpers.tiny_teachers import networks_of
from torch import nn

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.config import load_config

SMALL = pairs(tiny_run.MODEL, {"MODEL.NUM_CLASSES": 3})


@pytest.fixture
def model_info():
    """Calls the tool in this process: words -> code, output, errors."""

    def call(*words: str) -> Done:
        return run_tool("tools/model_info.py", *words)

    return call


def test_the_table_adds_up(model_info, tmp_path):
    path = tmp_path / "folder" / "info.json"
    code, output, errors = model_info("--cfg", *SMALL, "--json", str(path))
    assert (code, errors) == (0, "")
    content = json.loads(path.read_text())
    assert list(path.parent.iterdir()) == [path]
    cost, parts = content["complexity"], content["complexity"]["parts"]
    names = ["patch_embed", "blocks.0", "blocks.1", "rest"]
    assert [part["name"] for part in parts] == names
    for figure in ("num_parameters", "multiply_adds", "attention"):
        assert sum(part[figure] for part in parts) == cost[figure]
    assert sum(cost["by_operator"].values()) == cost["multiply_adds"]
    block = parts[1]  # it pools its queries by 2 along rows and columns, so the keys no more
    assert (block["grid_in"], block["grid_out"]) == ([2, 8, 8], [2, 4, 4])
    assert block["geometry"]["stride_q"] == [1, 2, 2]
    rows = [line.split() for line in output.splitlines()]
    assert [row[0] for row in rows[1:5]] == names
    assert rows[2][1:8] == ["2x8x8", "2x4x4", "8", "8", "1", "1x2x2", "1x1x1"]
    assert rows[5][0] == "total"
    assert float(rows[5][2]) == pytest.approx(cost["multiply_adds"] / 1e9, abs=1e-3)
    assert "for a clip of 4x32x32" in output
    assert "positions: relative in time; relative in space" in output
    assert "gelu 2" in output  # what is not counted is said


def test_a_test_costs_its_views(model_info, tmp_path):
    path = tmp_path / "info.json"
    options = ["TEST.NUM_TEMPORAL_CLIPS", "[1, 5]", "TEST.NUM_SPATIAL_CROPS", "3"]
    _, output, _ = model_info("--cfg", *SMALL, *options, "--json", str(path))
    content = json.loads(path.read_text())
    view = content["complexity"]["multiply_adds"]
    assert [test["multiply_adds"] for test in content["inference"]] == [3 * view, 15 * view]
    lines = [line for line in output.splitlines() if line.startswith("inference: ")]
    assert [line.split(" = ")[0].split(" x ")[1:] for line in lines] == [["1", "3"], ["5", "3"]]


def test_published_figures_of_a_test_are_of_its_size(model_info, tmp_path):
    path = tmp_path / "info.json"
    options = [*SMALL, "DATA.TEST_CROP_SIZE", "64", "--json", str(path)]
    _, output, _ = model_info("--cfg", *options)
    train = json.loads(path.read_text())
    assert "--test-size" in output
    assert train["inference"] == []
    _, output, _ = model_info("--cfg", *options, "--test-size")
    test = json.loads(path.read_text())
    assert "for a clip of 4x64x64" in output
    assert test["clip_size"] == [4, 64, 64]
    convolutions = [info["complexity"]["by_operator"]["conv"] for info in (train, test)]
    assert convolutions[1] == pytest.approx(4 * convolutions[0], rel=1e-6)
    assert test["inference"][0]["num_clips"] == 2


def test_pre_training_has_a_mask_and_no_test(model_info):
    words = ["--cfg", *SMALL, *pairs(tiny_run.PRETRAINING)]
    code, output, _ = model_info(*words)
    assert code == 0
    assert "% of them masked" in output
    assert "inference" not in output
    code, _, errors = model_info(*words, "--test-size")
    assert code == 2
    assert "pre-training, which has no test" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", SHIPPED_CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs"))
)
def test_every_configuration_has_its_table(path, model_info, tmp_path):
    code, output, errors = model_info("--cfg", str(path), *networks_of([str(path)], tmp_path))
    assert (code, errors) == (0, "")
    assert "total" in output


@pytest.mark.parametrize("kind", ["vq", "dvae"])
def test_a_tokenizer_is_counted_frame_by_frame(model_info, tmp_path, kind):
    words = [*SMALL, "MODEL.MODEL_NAME", "Tokenizer", "TOKENIZER.TYPE", kind]
    words += ["TOKENIZER.WIDTHS", "[4, 8]", "TOKENIZER.NUM_CODES", "16"]
    path = tmp_path / "info.json"
    code, output, errors = model_info("--cfg", *words, "--json", str(path))
    assert (code, errors) == (0, "")
    content = json.loads(path.read_text())
    assert content["grid"] == [4, 8, 8]
    cfg = load_config([], words)
    model = build_model(cfg)
    convolutions = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.register_forward_hook(
                lambda module, inputs, made: convolutions.append(
                    module.weight.numel()
                    * min(inputs[0].shape[2] * inputs[0].shape[3], made.shape[2] * made.shape[3])
                )
            )
    model.decode(model.encode(torch.rand(1, 3, 32, 32)))
    counted = content["complexity"]["by_operator"]["conv"]
    assert counted == 4 * sum(convolutions)
    assert "tokens: 4x8x8" in output


def test_what_is_wrong_is_one_line_and_code_2(model_info, tmp_path):
    for words, expected in (
        (["MVIT.EMBED_DIM", "17", "MVIT.NUM_HEADS", "2"], "17 is not divisible by its 2 heads"),
        (["MVIT.DEPHT", "3"], "MVIT.DEPTH"),
        (["--json", str(tmp_path)], str(tmp_path)),
    ):
        code, output, errors = model_info("--cfg", *SMALL, *words)
        assert (code, output) == (2, "")
        assert errors.startswith("error: ")
        assert expected in errors
        assert errors.count("\n") == 1


def test_it_needs_no_data(model_info, tmp_path):
    words = [*SMALL, "DATA.PATH_TO_DATA_DIR", str(tmp_path / "nowhere")]
    code, output, errors = model_info("--cfg", *words)
    assert (code, errors) == (0, "")
    assert "parameters" in output
