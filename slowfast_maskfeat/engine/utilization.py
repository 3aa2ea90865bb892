"""Arithmetic that a training achieves, and its share of the rate of matrix products."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

# A training step costs three forward passes: backward makes the gradients of inputs and weights.
_FLOPS_PER_MULTIPLY_ADD = 2 * 3

_SECONDS = 0.1
_SIZES = {"cuda": 4096, "cpu": 1024}  # rows and columns of the matrices that are multiplied
_PRODUCTS = {"cuda": 16, "cpu": 1}  # that are timed together: a launch takes a while


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """Figures of a training's arithmetic.

    Multiply-adds are those of the model alone: teachers, targets and what activation checkpointing
    computes again do not count, and what training leaves out of the last block (see `MaskedMViT`)
    does.

    Attributes:
        multiply_adds: of a forward pass with one clip.
        matrix_rate: Floating-point operations per second of one process, see `matrix_rate`.
        num_processes: processes of the run.
    """

    multiply_adds: int
    matrix_rate: float
    num_processes: int

    def figures(self, clips_per_second: float) -> dict[str, float]:
        """Return `tflops`, of all processes, and `mfu`, their share of the matrix rate.

        Args:
            clips_per_second: of all processes.
        """
        achieved = _FLOPS_PER_MULTIPLY_ADD * self.multiply_adds * clips_per_second
        return {
            "tflops": achieved / 1e12,
            "mfu": achieved / (self.matrix_rate * self.num_processes),
        }


def matrix_rate(device: torch.device, precision: torch.dtype | None = None) -> float:
    """Measure the floating-point operations per second of large matrix products.

    It takes about 0.1 s and does not change torch's random state.

    Args:
        device: where to multiply.
        precision: type of the matrices; None for float32.

    Returns:
        The best rate found.
    """
    size, num_products = _SIZES[device.type], _PRODUCTS[device.type]
    generator = torch.Generator(device).manual_seed(0)
    matrix = torch.randn(size, size, device=device, generator=generator)
    matrix = matrix.to(precision or torch.float32)
    product = matrix @ matrix  # also loads the library
    end = time.perf_counter() + _SECONDS
    best = float("inf")
    while best == float("inf") or time.perf_counter() < end:
        _wait(device)
        start = time.perf_counter()
        for _ in range(num_products):
            torch.mm(matrix, matrix, out=product)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 * num_products / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
