"""A TorchScript program that fails when it is loaded; its compiler reads annotations as types."""

import torch
from torch import Tensor, nn


class LoudProgram(nn.Module):
    """Multiplies by a weight."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(2))

    def forward(self, clips: Tensor) -> Tensor:
        return clips * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return (self.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        raise RuntimeError("the program runs")
