"""Checks of the goldens of BYOL, DINO and iBOT, for tests/test_method_goldens.py."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from helpers.method_goldens import TOLERANCES, MethodGolden, numbers_in, pcg64
from torch import Tensor, nn

from slowfast_maskfeat.backbones import (
    BYOLModel,
    DINOHead,
    EncoderOptions,
    IBOTHead,
    IBOTModel,
    MaskedViewEncoder,
    MLPHead,
    NormedEncoder,
    take_masked,
)
from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.clips import ClipBatch
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.optimizer import (
    make_optimizer,
    parameter_groups,
    set_learning_rate,
)
from slowfast_maskfeat.losses import layer_outputs, patch_cross_entropy, view_cross_entropy
from slowfast_maskfeat.schedules import EpochWarmup
from slowfast_maskfeat.tasks.byol import BYOL
from slowfast_maskfeat.tasks.ibot import IBOT
from slowfast_maskfeat.tasks.teacher import Center

TAKEN = torch.tensor(True)
NORMALIZATION = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


class OneLayer(nn.Sequential):
    """A linear layer and GELU as a backbone: clips (B, D, 1, 1, 1) -> (B, 1, D) -> (B, D)."""

    has_cls = False

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, width), nn.GELU())
        self.width = width

    def tokens(self, clips: Tensor, mask: Tensor | None = None) -> Tensor:
        return self(clips.flatten(1))[:, None]

    def pooled(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]


def compare_list(golden: MethodGolden, name: str, index: int, value: Tensor | float) -> None:
    """Compares an entry of a list in the settings."""
    expected = golden.settings[name][index]
    tolerance = TOLERANCES[golden.dtype] * abs(expected)
    value = float(torch.as_tensor(value).detach())
    golden.compare_absolutely(f"{name}/{index}", value, tolerance=tolerance)


def require_lists(golden: MethodGolden, *names: str) -> None:
    for name in names:
        golden.require({f"{name}/{i}": value for i, value in enumerate(golden.settings[name])})


def compare_norms(golden: MethodGolden, name: str, values: Mapping[str, Tensor]) -> None:
    """Compares the norms of tensors with those under a name of the settings."""
    expected = golden.settings[name]
    assert set(values) == set(expected)
    for part, norm in expected.items():
        found = float(values[part].detach().double().norm())
        golden.require({f"{name}/{part}": norm})
        tolerance = TOLERANCES[golden.dtype] * norm
        if golden.dtype == torch.float32 and part.endswith("attn.qkv.bias"):
            # The bias of the keys cancels in the softmax: Adam makes steps of rounding errors.
            tolerance *= 100
        golden.compare_absolutely(f"{name}/{part}", found, tolerance=tolerance)


def state_of(module: nn.Module, *, without: Sequence[str] = ()) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: value for name, value in state.items() if name not in without}


def check_byol_train_steps(golden: MethodGolden) -> None:
    settings = golden.settings
    dims, momentum = settings["dims"], settings["momentum"]
    hidden_bias, last_bias = settings["projector_bias"]
    options = {"hidden_dim": dims["hidden"], "hidden_bias": hidden_bias, "last_bias": last_bias}
    model = BYOLModel(
        OneLayer(dims["backbone"]),
        MLPHead(dims["backbone"], dims["out"], **options),
        MLPHead(dims["out"], dims["out"], **options),
    ).to(golden.dtype)
    weights = golden.weights(settings["names"])
    assert model.projector.layers[1].epsilon == settings["batch_norm_eps"]
    missing = model.load_state_dict(
        {name.removeprefix("online."): value for name, value in weights.items()}, strict=False
    )
    assert not missing.unexpected_keys
    num_steps = len(momentum)
    task = BYOL(
        model,
        temperature=0.5,  # the paper's loss, of vectors of length 1
        momentum=lambda progress: momentum[round(progress * num_steps)],
        **NORMALIZATION,
    ).to(golden.dtype)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings["lr"], momentum=settings["sgd_momentum"]
    )
    require_lists(golden, "loss_byol_pytorch", "loss_lightly")
    for step in range(num_steps):
        first, second = (golden.input(f"view{v}_{step}")[..., None, None, None] for v in (0, 1))
        batch = ClipBatch(clips=first, further=(ClipBatch(clips=second),))
        if not step:
            golden.compare("prediction0", model([first, second]).views[0])
            golden.compare("target1", task.teacher([first, second]).views[1])
            task.after_step(model, 0.0, ~TAKEN)
        optimizer.zero_grad()
        loss = task.step(model, batch).loss
        loss.backward()
        optimizer.step()
        task.after_step(model, step / num_steps, TAKEN)
        compare_list(golden, "loss_byol_pytorch", step, loss)
        # A mean of cosines may be close to 0: its error is relative to 1.
        golden.compare_absolutely(
            f"loss_lightly/{step}",
            float(loss.detach() / 4 - 1),
            tolerance=TOLERANCES[golden.dtype],
        )
    compare_norms(
        golden,
        "final_online",
        state_of(nn.ModuleDict({"backbone": model.backbone, "projector": model.projector})),
    )
    compare_norms(golden, "final_predictor", model.predictor.state_dict())
    compare_norms(golden, "final_target", task.teacher.network.state_dict())


def prototype_center(golden: MethodGolden, dim: int, *, suffix: str = "") -> Center:
    settings = golden.settings
    temperature = EpochWarmup(
        settings[f"warmup_teacher_temp{suffix}"],
        settings[f"teacher_temp{suffix}"],
        settings["warmup_teacher_temp_epochs"],
    )
    return Center(dim, momentum=settings["center_momentum"], temperature=temperature).to(
        golden.dtype
    )


def check_dino_loss(golden: MethodGolden) -> None:
    settings = golden.settings
    center = prototype_center(golden, settings["out_dim"])
    for step in range(len(golden.input_names()) // 2):
        student = golden.input(f"{step}/student").requires_grad_()
        teacher = golden.input(f"{step}/teacher")
        target = center.distribution(teacher, step).unflatten(0, (-1, settings["B"]))
        logits = student.unflatten(0, (settings["ncrops"], -1)) / settings["student_temp"]
        loss = view_cross_entropy(logits, target).mean()
        loss.backward()
        center.add(teacher.mean(dim=0), len(teacher))
        center.move(TAKEN)
        golden.compare(f"{step}/loss", loss)
        golden.compare(f"{step}/center_after", center.center[None])
        golden.compare(f"{step}/grad/student", student.grad)


def check_ibot_loss(golden: MethodGolden) -> None:
    settings = golden.settings
    epochs = [int(n) for n in re.search(r"epochs ([\d, ]+)", golden.description)[1].split(",")]
    center = prototype_center(golden, settings["out_dim"])
    patch_center = prototype_center(golden, settings["patch_out_dim"], suffix="2")
    size = settings["B"]
    for step, epoch in enumerate(epochs):
        names = (
            "student_cls",
            "student_patch",
            "student_local_cls",
            "teacher_cls",
            "teacher_patch",
        )
        cls, patch, local, teacher_cls, teacher_patch = (
            golden.input(f"{step}/{name}") for name in names
        )
        masks = [golden.input(f"{step}/mask{v}") for v in range(settings["ngcrops"])]
        masks[0][-1] = False  # as the description says
        mask = torch.cat(masks).flatten(1)  # (2 B, N)
        student = [x.requires_grad_() for x in (cls, patch, local)]
        target = center.distribution(teacher_cls, epoch).unflatten(0, (-1, size))
        logits = torch.cat([cls, local]).unflatten(0, (-1, size)) / settings["student_temp"]
        of_views = view_cross_entropy(logits, target).mean()
        counts = mask.sum(dim=1)
        of_patches = patch_cross_entropy(
            take_masked(patch, mask) / settings["student_temp"],
            patch_center.distribution(take_masked(teacher_patch, mask), epoch),
            counts,
        ).sum() / len(counts)
        loss = settings["lambda1"] * of_views + settings["lambda2"] * of_patches
        loss.backward()
        for of_kind, outputs in ((center, teacher_cls), (patch_center, teacher_patch)):
            rows = outputs.reshape(-1, outputs.shape[-1])
            of_kind.add(rows.mean(dim=0), len(rows))
            of_kind.move(TAKEN)
        values = {
            "cls": settings["lambda1"] * of_views,
            "patch": settings["lambda2"] * of_patches,
            "loss": loss,
            "teacher_temp": torch.tensor(center.temperature(epoch), dtype=torch.float64),
            "teacher_patch_temp": torch.tensor(
                patch_center.temperature(epoch), dtype=torch.float64
            ),
            "center_after": center.center[None],
            "center2_after": patch_center.center[None, None],
            **{f"grad/{n}": x.grad for n, x in zip(names[:3], student, strict=True)},
        }
        for name, value in values.items():
            golden.compare(f"{step}/{name}", value)


def check_ibot_patch_lightly(golden: MethodGolden) -> None:
    settings = golden.settings
    temperature = EpochWarmup(settings["teacher_temp"], settings["teacher_temp"], 0)
    # Temperature and 1 / (number of masked tokens) are float32 tensors there.
    rounding = max(1e-7, TOLERANCES[golden.dtype])
    momentum = settings["center_momentum"]
    center = Center(settings["K"], momentum=momentum, temperature=temperature).to(golden.dtype)
    for step in range(len(golden.input_names()) // 3):
        mask = golden.input(f"mask{step}")
        teacher = golden.input(f"teacher{step}")[mask]
        student = golden.input(f"student{step}")[mask].requires_grad_()
        counts = mask.flatten(1).sum(dim=1)
        target = center.distribution(teacher, 0)
        terms = patch_cross_entropy(student / settings["student_temp"], target, counts)
        loss = terms.sum() / len(counts)
        loss.backward()
        center.add(teacher.mean(dim=0), len(teacher))
        center.move(TAKEN)
        golden.compare(f"{step}/loss", loss, tolerance=rounding)
        golden.compare(f"{step}/center", center.center[None])
        golden.compare(f"{step}/grad", student.grad, tolerance=rounding)


def vit_options(facts: Mapping[str, Any], offset: float = 0.1) -> EncoderOptions:
    """Options of a ViT in DINO's and iBOT's code."""
    size, side = np.ravel(facts["img_size"]).tolist(), facts["patch_size"]
    return EncoderOptions(
        clip_size=(1, size[0], size[-1]),
        patch_kernel=(side, side),
        patch_stride=(side, side),
        patch_padding=(0, 0),
        width=facts["embed_dim"],
        num_heads=facts["num_heads"],
        depth=facts["depth"],
        position_offset=offset,
    )


def check_dino_vit(golden: MethodGolden) -> None:
    settings = golden.settings
    assert settings["norm_eps"] == LAYER_NORM_EPSILON
    (offset,) = numbers_in(golden.description, r"([\d.]+) offset")
    model = NormedEncoder(vit_options(settings["vit"], float(offset))).to(golden.dtype).eval()
    assert {n: list(w.shape) for n, w in model.state_dict().items()} == settings["names"]
    model.load_state_dict(golden.weights(settings["names"]))
    prefix = settings["head"]["names_prefix"]
    head = DINOHead(settings["vit"]["embed_dim"], **head_options(settings)).to(golden.dtype)
    assert {n: list(w.shape) for n, w in head.state_dict().items()} == settings["head_names"]
    head.load_state_dict(golden.weights(settings["head_names"], prefix), strict=False)
    depth = settings["vit"]["depth"]
    with torch.no_grad():
        for number, (height, width) in enumerate(settings["sizes"]):
            clips, case = golden.input(f"x{number}")[:, :, None], f"{height}x{width}"
            grid = model.patch_grid(clips.shape[2:])
            positions = torch.cat(model._positions(grid)[::-1], dim=1)
            golden.compare(f"{case}/positions", positions)
            golden.compare(f"{case}/out", model.pooled(model.tokens(clips)))
            names = [f"blocks.{i}" for i in range(depth)]
            if f"{case}/block0" not in golden.array_names:
                continue
            entering: list[Tensor] = []
            hook = model.blocks[-1].register_forward_pre_hook(
                lambda _, inputs, kept=entering: kept.append(inputs[0])
            )
            blocks = layer_outputs(model, names, partial(model.tokens, clips))
            hook.remove()
            for i, tokens in enumerate(blocks):
                golden.compare(f"{case}/block{i}", tokens)
            last = [name for name in golden.array_names if name.startswith(f"{case}/intermediate")]
            for i, tokens in enumerate(blocks[-len(last) :]):
                golden.compare(f"{case}/intermediate{i}", model.norm(tokens))
            golden.compare(f"{case}/last_attention", attention_of(model, -1, entering[0]))
        golden.compare("head", head(golden.input("head_in")))


def attention_of(model: NormedEncoder, index: int, tokens: Tensor) -> Tensor:
    """Attention weights (B, heads, N, N) of a block for the tokens that enter it."""
    block = model.blocks[index]
    heads = model.geometries[index].num_heads
    qkv = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, heads, -1))
    query, key, _ = qkv.permute(2, 0, 3, 1, 4)
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)


def head_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a head by our names."""
    options = {n: value for n, value in settings["head"].items() if n != "names_prefix"}
    return {{"nlayers": "num_layers"}.get(n, n): value for n, value in options.items()}


