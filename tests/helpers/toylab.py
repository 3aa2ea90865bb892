"""Source of a package outside of ours, for test_extension.py: one row of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slowfast_maskfeat import ClipBatch
from slowfast_maskfeat.extension import (
    Backbone,
    BackboneModel,
    CurvePanel,
    DataFolder,
    DataSetKind,
    DataSource,
    Evaluation,
    FrozenNetwork,
    Grid,
    LossEvaluation,
    MaskKind,
    Method,
    MissingListError,
    RowCollector,
    Schedule,
    StepOutput,
    Target,
    TargetKind,
    Task,
    Teacher,
    VideoList,
    ViewSpec,
    add_keys,
    all_reduce,
    build_backbone,
    build_random_frames,
    build_train_transform,
    normalize,
    register_backbone,
    register_dataset,
    register_mask,
    register_method,
    register_target,
    resize_mask,
)

add_keys({"TOY.WIDTH": 12, "TOY.MOMENTUM": 0.9, "TOY.SMALL_CROP": 16, "TOY.SEED": 7})


class Attention(nn.Module):
    """Single-head attention with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        return tokens + F.scaled_dot_product_attention(query, key, value)


class ToyBackbone(nn.Module):
    """Patches of 2x8x8 and three layers of attention; no class token, no positions."""

    token_stride = (2, 8, 8)
    has_cls = False
    num_layers = 4

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv3d(3, width, self.token_stride, self.token_stride)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Attention(width) for _ in range(3))
        self.norm = nn.LayerNorm(width)

    def layer_id(self, name: str) -> int:
        if name.startswith("blocks."):
            return int(name.split(".")[1]) + 1
        return self.num_layers if name.startswith("norm.") else 0

    def no_weight_decay(self) -> set[str]:
        return {"mask_token"}

    def grids(self, clip_size: Sequence[int]) -> list[Grid]:
        steps = zip(clip_size, self.token_stride, strict=True)
        return [Grid(*(size // step for size, step in steps))] * 3

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.patches(clips).flatten(2).transpose(1, 2)  # (B, N, D)
        if mask is not None:
            masked = resize_mask(mask, self.grids(clips.shape[2:])[0]).flatten(1)
            tokens = torch.where(masked[..., None].to(tokens.device), self.mask_token, tokens)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


register_backbone("toy", lambda cfg: ToyBackbone(cfg.TOY.WIDTH))


class FeatureTarget(Target):
    """Features of a frozen convolution with random weights."""

    def __init__(self, network: FrozenNetwork, stride: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.stride = tuple(stride)

    @property
    def dim(self) -> int:
        return 5

    @torch.no_grad()
    def encode(self, clips: Tensor, grid: Grid) -> Tensor:
        pixels = clips.float() / 255 if clips.dtype == torch.uint8 else clips
        return self.network(pixels).flatten(2).transpose(1, 2)


def build_targets(cfg, strides):
    generator = torch.Generator().manual_seed(cfg.TOY.SEED)
    convolution = nn.Conv3d(3, 5, strides[0], strides[0])
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.5)
    network = FrozenNetwork(convolution, source=f"seed {cfg.TOY.SEED}")
    return [FeatureTarget(network, stride) for stride in strides]


register_target("toy_features", TargetKind(build=build_targets, width=lambda cfg, stride: 5))


def build_checkerboard(cfg, grid, ratio):
    def sample(generator):
        cells = torch.arange(grid.num_tokens).view(*grid)
        return (cells + int(generator.integers(2))) % 2 == 0

    return sample


register_mask("checkerboard", MaskKind(build=build_checkerboard, is_exact=True))


def read_pairs(data: DataFolder, split: str, class_names: Sequence[str] | None) -> VideoList:
    """Lines `class|file` of <split>.pairs."""
    path = Path(data.path) / f"{split}.pairs"
    if not path.exists():
        raise MissingListError(f"{path} does not exist")
    rows = RowCollector(str(path), class_names)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        with rows.row(number):
            label, _, name = line.partition("|")
            rows.add(number, name, rows.number(label))
    return rows.finish(data.videos())


register_dataset("pairs", DataSetKind(read=read_pairs))


class TwinModel(BackboneModel):
    """A backbone and a projector."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.projector = nn.Linear(backbone.width, 6)

    def forward(self, clips: Tensor) -> Tensor:
        return self.projector(self.backbone.pooled(self.backbone.tokens(clips)))


class TwinTask(Task):
    """Predict a teacher's projection of a small view from a large one."""

    scalar_names = ("agreement",)
    has_idle_parameters = True  # the mask token
    teacher_prefix = "teacher.network."

    def __init__(self, model: nn.Module, momentum: float, mean, std) -> None:
        super().__init__()
        self.teacher = Teacher(model, Schedule(momentum, 1.0))
        self.mean, self.std = tuple(mean), tuple(std)
        self.register_buffer("center", torch.zeros(6))
        self.register_buffer("sums", torch.zeros(7), persistent=False)

    def start(self, model: nn.Module) -> None:
        self.teacher.copy_from(model)

    def step(self, model: nn.Module, batch: ClipBatch) -> StepOutput:
        large, small = batch.views
        mine = F.normalize(model(normalize(large.clips, self.mean, self.std)), dim=-1)
        theirs = self.teacher(normalize(small.clips, self.mean, self.std))
        if self.training:
            self.sums += torch.cat([theirs.sum(0), theirs.new_full((1,), len(theirs))])
        theirs = F.normalize(theirs - self.center, dim=-1)
        pairs = theirs.view(len(batch), -1, 6)  # several small views a sample
        agreement = (mine[:, None] * pairs).sum(-1).mean()
        weight = torch.full_like(agreement, float(len(batch)))
        return StepOutput(1 - agreement, weight, {"agreement": agreement.detach()})

    def after_step(self, model: nn.Module, progress: float, taken: Tensor) -> None:
        sums = all_reduce(self.sums, "sum")
        mean = sums[:6] / sums[6].clamp(min=1)
        self.center.copy_(torch.where(taken, 0.9 * self.center + 0.1 * mean, self.center))
        self.sums.zero_()
        self.teacher.update(model, progress, taken)

    def evaluation(self, videos: VideoList, num_views: int) -> Evaluation:
        return LossEvaluation(len(videos), self)


def twin_views(cfg):
    large = replace(build_train_transform(cfg), area=(0.3, 1.0))
    small = replace(large, crop_size=cfg.TOY.SMALL_CROP)
    options = {"num_frames": cfg.DATA.NUM_FRAMES, "temporal": build_random_frames(cfg)}
    return [
        ViewSpec(augmentation=large, crop_size=large.crop_size, **options),
        ViewSpec(augmentation=small, crop_size=small.crop_size, count=2, **options),
    ]


def build_twin_task(cfg, model: nn.Module, data: DataSource) -> TwinTask:
    return TwinTask(model, cfg.TOY.MOMENTUM, cfg.DATA.MEAN, cfg.DATA.STD)


register_method(
    "ToyTwins",
    Method(
        model=lambda cfg, data: TwinModel(build_backbone(cfg)),
        task=build_twin_task,
        figures=(CurvePanel("loss", "loss"), CurvePanel("agreement", "cosine agreement")),
        views=twin_views,
    ),
)
