"""Masks on token grids: resizing them, and taking the tokens that they select."""

from __future__ import annotations

import torch
from torch import Tensor

from slowfast_maskfeat.host_copies import copy_to_device
from slowfast_maskfeat.shapes import Grid

# From the version, since looking at torch._dynamo imports it.
HAS_UNBROKEN_GRAPHS = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)
"""Whether this torch (2.8 or later) compiles networks with masks without breaking their graph."""


def resize_mask(mask: Tensor, grid: Grid) -> Tensor:
    """Bring a mask to a token grid by its nearest cell.

    Args:
        mask: (B, t', h', w') bool. Along each axis its size divides that of the grid (cells are
            repeated) or is divided by it (every k-th cell is taken, the first of each group).
        grid: target grid.

    Returns:
        (B, t, h, w) bool.

    Raises:
        ValueError: a size neither divides nor is divided.
    """
    if mask.ndim != 4 or mask.dtype != torch.bool:
        raise ValueError(
            "a mask is bool and has the axes (B, t, h, w), not "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    if any(size % cells and cells % size for size, cells in zip(grid, mask.shape[1:], strict=True)):
        raise ValueError(
            f"a mask on the grid {Grid(*mask.shape[1:])} does not divide the tokens' grid {grid}; "
            "set AUG.MASK_WINDOW_SIZE to a grid that does, or leave it empty to have it derived"
        )
    steps = [max(cells // size, 1) for size, cells in zip(grid, mask.shape[1:], strict=True)]
    mask = mask[:, :: steps[0], :: steps[1], :: steps[2]]
    if mask.shape[1:] == tuple(grid):
        return mask
    repeats = [size // cells for size, cells in zip(grid, mask.shape[1:], strict=True)]
    # All axes at once, in one copy: (B, t, 1, h, 1, w, 1) -> (B, t, r, h, r, w, r)
    cells = mask[:, :, None, :, None, :, None]
    cells = cells.expand(-1, -1, repeats[0], -1, repeats[1], -1, repeats[2])
    return cells.reshape(len(mask), *grid)


def split_masks(mask: Tensor) -> tuple[Tensor, ...]:
    """Split the masks of clips, of which each has one or several.

    Args:
        mask: (B, t, h, w) or (B, m, t, h, w) bool.

    Returns:
        m masks (B, t, h, w).
    """
    return mask.unbind(1) if mask.ndim == 5 else (mask,)


def take_masked(tokens: Tensor, mask: Tensor) -> Tensor:
    """Select the tokens at the masked places.

    Their number is a shape of what follows. A mask on the CPU has it at hand; with one on a GPU the
    host waits for it.

    Args:
        tokens: (B, N, D), on any device.
        mask: (B, N) bool, on the CPU or that device.

    Returns:
        (M, D), in the order of (b, n).
    """
    return take_places(tokens, masked_places(mask, tokens.device))


def masked_places(mask: Tensor, device: torch.device) -> Tensor:
    """Find the tokens that a mask selects, see `take_masked`.

    Args:
        mask: (B, N) bool, on the CPU or the device.
        device: where to put the result.

    Returns:
        (M, 2) int64: clip and token, in order.
    """
    return copy_to_device(_true_places(mask), device)


def take_places(tokens: Tensor, places: Tensor) -> Tensor:
    """Select tokens: (B, N, D) and (M, 2), see `masked_places` -> (M, D)."""
    clips, numbers = places.unbind(1)
    return tokens[clips, numbers]


def size_of(count: Tensor, *, least: int = 0) -> int:
    """Read a count that is the size of what follows.

    Args:
        count: () int64.
        least: what it must be at least, which a graph is compiled for; outside of one it is not
            checked. Attention has another graph for no tokens than for some.

    Returns:
        Its value. In a graph of torch.compile with `fullgraph` it is a symbol, so that the graph
        neither breaks where the count is read nor holds for one value alone.
    """
    if not (torch.compiler.is_compiling() and HAS_UNBROKEN_GRAPHS):
        return int(count)  # in a graph of a torch before 2.8 it breaks here
    with torch._dynamo.patch_dynamo_config(capture_scalar_outputs=True):
        size: int = count.item()  # type: ignore[assignment]
    torch._check(size >= least)
    return size


def _true_places(mask: Tensor) -> Tensor:
    """Indices (M, 2) of the True values of a mask (B, N), in order."""
    if not (torch.compiler.is_compiling() and HAS_UNBROKEN_GRAPHS):
        return mask.nonzero()
    return torch.nonzero_static(mask, size=size_of(mask.sum()))