def ibot_network(golden: MethodGolden, *, shared: bool, norm_last_layer: bool = True) -> IBOTModel:
    settings = golden.settings
    head = IBOTHead(
        settings["vit"]["embed_dim"],
        settings["out_dim"],
        patch_out_dim=settings["out_dim" if shared else "patch_out_dim"],
        shared=shared,
        norm_last_layer=norm_last_layer,
        **head_options(settings),
    )
    model = IBOTModel(MaskedViewEncoder(vit_options(settings["vit"])), head).to(golden.dtype)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict(golden.weights(shapes), strict=False)
    return model


def check_ibot_model(golden: MethodGolden) -> None:
    clips = {n: golden.input(n)[:, :, None] for n in golden.input_names() if n[:4] != "mask"}
    masks = [golden.input(n)[:, None] for n in golden.input_names() if n[:4] == "mask"]
    num_seen = len(masks)
    for kind in ("shared", "unshared"):
        model = ibot_network(golden, shared=kind == "shared")
        names = golden.settings[f"names_{kind}"]
        assert {n: list(w.shape) for n, w in model.state_dict().items()} == names
        with torch.no_grad():
            outputs = model(list(clips.values()), masks)
            views = outputs.views.flatten(0, 1)
            num_rows = num_seen * len(masks[0])
            golden.compare(f"{kind}/cls", views[:num_rows])
            golden.compare(f"{kind}/local_cls", views[num_rows:])
            mask = torch.cat(masks)
            tokens = model.backbone.tokens(torch.cat(list(clips.values())[:num_seen]), mask)
            patch = model.head.patch_logits(model.head.bottleneck(tokens[:, 1:]))
            golden.compare(f"{kind}/patch", patch)
            torch.testing.assert_close(outputs.patches, take_masked(patch, mask.flatten(1)))
            local = model.backbone.tokens(torch.cat(list(clips.values())[num_seen:]))
            golden.compare("tokens", tokens)
            golden.compare("local_tokens", local)


