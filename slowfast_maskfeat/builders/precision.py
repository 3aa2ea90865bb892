"""Number formats of a run: autocast, and the factors of matrix products on a GPU."""

from __future__ import annotations

from pathlib import Path

import torch
from fvcore.common.config import CfgNode

_AUTOCAST = {"float32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# Names of instructions for products in bf16, x86 and Arm, in /proc/cpuinfo.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}

_FIRST_TENSOR_CORES = (8, 0)  # compute capability of the first GPUs with products in tf32 and bf16


def precision_name(cfg: CfgNode) -> str:
    """Return the precision of a run by its name in TRAIN.PRECISION.

    TRAIN.MIXED_PRECISION without TRAIN.PRECISION means bf16, which has the range of float32 and
    needs no loss scaling.

    Args:
        cfg: configuration; not modified.
    """
    return cfg.TRAIN.PRECISION or ("bf16" if cfg.TRAIN.MIXED_PRECISION else "float32")


def autocast_precision(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast on a device; None disables it.

    A CPU without instructions for bf16 computes in float32, in which it is faster.

    Args:
        cfg: configuration; not modified.
        device: of the run.
    """
    if _is_emulated(cfg, device):
        return None
    return _AUTOCAST[precision_name(cfg)]


def set_precision(cfg: CfgNode) -> None:
    """Set how a GPU rounds the factors of float32 products, in this process.

    With float32 they are exact: torch by itself rounds those of convolutions to TF32. With tf32
    matrix products and convolutions round them, and add in float32.

    Args:
        cfg: configuration; not modified.
    """
    is_rounded = precision_name(cfg) == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = is_rounded
    torch.backends.cudnn.allow_tf32 = is_rounded


def precision_note(cfg: CfgNode, device: torch.device) -> str:
    """Describe in a line what another precision would give, or that one has no effect.

    The formats are those of NVIDIA's A100 whitepaper (2020): TF32 has 8 bits of exponent and 10 of
    mantissa, bf16 8 and 7, float32 8 and 23.

    Args:
        cfg: configuration; not modified.
        device: of the run.

    Returns:
        The line; empty if there is nothing to say.
    """
    name = precision_name(cfg)
    if _is_emulated(cfg, device):
        return (
            "TRAIN.PRECISION bf16 computes in float32 here, which is faster on this CPU: it has no "
            "instructions for bf16 (avx512_bf16 or amx_bf16)"
        )
    if name == "tf32" and device.type != "cuda":
        return "TRAIN.PRECISION tf32 computes in float32 here: only a GPU has products in tf32"
    if name != "float32" or not _has_tensor_cores(device):
        return ""
    return (
        "TRAIN.PRECISION float32 uses no tensor cores; tf32 does, with float32 tensors whose "
        "products have factors of 10 instead of 23 bits of mantissa, and bf16 does, with 7 bits "
        "and half the bytes of most activations; both have the range of float32"
    )


def _is_emulated(cfg: CfgNode, device: torch.device) -> bool:
    return precision_name(cfg) == "bf16" and device.type == "cpu" and not _cpu_has_bf16()


def _cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies in bf16; False where the system does not say."""
    if not cpuinfo.exists():
        return False
    for line in cpuinfo.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not _BF16_FLAGS.isdisjoint(value.split())
    return False


def _has_tensor_cores(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= _FIRST_TENSOR_CORES
