"""Evaluation on a GPU: no chunk waits for the results of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.ava_data import make_ava
from helpers.load_tool import load_tool
from helpers.tiny_run import FINETUNING, MODEL, make_videos, pairs

from slowfast_maskfeat.builders import DataSource, build_loader, build_model, build_task
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.config import load_config

traffic = load_tool("tools/benchmark_traffic.py")


def _boxes(device: torch.device) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.zeros(3, 5, device=device),
        "labels": torch.zeros(3, 3, device=device),
        "box_index": torch.zeros(3, dtype=torch.int64, device=device),
    }


def _labels(device: torch.device) -> dict[str, torch.Tensor]:
    return {"labels": torch.zeros(2, dtype=torch.int64, device=device)}


@pytest.mark.parametrize(
    ("make", "keys", "fields"),
    [
        (make_videos, FINETUNING, _labels),
        (make_ava, {"MODEL.NUM_CLASSES": 4, "MVIT.CLS_EMBED_ON": False}, _boxes),
    ],
    ids=["classification", "detection"],
)
def test_evaluation_reads_no_chunk(tmp_path: Path, make, keys, fields) -> None:
    made = make(tmp_path)
    keys = {**MODEL, **keys, **(made if isinstance(made, dict) else {})}
    cfg = load_config([], pairs(keys, {"DATA.PATH_TO_DATA_DIR": tmp_path}))
    data = DataSource(cfg)
    model = build_model(cfg, data=data).eval()
    task = build_task(cfg, model, data=data)
    evaluation = task.evaluation(build_loader(cfg, "val", data=data).dataset.videos, 1)
    gpu = traffic.FakeGpu()
    gpu.move(model)
    gpu.move(task)

    def evaluate(_: int) -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            for number in range(3):
                clips = torch.zeros((2, 3, 4, 32, 32), dtype=torch.uint8, device=traffic.DEVICE)
                index, view = torch.tensor([0, 1]) + number, torch.zeros(2, dtype=torch.int64)
                others = fields(traffic.DEVICE)
                evaluation.add(model, ClipBatch(clips, index=index, view=view, **others))

    counts = gpu.count(evaluate, model)
    assert counts["forward"]["matrix products"].launches > 0
    with pytest.raises(traffic.WaitError):  # the whole is read at last
        gpu.count(lambda _: evaluation.merge(lambda tensor, _: tensor), model)
