"""Trained models as files that run without this package: torch.export and ONNX."""

from __future__ import annotations

import importlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fvcore.common.config import CfgNode
from numpy.typing import NDArray
from torch import Tensor, nn

from slowfast_maskfeat.builders.datasets import reverses_channels
from slowfast_maskfeat.builders.image_recipe import clip_recipe
from slowfast_maskfeat.builders.methods import build_task
from slowfast_maskfeat.files import atomic_write
from slowfast_maskfeat.tasks import Classification, Detection

FORMATS = {"torch-export": ".pt2", "onnx": ".onnx"}
"""Formats, and the suffix of their files."""

TOLERANCE = 2e-5
"""Largest accepted difference of an output from torch's, absolute and relative to the largest."""

BATCH_SIZES = (1, 2, 5)  # that are compared
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MAX_ONNX_BYTES = 2**31  # of a file in protobuf's format
_NUM_TIMED = 5
_DIMENSIONS = {"clips": "batch", "boxes": "boxes"}  # inputs, and their first dimension
_BOXES_PER_CLIP = 2  # of the inputs that are compared

Arrays = tuple[Tensor, ...]


class Comparison(NamedTuple):
    """The file against the model that it was made of.

    Attributes:
        largest_difference: of any output, relative to the largest output, or absolute if that is
            below 1.
        milliseconds: median time of a batch of one clip, by the file.
        torch_milliseconds: the same by the model.
    """

    largest_difference: float
    milliseconds: float
    torch_milliseconds: float


class ExportedFile(NamedTuple):
    """A file that `export_model` wrote.

    Attributes:
        path: of the file.
        format: one of `FORMATS`.
        inputs: name -> shape and type; "batch" and "boxes" are any number.
        output: name, shape and type.
        opset: of ONNX; 0 for torch-export.
        comparison: with the model.
    """

    path: Path
    format: str
    inputs: dict[str, str]
    output: str
    opset: int
    comparison: Comparison