def ibot_batch(golden: MethodGolden, step: int) -> ClipBatch:
    """The batch of a step: two large views with masks, and the small ones as one kind."""
    settings = golden.settings
    first = settings["view_seed"] + settings["view_seed_step"] * step
    num_seen, size, side = 2, settings["batch"], settings["vit"]["patch_size"]
    # Of the seeds of the small views and of the masks, in words.
    words = settings["views"]
    of_small, of_masks = (
        int(*numbers_in(words, rf"{kind}: rand\w*\(BASE\+\d+\+\d+\*it\+(\d+)\+j"))
        for kind in ("locals", "masks")
    )
    (channels,) = numbers_in(words, r"\(\d+,(\d+),G,G\)")

    def clips(number: int, pixels: int) -> Tensor:
        shape = (size, int(channels), 1, pixels, pixels)
        draws = pcg64(first + number).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(draws).to(golden.dtype)

    def mask(number: int) -> Tensor:
        cells = settings["global_size"] // side
        draws = pcg64(first + of_masks + number).random((size, 1, cells, cells), dtype=np.float32)
        return torch.from_numpy(draws < settings["mask_p"])

    large = [
        ClipBatch(clips=clips(v, settings["global_size"]), mask=mask(v)) for v in range(num_seen)
    ]
    count = settings["num_local"]
    local = [clips(of_small + v, settings["local_size"]) for v in range(count)]
    small = ClipBatch(clips=torch.stack(local, dim=1).flatten(0, 1), views_per_sample=count)
    return ClipBatch(clips=large[0].clips, mask=large[0].mask, further=(large[1], small))


