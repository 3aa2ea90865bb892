"""Exported models: any number of clips and boxes, the model's outputs, and clear errors."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from helpers.load_tool import ROOT
from helpers.tiny_run import FINETUNING, MODEL, PRETRAINING, pairs

from slowfast_maskfeat import build_model, build_task, load_config
from slowfast_maskfeat.augment import normalize
from slowfast_maskfeat.commands.main import main
from slowfast_maskfeat.runs import export
from slowfast_maskfeat.runs.export import export_model
from slowfast_maskfeat.runs.pretrained import save_pretrained

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None,
    reason="needs the extra `export`",
)
CLS = {"MVIT.CLS_EMBED_ON": True, "MVIT.USE_MEAN_POOLING": False}
DETECTOR = {
    "DETECTION.ENABLE": True,
    "DETECTION.ROI_XFORM_RESOLUTION": 2,
    "MODEL.HEAD_ACT": "sigmoid",
    "MODEL.LOSS_FUNC": "bce",
    "TRAIN.DATASET": "ava",
    "TEST.DATASET": "ava",
}
FORMATS = ["torch-export", pytest.param("onnx", marks=needs_onnx)]


@pytest.fixture(autouse=True)
def _own_command_line(monkeypatch):
    """A command names itself in it."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))


def _model(*options, seed=0):
    cfg = load_config([], pairs(MODEL, FINETUNING, *options))
    torch.manual_seed(seed)
    model = build_model(cfg).eval()
    model.cfg, model.class_names = cfg, ("run", "jump", "sit")
    return model


def _run(path, *inputs):
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [value.name for value in session.get_inputs()]
        return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]
    with torch.no_grad():
        return torch.export.load(path).module()(*inputs).numpy()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("options", [{}, CLS], ids=["mean", "class token"])
def test_any_number_of_clips_gives_the_logits_of_the_model(tmp_path, file_format, options):
    model = _model(options)
    path = tmp_path / f"model{export.FORMATS[file_format]}"
    made = export_model(model, path, file_format=file_format)
    assert made.comparison.largest_difference <= export.TOLERANCE
    assert made.inputs == {"clips": "(batch, 3, 4, 32, 32) float32, normalized"}
    for size in (1, 3, 7):
        clips = torch.randn(size, 3, 4, 32, 32)
        with torch.no_grad():
            expected = model(clips).numpy()
        np.testing.assert_allclose(_run(path, clips), expected, atol=2e-5)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("reverses", [False, True])
def test_with_preprocessing_pixels_give_probabilities(tmp_path, file_format, reverses):
    model = _model({"DATA.REVERSE_INPUT_CHANNEL": reverses, "DATA.MEAN": [0.1, 0.3, 0.5]})
    path = tmp_path / f"model{export.FORMATS[file_format]}"
    made = export_model(model, path, file_format=file_format, has_preprocessing=True)
    assert made.output == "probabilities (batch, 3) float32"
    clips = torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8)
    in_order = clips.flip(1) if reverses else clips
    task = build_task(model.cfg, model)
    with torch.no_grad():
        expected = model(normalize(in_order, task.mean, task.std)).softmax(1).numpy()
    np.testing.assert_allclose(_run(path, clips), expected, atol=2e-5)
    np.testing.assert_allclose(expected.sum(1), 1, atol=1e-5)


def test_a_model_without_an_activation_gives_logits(tmp_path):
    path, model = tmp_path / "model.pt2", _model({"MODEL.HEAD_ACT": "none"})
    made = export_model(model, path, file_format="torch-export", has_preprocessing=True)
    assert made.output == "logits (batch, 3) float32"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_detector_takes_any_number_of_boxes(tmp_path, file_format):
    model = _model(DETECTOR)
    path = tmp_path / f"model{export.FORMATS[file_format]}"
    made = export_model(model, path, file_format=file_format)
    assert list(made.inputs) == ["clips", "boxes"]
    clips = torch.randn(3, 3, 4, 32, 32)
    for boxes in ([[0, 1, 2, 20, 30]], [[2, 0, 0, 31, 31], [0, 5, 5, 9, 9], [1, 3, 0, 30, 12.0]]):
        rows = torch.tensor(boxes, dtype=torch.float32)
        with torch.no_grad():
            expected = model(clips, rows).numpy()
        np.testing.assert_allclose(_run(path, clips, rows), expected, atol=2e-5)


