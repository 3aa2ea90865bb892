"""Numbers of other implementations of the training methods (tests/golden/methods).

METHOD_GOLDENS names another folder, whose goldens may have other seeds, sizes and settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from helpers.beit_goldens import BEIT_CHECKS
from helpers.dalle_goldens import DALLE_CHECKS
from helpers.golden_masks import check_mask_beit, check_mask_ibot
from helpers.golden_training import check_ema_schedules, check_lars
from helpers.method_goldens import DEFAULT_FOLDER, MethodGolden, gumbel, pcg64, seed_offset
from helpers.teacher_goldens import TEACHER_CHECKS
from torch import Tensor

from slowfast_maskfeat.backbones import EncoderOptions, NormedEncoder
from slowfast_maskfeat.backbones.attention import LAYER_NORM_EPSILON
from slowfast_maskfeat.frozen import FrozenNetwork
from slowfast_maskfeat.losses import (
    LPIPS,
    cosine_distance,
    cross_entropy,
    kl_to_uniform,
    layer_outputs,
    mean_absolute_error,
    mean_squared_error,
    smooth_l1,
    soft_cross_entropy,
    standardized,
)
from slowfast_maskfeat.targets.label_maps import (
    crop_label_maps,
    dense_label_maps,
    label_distributions,
)
from slowfast_maskfeat.tokenizers import (
    DVAE,
    ConvDecoder,
    ConvEncoder,
    DirectionEMAQuantizer,
    EMAQuantizer,
    LearnedQuantizer,
    PixelReconstruction,
    Quantized,
    Quantizer,
    gumbel_softmax,
)

Check = Callable[[MethodGolden], None]

# Goldens that must be there, each with a check.
GOLDENS = (
    *BEIT_CHECKS,
    *TEACHER_CHECKS,
    *DALLE_CHECKS,
    "dvae_gumbel",
    "ema_schedules",
    "feature_losses",
    "lars",
    "lpips",
    "mask_beit",
    "mask_ibot",
    "token_labeling",
    "vit_full",
    "vq_beitv2",
    "vq_ema",
    "vq_taming",
)
CHECKS: dict[str, Check] = {**BEIT_CHECKS, **TEACHER_CHECKS, **DALLE_CHECKS}
SLOW = {"dalle_encoder_full"}


def check_of(name: str) -> Callable[[Check], Check]:
    """Register the check of a golden."""

    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


check_of("ema_schedules")(check_ema_schedules)
check_of("lars")(check_lars)
check_of("mask_beit")(check_mask_beit)
check_of("mask_ibot")(check_mask_ibot)


@check_of("feature_losses")
def _(golden: MethodGolden) -> None:
    prediction, target = golden.input("prediction"), golden.input("target")
    losses = {
        "mse": lambda p: mean_squared_error(p, target),
        "smooth_l1": lambda p: smooth_l1(p, target),
        "smooth_l1_beta2": lambda p: smooth_l1(p, target, beta=2.0),
        "l1": lambda p: mean_absolute_error(p, target),
        "two_minus_two_cos": lambda p: 2 * cosine_distance(p, target),
        "one_minus_cos": lambda p: cosine_distance(p, target),
        "mvd": lambda p: smooth_l1(p, standardized(target, epsilon=1e-6)),
        "vjepa_l1": lambda p: mean_absolute_error(p, standardized(target, epsilon=1e-5)),
        "ce_argmax": lambda p: cross_entropy(p, target.argmax(dim=1)),
        "ce_soft": lambda p: soft_cross_entropy(p, target.softmax(dim=1)),
    }
    for name, loss in losses.items():
        given = prediction.clone().requires_grad_()
        value = loss(given).mean()
        value.backward()
        golden.compare(name, value)
        golden.compare(f"grad/{name}", given.grad)
    # A mean of cosines may be close to 0: its error is relative to 1.
    negative_cosine = cosine_distance(prediction, target).mean() - 1
    bound = 1e-9 if golden.dtype == torch.float64 else 1e-6
    golden.compare_absolutely("lightly_negative_cosine", float(negative_cosine), tolerance=bound)


@check_of("dvae_gumbel")
def _(golden: MethodGolden) -> None:
    settings, images = golden.settings, golden.input("image")
    stages, num_codes = settings["num_layers"], settings["num_tokens"]
    widths = [settings["hidden_dim"]] * stages
    in_blocks = r"encoder\.\d+\.net\.0\.weight"
    num_blocks = sum(bool(re.fullmatch(in_blocks, name)) for name in settings["names"]) // stages
    shape = (len(images), num_codes, *(size // 2**stages for size in images.shape[2:]))
    noise = gumbel(settings["base"] + seed_offset(settings["noise"]), shape, golden.dtype)
    weights = golden.weights(settings["names"])
    for case in sorted({name.partition("/")[0] for name in golden.scalars if name[:4] == "hard"}):
        error = "smooth_l1" if case.endswith("smoothl11") else "l2"
        model = DVAE(
            ConvEncoder(widths, num_blocks=num_blocks, out_channels=num_codes),
            ConvDecoder(
                settings["codebook_dim"],
                widths,
                num_blocks=num_blocks,
                out_channels=images.shape[1],
            ),
            code_dim=settings["codebook_dim"],
            reconstruction=PixelReconstruction(error, value_range=(0.0, 1.0)),
        ).to(golden.dtype)
        model.load_state_dict(weights)
        is_hard = case.startswith("hard1")
        result = model(images, noise, temperature=settings["temperature"], hard=is_hard)
        reconstruction = model.reconstruction.loss(result.output, images).mean()
        divergence = result.loss.sum() * result.codes[0].numel()
        loss = reconstruction + settings["kl_div_loss_weight"] * divergence
        loss.backward()
        golden.compare(f"{case}/out", result.output)
        golden.compare(f"{case}/reconstruction_loss", reconstruction)
        # The logarithm of 1 / K is a float32 constant there.
        rounding = 1e-5 if golden.dtype == torch.float64 else 1e-4
        golden.compare(f"{case}/kl", divergence, tolerance=rounding)
        golden.compare(f"{case}/loss", loss, tolerance=rounding)
        golden.compare(f"{case}/grad_codebook", model.codebook.weight.grad)
        golden.compare(f"{case}/grad_last_conv", model.encoder[-1].weight.grad)
    golden.compare("logits", model.logits(images))
    golden.compare("tokens", model.encode(images))


@check_of("lpips")
def _(golden: MethodGolden) -> None:
    names = golden.settings["names"]
    convolutions: dict[str, list[int]] = {}
    for name, shape in names.items():
        if name.startswith("net.slice") and name.endswith("weight"):
            convolutions.setdefault(name.split(".")[1], []).append(shape[0])
    model = LPIPS([c[-1] for c in convolutions.values()], [len(c) for c in convolutions.values()])
    assert {n: list(w.shape) for n, w in model.state_dict().items()} == names
    weights = golden.weights({n: s for n, s in names.items() if not n.startswith("scaling_layer")})
    weights = {n: w.abs() if n.startswith("lin") else w for n, w in weights.items()}
    model.to(golden.dtype).load_state_dict(weights, strict=False)
    network = FrozenNetwork(model)
    image, reconstruction = golden.input("image"), golden.input("reconstruction").requires_grad_()
    distance = network(reconstruction, image)
    distance.sum().backward()
    golden.compare("distance", distance.view(-1, 1, 1, 1))
    golden.compare("grad", reconstruction.grad)
    for stage, difference in enumerate(model.differences(reconstruction, image)):
        golden.compare(f"layer{stage}/unit_sq_diff_mean", difference.mean())


@check_of("token_labeling")
def _(golden: MethodGolden) -> None:
    settings, output, aux = golden.settings, golden.input("output"), golden.input("aux")
    target = token_labeling_target(golden)
    (mixing,) = [name for name in golden.array_names if name.startswith("target_mixed_")]
    weight = settings.get("dense_weight", 0.5)  # no setting of the golden at hand, but its numbers
    share = float(mixing.rpartition("_")[2])
    golden.compare("target", target)
    golden.compare(mixing, share * target + (1 - share) * target.flip(0))

    y1, x1, y2, x2 = settings["mix_box"]
    area = (y2 - y1) * (x2 - x1) / aux.shape[1]
    true_class, whole, tokens = target[..., 0], target[..., 1], target[..., 2:].transpose(1, 2)
    # With true classes the map's share is 0.9, and 0.5 where both name the same class.
    agrees = true_class.argmax(dim=1, keepdim=True) == whole.argmax(dim=1, keepdim=True)
    of_map = torch.where(agrees, 0.5, 0.9).to(golden.dtype)
    targets = {
        "plain": whole,
        "mix": (1 - area) * whole + area * whole.flip(0),
        "ground_truth": of_map * whole + (1 - of_map) * true_class,
    }
    for name, of_image in targets.items():
        given = [x.clone().requires_grad_() for x in (output, aux)]
        loss = soft_cross_entropy(given[0], of_image).mean()
        of_tokens = soft_cross_entropy(given[1].flatten(0, 1), tokens.flatten(0, 1)).mean()
        loss = loss + weight * of_tokens
        loss.backward()
        golden.compare(f"loss/{name}", loss)
        golden.compare(f"grad_output/{name}", given[0].grad)
        golden.compare(f"grad_aux/{name}", given[1].grad)


def token_labeling_target(golden: MethodGolden) -> Tensor:
    """Targets (B, K, 2 + N): the true class, the class of the whole crop, and of each token."""
    settings, scores = golden.settings, golden.input("scores")
    num_images, num_best, height, width = scores.shape
    num_classes, smoothing = settings["classes"], settings["smoothing"]
    numbers = torch.zeros_like(scores)
    for b in range(num_images):
        for p in range(height * width):
            seed = settings["indices_seed"] + settings["indices_seed_step"] * b + p
            best = pcg64(seed).permutation(num_classes)[:num_best]
            numbers[b, :, p // width, p % width] = torch.from_numpy(best)
    maps = dense_label_maps(torch.stack([scores, numbers], dim=1), num_classes)
    # The golden's crops are (top, left, height, width), but its code reads the map's columns by
    # top and height, and its rows by left and width.
    crops = torch.tensor(settings["crops"], dtype=golden.dtype)[:, [1, 0, 3, 2]]
    side = settings["label_size"]
    whole, tokens = (
        label_distributions(crop_label_maps(maps, crops, None, grid), smoothing=smoothing)
        for grid in ((1, 1), (side, side))
    )
    classes = torch.tensor(settings["ground_truth"]).long()
    one_hot = torch.nn.functional.one_hot(classes, num_classes).to(golden.dtype)
    true_class = one_hot * (1 - smoothing) + smoothing / num_classes
    return torch.cat([true_class[:, None], whole, tokens], dim=1).transpose(1, 2)


@check_of("vit_full")
def _(golden: MethodGolden) -> None:
    settings, images = golden.settings, golden.input("x")
    side, (_, _, width) = settings["patch_size"], golden.shape("block0")
    options = EncoderOptions(
        clip_size=(1, settings["image_size"], settings["image_size"]),
        patch_kernel=(side, side),
        patch_stride=(side, side),
        patch_padding=(0, 0),
        width=width,
        num_heads=settings["num_heads"],
        depth=settings["depth"],
    )
    assert settings["layer_norm_eps"] == LAYER_NORM_EPSILON
    model = NormedEncoder(options).to(golden.dtype).eval()
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert set(shapes) == set(settings["names"])
    model.load_state_dict(golden.weights(shapes))
    with torch.no_grad():
        names = [f"blocks.{i}" for i in range(settings["depth"])]
        clips = images[:, :, None]
        blocks = layer_outputs(model, names, partial(model.tokens, clips))
        for i, tokens in enumerate(blocks):
            golden.compare(f"block{i}", tokens)
        tokens = model.tokens(clips)
        golden.compare("out_norm", tokens)
        golden.compare("cls", model.pooled(tokens))


@check_of("vq_ema")
def _(golden: MethodGolden) -> None:
    settings = golden.settings
    num_steps = sum(name.startswith("x") for name in golden.input_names())
    for kind in ("euclid", "cosine"):
        quantizer = EMAQuantizer(
            settings["codebook_size"],
            settings["dim"],
            decay=settings["decay"],
            epsilon=settings["eps"],
            beta=settings["commitment_weight"],
            unit_sphere=kind == "cosine",
        ).to(golden.dtype)
        sizes = torch.tensor(settings[f"{kind}/initial_cluster_size"])
        quantizer.set_codebook(golden.input("codebook"), sizes)
        for step in range(num_steps):
            result, grad_x = quantized(
                quantizer, golden.input(f"x{step}"), golden.input(f"grad{step}")
            )
            quantizer.after_step(torch.tensor(True))
            values = {
                "quantized": result.vectors,
                "indices": result.codes,
                "commit_loss": result.loss.mean(),
                "grad_x": grad_x,
                "cluster_size": quantizer.sizes,
                "embed_avg": quantizer.totals,
                "embed": quantizer.codebook,
            }
            for name, value in values.items():
                golden.compare(f"{kind}/{step}/{name}", value)


@check_of("vq_beitv2")
def _(golden: MethodGolden) -> None:
    settings = golden.settings
    quantizer = DirectionEMAQuantizer(
        settings["n_embed"], settings["dim"], decay=settings["decay"], beta=settings["beta"]
    ).to(golden.dtype)
    quantizer.set_codebook(golden.input("codebook"))
    for step in range(sum(name.startswith("x") for name in golden.input_names())):
        x, grad = (golden.input(f"{name}{step}").movedim(1, -1) for name in ("x", "grad"))
        result, grad_x = quantized(quantizer, x, grad)
        quantizer.after_step(torch.tensor(True))
        values = {
            "quantized": result.vectors.movedim(-1, 1),
            "indices": result.codes.flatten(),
            "loss": result.loss.mean(),
            "grad_x": grad_x.movedim(-1, 1),
            "codebook": quantizer.codebook,
            "usage": quantizer.sizes,
        }
        for name, value in values.items():
            golden.compare(f"{step}/{name}", value)


@check_of("vq_taming")
def _(golden: MethodGolden) -> None:
    x, grad = (golden.input(name).movedim(1, -1) for name in ("x", "grad"))
    codebook = golden.input("codebook")
    for order in ("legacy", "right"):
        quantizer = LearnedQuantizer(
            *codebook.shape, beta=golden.settings["beta"], beta_on_codebook=order == "legacy"
        ).to(golden.dtype)
        quantizer.set_codebook(codebook)
        result, grad_x = quantized(quantizer, x, grad)
        values = {
            "quantized": result.vectors.movedim(-1, 1),
            "indices": result.codes.flatten(),
            "loss": result.loss.mean(),
            "grad_x": grad_x.movedim(-1, 1),
            "grad_codebook": quantizer.codebook.grad,
        }
        for name, value in values.items():
            golden.compare(f"{order}/{name}", value)
    check_taming_gumbel(golden)


def check_taming_gumbel(golden: MethodGolden) -> None:
    settings, x = golden.settings["gumbel"], golden.input("gx")
    num_codes, dim = golden.input("codebook").shape
    shapes = {
        "proj.weight": (num_codes, settings["num_hiddens"], 1, 1),
        "proj.bias": (num_codes,),
        "embed.weight": (num_codes, dim),
    }
    weights = golden.weights(shapes, "gumbel.")
    logits = torch.nn.functional.conv2d(x, weights["proj.weight"], weights["proj.bias"])
    noise = gumbel(settings["noise_seed"], logits.shape, golden.dtype)
    for hard in (0, 1):
        sample = gumbel_softmax(logits, noise, temperature=settings["temperature"], hard=bool(hard))
        vectors = torch.einsum("bkhw,kd->bdhw", sample, weights["embed.weight"])
        divergence = kl_to_uniform(logits.movedim(1, -1)).mean()
        golden.compare(f"gumbel_hard{hard}/z", vectors)
        golden.compare(f"gumbel_hard{hard}/indices", sample.argmax(dim=1))
        golden.compare(f"gumbel_hard{hard}/kl_loss", settings["kl_weight"] * divergence)


def quantized(quantizer: Quantizer, x: Tensor, grad: Tensor) -> tuple[Quantized, Tensor]:
    """Result of a quantizer, and the gradient by x of its loss and `grad` times its vectors."""
    given = x.clone().requires_grad_()
    result = quantizer(given)
    (result.loss.mean() + (result.vectors * grad).sum()).backward()
    return result, given.grad


DTYPES = {"float64": torch.float64, "float32": torch.float32}
CASES = [
    pytest.param(name, dtype, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in GOLDENS
    for dtype in DTYPES
    if name[:5] + dtype != "mask_float32"
]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_golden(name: str, dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    golden = MethodGolden(name, DTYPES[dtype])
    assert name in CHECKS, f"there is no check of the golden {name}"
    CHECKS[name](golden)
    number = golden.finish()
    with capsys.disabled():
        print(f"\n{name}, {dtype}: {number} values compared", end=" ")


def test_every_golden_of_this_repository_has_a_check() -> None:
    assert {path.stem for path in DEFAULT_FOLDER.glob("*.json")} == set(GOLDENS)
    assert set(CHECKS) == set(GOLDENS)
