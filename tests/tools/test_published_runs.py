"""Published YAML values and weights, unchanged, through the command line (full-size models)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_rule import golden_array, golden_json, golden_npz, golden_randn, relative_error
from helpers.load_tool import Done, run_tool
from helpers.published_files import PUBLISHED, write_yaml
from helpers.tiny_run import events, make_videos, pairs

PRETRAINING = "masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT"
FINETUNING = "masked_ssl/k400_MVITv2_S_16x4_FT"
# What a machine without GPUs and with few clips needs of anybody.
SMALL = {
    "TRAIN.BATCH_SIZE": 2,
    "SOLVER.MAX_EPOCH": 1,
    "TRAIN.CHECKPOINT_PERIOD": 1,
    "DATA_LOADER.NUM_WORKERS": 0,
    "LOG_PERIOD": 1,
    "TEST.ENABLE": False,
}


def tool(name: str, *words: str | Path) -> Done:
    done = run_tool(f"tools/{name}.py", *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_videos(tmp_path_factory.mktemp("clips"), num_videos=2, num_classes=2)
    (folder / "val.csv").unlink()  # pre-training goes without, fine-tuning is not validated below
    return folder


@pytest.mark.slow
def test_published_files_pretrain_and_fine_tune(data: Path, tmp_path: Path) -> None:
    common = {**SMALL, "DATA.PATH_TO_DATA_DIR": data}
    file = write_yaml(tmp_path / "pt.yaml", PUBLISHED[PRETRAINING])
    done = tool("run_net", "--cfg", file, *pairs(common, {"OUTPUT_DIR": tmp_path / "pt"}))
    assert "NUM_GPUS" in done.stderr  # eight are asked for, none is there
    assert "SOLVER.WARMUP_EPOCHS should be below SOLVER.MAX_EPOCH" in done.stderr
    (event,) = events(tmp_path / "pt", "epoch")
    assert 0 < event["loss"] < 1
    (checkpoint,) = (tmp_path / "pt" / "checkpoints").iterdir()
    assert checkpoint.name == "ssl_checkpoint_epoch_00001.pyth"

    (data / "val.csv").write_text((data / "train.csv").read_text())
    start = {"TRAIN.CHECKPOINT_FILE_PATH": checkpoint, "OUTPUT_DIR": tmp_path / "ft"}
    file = write_yaml(tmp_path / "ft.yaml", PUBLISHED[FINETUNING])
    done = tool("run_net", "--cfg", file, *pairs(common, start))
    report = done.stderr[done.stderr.index("weights from") :]
    assert "pred_head.* (4)" in report
    assert "blocks.15.attn.rel_pos_h and 1 more: (27, 96) -> (13, 96)" in report
    assert "head.* (2)" in report
    (begun,) = events(tmp_path / "ft", "start")
    assert begun["started_from"] == str(checkpoint)
    assert np.isfinite(events(tmp_path / "ft", "epoch")[0]["loss"])


def golden_file(path: Path, experiment: str, seed_prefix: str = "") -> Path:
    """A checkpoint as the published code writes it, with the golden weights."""
    state = {
        name: torch.from_numpy(golden_array(name, seed_prefix, shape=tuple(shape)).copy())
        for name, shape in golden_json(f"models/{experiment}.json")["state"]
    }
    torch.save(
        {"epoch": 299, "model_state": state, "optimizer_state": {}, "cfg": "TASK: ssl"}, path
    )
    return path


@pytest.mark.slow
def test_published_weights_give_the_golden_logits(tmp_path: Path) -> None:
    """Pre-training weights onto a fine-tuning model, then its logits, all by commands."""
    pretrained = golden_file(tmp_path / "pt.pyth", "k400_MVITv2_S_16x4_MaskFeat_PT")
    before = golden_file(tmp_path / "before.pyth", "k400_MVITv2_S_16x4_FT", "dst:")
    config = write_yaml(tmp_path / "ft.yaml", PUBLISHED[FINETUNING])
    done = tool(
        "convert_checkpoint",
        *("--cfg", config, "--input", pretrained, "--onto", before),
        *("--output", tmp_path / "ft.pyth"),
    )
    assert "pred_head.* (4)" in done.stdout + done.stderr
    shape = golden_json("checkpoint/S_pt_to_ft.json")["input"]["shape"]
    np.save(tmp_path / "clips.npy", golden_randn(1000, tuple(shape)).numpy())
    tool(
        "predict",
        *("--cfg", config, "--checkpoint", tmp_path / "ft.pyth"),
        *("--clips", tmp_path / "clips.npy", "--logits", tmp_path / "logits.npy"),
    )
    expected = golden_npz("checkpoint/S_pt_to_ft.npz")["logits"]
    assert relative_error(np.load(tmp_path / "logits.npy"), expected) < 1e-5