class _Deployed(nn.Module):
    """A model from the clips that a program has to the numbers that it needs.

    Args:
        model: in evaluation mode.
        task: of the model.
        has_preprocessing: take uint8 RGB and return probabilities, instead of normalized clips in
            the model's order of channels and logits.
        reverses: the model's channels are blue, green, red.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Classification | Detection,
        *,
        has_preprocessing: bool,
        reverses: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self._logits = task.logits
        self._activation = task.activation
        self._has_preprocessing = has_preprocessing
        self._reverses = reverses

    def forward(self, clips: Tensor, boxes: Tensor | None = None) -> Tensor:
        """(B, C, T, H, W), and of detectors boxes (R, 5) -> (B, K) or (R, K)."""
        if self._has_preprocessing and self._reverses:
            clips = clips.flip(1)
        further = () if boxes is None else (boxes,)
        logits = self._logits(self.model, clips, *further)
        return self._activation(logits) if self._has_preprocessing else logits


def export_model(
    model: nn.Module,
    path: Path,
    *,
    file_format: str,
    has_preprocessing: bool = False,
    report: Callable[[str], None] = lambda step: None,
) -> ExportedFile:
    """Write a model to a file, and compare the file with the model on random clips.

    The file takes any number of clips, and of boxes; the size of a clip is fixed.

    Args:
        model: a classifier or detector from `from_pretrained`, on the CPU.
        path: of the file; it is written whole, and only if its outputs are those of the model.
        file_format: one of `FORMATS`.
        has_preprocessing: the file takes uint8 clips in RGB, normalizes them and returns
            probabilities; otherwise it takes normalized clips and returns logits.
        report: receives a line about each step.

    Returns:
        The file, its inputs and the comparison.

    Raises:
        ValueError: torch is older than 2.7, the model is no classifier or detector, a package is
            missing (the message has the command that installs it), torch or ONNX can't express the
            model, or the outputs of the file differ.
    """
    if not hasattr(torch.compiler, "is_exporting"):
        raise ValueError(f"export requires torch 2.7 or newer, got {torch.__version__}")
    if file_format == "onnx":
        _require_onnx()
    cfg: CfgNode = model.cfg
    deployed, of_boxes = _deploy(cfg, model, has_preprocessing=has_preprocessing)
    examples = {
        size: _example(cfg, size, of_boxes=of_boxes, is_uint8=has_preprocessing)
        for size in BATCH_SIZES
    }
    report("tracing")
    program = _trace(deployed, examples[2])
    facts = _facts(cfg, model, has_preprocessing=has_preprocessing)
    opset = 0
    with atomic_write(path) as part:
        if file_format == "onnx":
            report("converting to ONNX")
            opset = _save_onnx(program, examples[2], part, facts)
            run = _onnx_runner(part)
        else:
            with open(part, "wb") as file:
                torch.export.save(program, file, extra_files={"facts.json": json.dumps(facts)})
            run = _torch_runner(part)
        report("comparing")
        comparison = _compare(deployed, run, examples, path)
    inputs, output = _interface(examples[1], facts)
    return ExportedFile(path, file_format, inputs, output, opset, comparison)


def _deploy(cfg: CfgNode, model: nn.Module, *, has_preprocessing: bool) -> tuple[_Deployed, bool]:
    """Return the model as the file has it, and whether it takes boxes.

    Raises:
        ValueError: it is no classifier or detector.
    """
    task = build_task(cfg, model)
    if not isinstance(task, (Classification, Detection)):
        raise ValueError(
            f"only classifiers and detectors can be exported, got {type(model).__name__}; "
            "fine-tune a pre-trained model first"
        )
    reverses = reverses_channels(cfg, "test")
    deployed = _Deployed(model, task, has_preprocessing=has_preprocessing, reverses=reverses)
    return deployed.eval(), isinstance(task, Detection)


def _interface(example: Arrays, facts: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Describe the inputs and the output of a file.

    Args:
        example: inputs for one clip.
        facts: see `_facts`.
    """
    size = ", ".join(map(str, example[0].shape[1:]))
    kind = "uint8, RGB" if facts["preprocessing"] else "float32, normalized"
    inputs, rows = {"clips": f"(batch, {size}) {kind}"}, "batch"
    if len(example) == 2:
        inputs["boxes"], rows = "(boxes, 5) float32: clip, x1, y1, x2, y2 in pixels", "boxes"
    return inputs, f"{facts['output']} ({rows}, {facts['num_classes']}) float32"


def _require_onnx() -> None:
    missing = []
    for name in _ONNX_PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ValueError(
            f"the format onnx requires {', '.join(missing)}: "
            "pip install 'slowfast_maskfeat[export]'"
        )


def _example(cfg: CfgNode, num_clips: int, *, of_boxes: bool, is_uint8: bool) -> Arrays:
    """Random inputs: clips, and of detectors boxes."""
    generator = torch.Generator().manual_seed(num_clips)
    size, channels = cfg.DATA.TEST_CROP_SIZE, cfg.DATA.INPUT_CHANNEL_NUM[0]
    shape = (num_clips, channels, cfg.DATA.NUM_FRAMES, size, size)
    if is_uint8:
        clips = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    else:
        clips = torch.randn(shape, generator=generator)
    if not of_boxes:
        return (clips,)
    corners = torch.rand(num_clips * _BOXES_PER_CLIP, 2, 2, generator=generator)
    begin, end = corners.amin(1), corners.amax(1)
    index = torch.arange(num_clips).repeat_interleave(_BOXES_PER_CLIP)[:, None].float()
    boxes = torch.cat((index, size * begin, size * torch.maximum(end, begin + 0.1)), dim=1)
    return clips, boxes