def test_a_file_whose_outputs_differ_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    right = export._torch_runner
    monkeypatch.setattr(
        export, "_torch_runner", lambda part: lambda inputs: right(part)(inputs) + 1e-3
    )
    with pytest.raises(ValueError, match="differ from the model's by 1"):
        export_model(_model(), path, file_format="torch-export")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_the_file_takes_and_returns(tmp_path, capsys):
    save_pretrained(_model(CLS), tmp_path / "model")
    path = tmp_path / "out" / "model.pt2"
    words = ["export", "--checkpoint", str(tmp_path / "model"), "--output", str(path)]
    assert main([*words, "--preprocessing"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "input clips (batch, 3, 4, 32, 32) uint8, RGB"
    assert printed[1] == "output probabilities (batch, 3) float32"
    assert printed[-1] == f"wrote {path}"
    facts = {"facts.json": ""}
    torch.export.load(path, extra_files=facts)
    assert json.loads(facts["facts.json"])["class_names"] == ["run", "jump", "sit"]
    assert main(words) == 2
    assert "must not exist, got the existing file" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0


@pytest.mark.parametrize(
    ("output", "said"),
    [("model.txt", "must end in .pt2 or .onnx"), ("model.pt2", "only classifiers and detectors")],
)
def test_what_can_not_be_exported_is_one_error(tmp_path, capsys, output, said):
    cfg = load_config([], pairs(MODEL, PRETRAINING))
    model = build_model(cfg)
    model.cfg = cfg
    save_pretrained(model, tmp_path / "model")
    words = ["export", "--checkpoint", str(tmp_path / "model"), "--output", str(tmp_path / output)]
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / output).exists()


def test_a_suffix_of_another_format_is_refused(tmp_path, capsys):
    path = tmp_path / "c.onnx"
    words = ["export", "--checkpoint", "none", "--output", str(path)]
    assert main([*words, "--format", "torch-export"]) == 2
    said = capsys.readouterr().err
    assert "must not end in .onnx, which is the format onnx, with --format torch-export" in said
    assert "leave out --format, or name it c.pt2" in said
    assert not path.exists()


@needs_onnx
@pytest.mark.parametrize("options", [{}, DETECTOR], ids=["clips", "boxes"])
def test_the_dimensions_that_vary_have_names_in_onnx(tmp_path, options):
    import onnx

    path = tmp_path / "model.onnx"
    export_model(_model(options), path, file_format="onnx")
    graph = onnx.load(path).graph
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    if options:
        assert shapes["boxes"] == ["boxes", 5]
    assert shapes["clips"] == ["batch", 3, 4, 32, 32]
    assert shapes["output"] == ["boxes" if options else "batch", 3]


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ONNX_PACKAGES", ("no_such_package",))
    with pytest.raises(ValueError, match=r"no_such_package: pip install 'slowfast_maskfeat\[exp"):
        export_model(_model(), tmp_path / "model.onnx", file_format="onnx")


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["k400_MVITv2_S_16x4_FT", "in1k_VIT_B_MaskFeat_FT"])
def test_published_networks_are_the_same_in_onnx(tmp_path, name):
    """At their full sizes, and 1, 2 and 5 clips, which the export compares."""
    cfg = load_config([str(ROOT / f"configs/masked_ssl/{name}.yaml")])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    model.cfg = cfg
    made = export_model(model, tmp_path / "model.onnx", file_format="onnx")
    assert export.BATCH_SIZES == (1, 2, 5)
    assert made.comparison.largest_difference <= 2e-5