def check_ibot_train_steps(golden: MethodGolden) -> None:
    settings = golden.settings
    num_steps, per_epoch = len(settings["loss"]), settings["steps_per_epoch"]
    num_epochs = num_steps // per_epoch
    words = settings["student_head"]
    model = ibot_network(
        golden,
        shared=words.startswith("shared"),
        norm_last_layer="norm_last_layer False" not in words,
    )
    momentum = settings["momentum"]
    start, end = settings["teacher_temp"]

    def center(dim: int) -> Center:
        rise = EpochWarmup(start, end, num_epochs)
        return Center(dim, momentum=settings["center_momentum"], temperature=rise)

    task = IBOT(
        model,
        center=center(settings["out_dim"]),
        patch_center=center(settings["patch_out_dim"]),
        centers_masked=False,
        view_weight=1.0,
        patch_weight=1.0,
        num_global_kinds=2,
        num_epochs=num_epochs,
        freeze_epochs=settings["freeze_last_layer"],
        student_temperature=settings["student_temp"],
        momentum=lambda progress: momentum[round(progress * num_steps)],
        **NORMALIZATION,
    ).to(golden.dtype)
    groups = parameter_groups(model, weight_decay=0.0, zero_decay_1d=True)
    assert set(groups[0]["names"]) == set(settings["regularised"])
    optimizer = make_optimizer(groups, method="adamw", lr=0.0, betas=tuple(settings["betas"]))
    for group in optimizer.param_groups:
        group["eps"] = settings["eps"]
    stepper = GradientStep(optimizer, clip_l2norm=settings["clip"], per_parameter=True)
    require_lists(golden, "loss", "cls", "patch")
    for step in range(num_steps):
        progress = step / num_steps
        set_learning_rate(optimizer, settings["lr"][step])
        optimizer.param_groups[0]["weight_decay"] = settings["wd"][step]
        optimizer.zero_grad()
        task.before_step(progress)
        output = task.step(model, ibot_batch(golden, step))
        output.loss.backward()
        if not step:
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            compare_norms(golden, "grad_norms_first", gradients)
        result = stepper(torch.tensor(1.0), frozen=task.frozen_parameters(model, progress))
        task.after_step(model, progress, result.taken)
        compare_list(golden, "loss", step, output.loss)
        compare_list(golden, "cls", step, output.scalars["views"])
        compare_list(golden, "patch", step, output.scalars["patches"])
    compare_norms(golden, "final_student", dict(model.named_parameters()))
    compare_norms(golden, "final_teacher", dict(task.teacher.network.named_parameters()))
    golden.compare("center", task.center.center[None])
    golden.compare("center2", task.patch_center.center[None, None])


TEACHER_CHECKS: dict[str, Callable[[MethodGolden], None]] = {
    "byol_train_steps": check_byol_train_steps,
    "dino_loss": check_dino_loss,
    "dino_vit": check_dino_vit,
    "ibot_loss": check_ibot_loss,
    "ibot_model": check_ibot_model,
    "ibot_patch_lightly": check_ibot_patch_lightly,
    "ibot_train_steps": check_ibot_train_steps,
}
