"""Cost of the model of a configuration, counted without data, a GPU or the computation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from slowfast_maskfeat.backbones import ContrastiveModel, IBOTOutputs, ViewOutputs
from slowfast_maskfeat.backbones.complexity import Complexity, count_complexity
from slowfast_maskfeat.backbones.geometry import Triple
from slowfast_maskfeat.backbones.meta_shapes import on_meta
from slowfast_maskfeat.builders.backbones import find_backbone
from slowfast_maskfeat.builders.data import num_clips_of_tests, num_crops
from slowfast_maskfeat.builders.data_source import DataSource
from slowfast_maskfeat.builders.methods import build_model, find_method
from slowfast_maskfeat.shapes import Grid
from slowfast_maskfeat.tokenizers import Tokenizer

_NUM_MASKS = 32  # to draw for the mean share of masked tokens


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Properties and cost of the model of a configuration.

    Attributes:
        model: MODEL.MODEL_NAME.
        clip_size: (T, H, W) of the input clip, in frames and pixels.
        grid: (t, h, w) of the patch tokens, or of the codes of a tokenizer.
        positions: description of the position embeddings.
        mask_ratio: mean fraction of masked patch tokens; None without a mask. The count is that of
            a mask near it.
        num_clips: clips per video in a test, one number for each test; empty in pre-training.
        num_crops: crops per clip in a test.
        is_test_size: whether the cost is counted at the crop size of the test.
        complexity: the counts, for one clip.
    """

    model: str
    clip_size: Triple
    grid: Triple
    positions: str
    mask_ratio: float | None
    num_clips: tuple[int, ...]
    num_crops: int
    is_test_size: bool
    complexity: Complexity

    def inference(self) -> list[dict[str, int]]:
        """Return the cost of testing one video: multiply-adds per view, clips, crops, and in total.

        Empty if the model is not counted at the crop size of the test, or is not tested.
        """
        if not self.is_test_size:
            return []
        view = self.complexity.multiply_adds
        return [
            {
                "multiply_adds_of_a_view": view,
                "num_clips": num_clips,
                "num_crops": self.num_crops,
                "multiply_adds": view * num_clips * self.num_crops,
            }
            for num_clips in self.num_clips
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as numbers, strings, lists and dicts."""
        fields = asdict(self)
        for part in fields["complexity"]["parts"]:
            geometry = part["geometry"]
            part["geometry"] = None if geometry is None else geometry._asdict()
        return {**fields, "inference": self.inference()}


def measure_model(
    cfg: CfgNode, *, test_size: bool = False, data: DataSource | None = None
) -> ModelInfo:
    """Count the cost of the model of a configuration.

    Args:
        cfg: configuration; not modified.
        test_size: count at DATA.TEST_CROP_SIZE, as published costs of tests are, instead of
            DATA.TRAIN_CROP_SIZE.
        data: see `build_model`.

    Returns:
        The counts for one clip, with a mask of AUG.MASK_RATIO if the model takes masks, and one box
        if it takes boxes.

    Raises:
        ValueError: the model can't be built, and the message names the key; or `test_size` in
            pre-training, which has no test.
    """
    method = find_method(cfg)
    if test_size and not method.is_tested:
        raise ValueError(
            "DATA.TEST_CROP_SIZE does not apply to pre-training, which has no test; count the "
            "model at DATA.TRAIN_CROP_SIZE"
        )
    with on_meta():
        model = build_model(cfg, data=data)
    size = cfg.DATA.TEST_CROP_SIZE if test_size else cfg.DATA.TRAIN_CROP_SIZE
    clip_size = (cfg.DATA.NUM_FRAMES, size, size)
    inputs = [torch.empty(1, cfg.DATA.INPUT_CHANNEL_NUM[0], *clip_size, device="meta")]
    mask, mask_ratio = _mask_and_ratio(cfg)
    if mask is not None:
        inputs.append(mask)
    elif method.has_boxes:
        inputs.append(torch.tensor([[0.0, 0.0, 0.0, size - 1.0, size - 1.0]]))
    if isinstance(model, Tokenizer):
        side = size // model.pixels_per_code
        grid, positions = Grid(cfg.DATA.NUM_FRAMES, side, side), "none"
        model = _FrameByFrame(model)
    else:
        if isinstance(model, ContrastiveModel):
            model = _OneView(model)
        kind = find_backbone(cfg)
        grid, positions = kind.first_grid(cfg, clip_size), kind.positions(cfg)
    return ModelInfo(
        model=cfg.MODEL.MODEL_NAME,
        clip_size=clip_size,
        grid=grid,
        positions=positions,
        mask_ratio=mask_ratio,
        num_clips=num_clips_of_tests(cfg) if method.is_tested else (),
        num_crops=num_crops(cfg, "test"),
        is_test_size=method.is_tested and size == cfg.DATA.TEST_CROP_SIZE,
        complexity=count_complexity(model, *inputs),
    )


class _OneView(nn.Module):
    """The outputs of a model that takes several views for one, (1, C, T, H, W)."""

    def __init__(self, model: ContrastiveModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor, mask: Tensor | None = None) -> object:
        if mask is None:
            outputs: ViewOutputs = self.model([clips])
            return outputs.views
        masked: IBOTOutputs = self.model([clips], [mask])
        return masked.views, masked.patches


class _FrameByFrame(nn.Module):
    """Codes of the frames of a clip (1, 3, T, H, W), and the reconstructions from them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, clips: Tensor) -> Tensor:
        codes = self.tokenizer.encode(clips.transpose(1, 2).flatten(0, 1))
        return self.tokenizer.decoder_output(codes)


def _mask_and_ratio(cfg: CfgNode) -> tuple[Tensor | None, float | None]:
    """Draw masks as in pre-training; return a typical one, (1, t, h, w), and their mean ratio.

    None of both if the method has none. Some kinds of masks vary; those of iBOT may be empty.
    """
    samplers = [sampler for sampler in find_method(cfg).masks(cfg) if sampler is not None]
    if not samplers:
        return None, None
    generator = np.random.default_rng(cfg.RNG_SEED)
    drawn = torch.stack([samplers[0](generator) for _ in range(_NUM_MASKS)])
    ratios = drawn.flatten(1).double().mean(dim=1)
    mean = float(ratios.mean())
    return drawn[(ratios - mean).abs().argmin()][None], mean
