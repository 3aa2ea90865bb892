"""tools/run_net.py: what it says of weights that do not fit, and which words are files."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.load_tool import run_tool
from helpers.tiny_run import MODEL, make_videos, pairs

from slowfast_maskfeat.builders import build_model
from slowfast_maskfeat.checkpoints import save_checkpoint
from slowfast_maskfeat.config import load_config


def test_weights_that_do_not_fit_are_told_by_a_table_and_a_line(tmp_path: Path) -> None:
    model = build_model(load_config([], pairs(MODEL, {"MODEL.NUM_CLASSES": 3})))
    path = save_checkpoint(tmp_path / "three.pyth", {"model_state": model.state_dict()})
    further = {
        "DATA.PATH_TO_DATA_DIR": make_videos(tmp_path, num_videos=2, num_classes=7),
        "MODEL.NUM_CLASSES": 7,
        "TRAIN.ENABLE": False,
        "TEST.CHECKPOINT_FILE_PATH": path,
        "OUTPUT_DIR": tmp_path,
    }
    done = run_tool("tools/run_net.py", "--cfg", *pairs(MODEL, further))
    assert done.returncode == 2
    _, first, *_, classifier, line = done.stderr.splitlines()
    assert first == f"weights from {path}"
    assert classifier.endswith("the file has 3 classes, the model 7")
    assert line.startswith(f"error: {path} does not fill the whole model, which testing needs")


@pytest.mark.parametrize("ending", ["yaml", "YAML", "Yml"])
@pytest.mark.parametrize("tool", ["run_net", "model_info"])
def test_yaml_files_are_recognized_in_any_case(ending, tool, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_text("TRAIN: {BATCHSIZE: 3}\n")
    done = run_tool(f"tools/{tool}.py", "--cfg", str(path), "TASK", "x")
    assert done.returncode == 2
    assert f"{path}: unknown key 'TRAIN.BATCHSIZE'; did you mean TRAIN.BATCH_SIZE" in done.stderr