def _trace(deployed: nn.Module, example: Arrays) -> torch.export.ExportedProgram:
    names = list(_DIMENSIONS.values())[: len(example)]
    dims: list[dict[int, Any]] = [{0: torch.export.Dim(name, min=1)} for name in names]
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(deployed, example, dynamic_shapes=tuple(dims))
    except Exception as error:  # torch raises errors of many types for what it can't express
        raise ValueError(f"torch can't export this model: {_first_line(error)}") from error


def _save_onnx(
    program: torch.export.ExportedProgram, example: Arrays, path: Path, facts: dict[str, Any]
) -> int:
    """Write an ONNX file; returns its opset."""
    num_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if num_bytes >= _MAX_ONNX_BYTES:
        raise ValueError(
            f"an ONNX file must be below 2 GiB, got weights of {num_bytes / 2**30:.1f} GiB; use "
            "the format torch-export"
        )
    names = list(_DIMENSIONS)[: len(example)]
    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                example,
                dynamo=True,
                input_names=names,
                output_names=["output"],
                # Names alone; which dimensions vary is in the program.
                dynamic_shapes=tuple({0: _DIMENSIONS[name]} for name in names),
                verbose=False,
            )
    except Exception as error:  # as above
        raise ValueError(f"ONNX can't express this model: {_first_line(error)}") from error
    assert converted is not None
    converted.model.metadata_props["facts"] = json.dumps(facts)
    converted.save(str(path))
    return int(converted.model.opset_imports[""])


def _onnx_runner(path: Path) -> Callable[[Arrays], NDArray[np.float32]]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(inputs: Arrays) -> NDArray[np.float32]:
        arrays = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        output: NDArray[np.float32] = session.run(None, arrays)[0]
        return output

    return run


def _torch_runner(path: Path) -> Callable[[Arrays], NDArray[np.float32]]:
    with open(path, "rb") as file:
        program = torch.export.load(file).module()

    def run(inputs: Arrays) -> NDArray[np.float32]:
        with torch.no_grad():
            output: NDArray[np.float32] = program(*inputs).numpy()
        return output

    return run


@torch.no_grad()
def _compare(
    deployed: nn.Module,
    run: Callable[[Arrays], NDArray[np.float32]],
    examples: dict[int, Arrays],
    path: Path,
) -> Comparison:
    largest = 0.0
    for size, inputs in examples.items():
        expected = deployed(*inputs).numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(run(inputs) - expected).max()) / scale
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path}: outputs for {size} clips differ from the model's by {difference:.1e}, "
                f"more than {TOLERANCE:g}; nothing was written"
            )
    return Comparison(
        largest,
        _median_milliseconds(lambda: run(examples[1])),
        _median_milliseconds(lambda: deployed(*examples[1])),
    )


def _median_milliseconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_NUM_TIMED):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def _facts(cfg: CfgNode, model: nn.Module, *, has_preprocessing: bool) -> dict[str, Any]:
    """Facts for the program that runs the file: how to prepare clips, and what the output is."""
    recipe = clip_recipe(cfg)
    names: Sequence[str] = getattr(model, "class_names", ())
    data = cfg.DATA
    has_scores = has_preprocessing and cfg.MODEL.HEAD_ACT != "none"
    return {
        "class_names": list(names),
        "num_classes": int(cfg.MODEL.NUM_CLASSES),
        "clip": [int(data.NUM_FRAMES), int(data.TEST_CROP_SIZE), int(data.TEST_CROP_SIZE)],
        "sampling_rate": int(data.SAMPLING_RATE),
        "target_fps": float(data.TARGET_FPS),
        "interpolation": str(recipe.interpolation),
        "mean": list(map(float, data.MEAN)),
        "std": list(map(float, data.STD)),
        "channels": "RGB" if has_preprocessing or not reverses_channels(cfg, "test") else "BGR",
        "preprocessing": has_preprocessing,
        "output": "probabilities" if has_scores else "logits",
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch says of its own parts while it exports."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
