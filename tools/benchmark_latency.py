"""Latency of a classifier for one clip, for `benchmark.py`: by torch, compiled, and as ONNX.

The networks have random weights, which cost what trained ones do.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from benchmark_report import Table, take_turns
from fvcore.common.config import CfgNode
from torch import nn

from slowfast_maskfeat.backbones import compiled
from slowfast_maskfeat.builders.methods import build_model
from slowfast_maskfeat.runs.export import export_model

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = (
    ROOT / "configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml",
    ROOT / "configs/masked_ssl/in1k_VIT_B_MaskFeat_FT.yaml",
)
QUICK_CONFIGS = (ROOT / "configs/demo/finetune.yaml",)
ONNX, COMPILED, PLAIN = "onnxruntime", "torch, compiled", "torch"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CPU = torch.device("cpu")


def measure_latency(file: Path, cfg: CfgNode, repeats: int, *, backend: str = "inductor") -> Table:
    """Time of one clip on the CPU, in all forms.

    Args:
        file: YAML file of the configuration, for the title.
        cfg: configuration of a classifier.
        repeats: number of timed rounds.
        backend: of torch.compile.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    data = cfg.DATA
    size = (data.NUM_FRAMES, data.TEST_CROP_SIZE, data.TEST_CROP_SIZE)
    clip = torch.randn(1, data.INPUT_CHANNEL_NUM[0], *size)
    fast = compiled(model, "model", backend=backend)
    forms: dict[str, Callable[[int], object]] = {}
    if all(map(find_spec, PACKAGES)):
        session = _session(model)
        inputs = {session.get_inputs()[0].name: clip.numpy()}
        forms[ONNX] = lambda _: session.run(None, inputs)
    else:
        print(f"no row for {ONNX}: pip install 'slowfast_maskfeat[export]'")
    forms[COMPILED] = lambda _: _predict(fast, clip)
    forms[PLAIN] = lambda _: _predict(model, clip)  # the baseline last
    rows = take_turns(forms, repeats, CPU)
    title = f"{file.stem}, one clip of {'x'.join(map(str, size))}, float32, cpu: latency"
    return Table("latency", title, list(rows.values()))


@torch.no_grad()
def _predict(model: nn.Module, clip: torch.Tensor) -> object:
    return model(clip)


def _session(model: nn.Module) -> Any:
    """Session of onnxruntime, with as many threads as torch."""
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_model(model, path, file_format="onnx")
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
