"""torch.compile of a network: of the whole, or of each transformer block alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from types import FunctionType
from typing import Any

import torch
from pytorchvideo.layers.drop_path import DropPath
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from slowfast_maskfeat.backbones import masking
from slowfast_maskfeat.backbones.block import MultiscaleBlock


def compiled(model: nn.Module, mode: str, **options: Any) -> nn.Module:
    """Compile a network; what it computes and the names of its parameters stay.

    Of several processes each compiles its network before DDP wraps it, as torch documents (PyTorch
    documentation, "Where to apply torch.compile?": the inner module is compiled, and passed to the
    wrapper). Gradients are then still exchanged while backward runs: the graph of a whole model is
    split where a bucket of DDP is full (DDPOptimizer, PyTorch documentation, notes on DDP), and the
    backward pass of each block is a node of its own, after which its buckets can go.

    Args:
        model: changed in place with "block" and `compiled_parts`.
        mode: "model": one graph, or one for each of the methods that the network names in
            `compiled_parts`, and none of the rest; "block": one for all blocks that are equal,
            which compiles faster, since a network has few kinds of blocks; "": none.
        **options: of torch.compile.

    Returns:
        The network to call in place of `model`.

    Raises:
        ValueError: the network has no transformer blocks to compile alone.
    """
    if not mode:
        return model
    parts: tuple[str, ...] = getattr(model, "compiled_parts", ())
    if mode == "model" and parts:
        for name in parts:
            part = torch.compile(
                getattr(model, name), fullgraph=masking.HAS_UNBROKEN_GRAPHS, **options
            )
            setattr(model, name, part)
        return model
    if mode == "model":
        # With `fullgraph` torch keeps a size that is read from a mask as a symbol of the graph.
        whole: nn.Module = torch.compile(  # type: ignore[assignment]
            model, fullgraph=masking.HAS_UNBROKEN_GRAPHS, **options
        )
        whole.register_forward_pre_hook(_fix_all_but_batch)
        return whole
    assert mode == "block", mode
    blocks = [module for module in model.modules() if isinstance(module, MultiscaleBlock)]
    if not blocks:
        raise ValueError(
            "TRAIN.COMPILE must be '' or 'model' for a network without transformer blocks "
            f"({type(model).__name__}), got 'block'"
        )
    runs: dict[Hashable, Callable[..., Any]] = {}
    for block in blocks:
        _let_rates_differ(block)
        kind = _kind(block)
        if kind not in runs:
            runs[kind] = torch.compile(_own_code(len(runs)), **options)
        block.forward = partial(runs[kind], block)  # type: ignore[method-assign]
        block.has_own_graph = True
    return model


def _fix_all_but_batch(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Have a graph compiled for each size of clips and masks, and one for any number of them.

    A validation in another size would otherwise make height and width symbols. The grids of all
    blocks then are formulas of these, and torch (2.13) compiled a tiny network for minutes.
    """
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, Tensor) and tensor.ndim > 2:  # others are lists, as of boxes
            torch._dynamo.mark_static(tensor, list(range(1, tensor.ndim)))


def _kind(block: MultiscaleBlock) -> Hashable:
    """Equal for blocks that one compiled function serves."""
    shapes = [(name, tensor.shape) for name, tensor in block.state_dict().items()]
    geometry = block.attn.geometry
    return (
        *shapes,
        geometry.num_heads,
        geometry.stride_q,
        geometry.stride_kv,
        type(block.drop_path),
    )


def _own_code(number: int) -> Callable[..., Any]:
    """The forward pass of a block with a code object of its own.

    torch keeps what it compiled, and which sizes it saw change, by code object: blocks of other
    sizes would make it compile for variable sizes, and soon reach its limit.
    """
    forward = MultiscaleBlock.forward
    code = forward.__code__.replace(co_name=f"forward_of_kind_{number}")
    return FunctionType(code, forward.__globals__, code.co_name, forward.__defaults__)


def _let_rates_differ(block: MultiscaleBlock) -> None:
    """Keep blocks equal that differ in the rate of drop path, which a graph would fix."""
    rate = block.drop_path.drop_prob
    if type(block.drop_path) is DropPath and rate:
        device = next(block.parameters()).device
        block.drop_path = _TensorDropPath(rate).to(device).train(block.training)


class _TensorDropPath(DropPath):  # type: ignore[misc]
    """Drop path whose rate is a tensor.

    Args:
        rate: share of the samples that lose the path in training, > 0.
    """

    kept: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.register_buffer("kept", torch.tensor(1.0 - rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training:
            return x
        kept = self.kept.to(x.dtype)
        draws = torch.rand((len(x), *(1,) * (x.ndim - 1)), dtype=x.dtype, device=x.device)
        return x / kept * (draws + kept).floor()
