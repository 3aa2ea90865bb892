"""Triton kernels for CUDA: depthwise pooling with its norm, and HOG.

Importing this package imports no Triton; its modules `pooling` and `hog` do. They have no fallback:
who calls them has called `check_available`.
"""

from __future__ import annotations

import importlib.util
import os

import torch


def check_available(device: torch.device) -> None:
    """Check that Triton is installed and runs on a device.

    With TRITON_INTERPRET=1 in the environment Triton runs its kernels on any device, step by step
    in Python, as the tests do.

    Args:
        device: of the run.

    Raises:
        ValueError: it is not or does not.
    """
    remedy = "set MODEL.KERNELS plain"
    if importlib.util.find_spec("triton") is None:
        raise ValueError(
            "MODEL.KERNELS must be 'plain' where Triton is not installed, got 'triton'; install "
            f"it, as builds of torch for CUDA do (pip install triton), or {remedy}"
        )
    if device.type != "cuda" and not is_interpreted():
        raise ValueError(
            f"MODEL.KERNELS must be 'plain' on device '{device.type}', got 'triton', whose kernels "
            f"need CUDA; {remedy}"
        )


def is_interpreted() -> bool:
    """Whether Triton was set to interpret its kernels, which it reads when first imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
