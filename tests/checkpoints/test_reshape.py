"""Weights of other shapes: grids that are guessed, and tables and kernels that are resized."""

from __future__ import annotations

import pytest
import torch

from slowfast_maskfeat.checkpoints.reshape import TokenLayout, guess_grid, reshape_weight
from slowfast_maskfeat.shapes import Grid


@pytest.mark.parametrize(
    ("num_tokens", "target", "expected"),
    [
        (8 * 7 * 7, Grid(8, 14, 14), Grid(8, 7, 7)),  # time stays
        (4 * 14 * 14, Grid(8, 14, 14), Grid(4, 14, 14)),  # space stays
        (14 * 14, Grid(1, 24, 24), Grid(1, 14, 14)),  # an image
        (4 * 16 * 16, Grid(8, 24, 24), Grid(4, 16, 16)),  # nearest proportions
        (7 * 3, Grid(8, 14, 14), Grid(21, 1, 1)),
    ],
)
def test_guess_of_a_grid(num_tokens: int, target: Grid, expected: Grid) -> None:
    assert guess_grid(num_tokens, target) == expected


def test_a_guess_for_an_image_is_not_that_a_video_is_one() -> None:
    assert guess_grid(4 * 14 * 14, Grid(1, 14, 14)) == Grid(1, 28, 28)
    assert guess_grid(4 * 14 * 14, Grid(1, 14, 14), min_steps=2) == Grid(4, 14, 14)
    assert guess_grid(3 * 5, Grid(1, 2, 2), min_steps=16) is None


def test_a_joint_table_of_a_ramp_stays_a_ramp() -> None:
    """Resizing keeps the axes apart: position = 100 t + 10 h + w, away from the borders."""
    source, target = Grid(6, 8, 8), Grid(3, 4, 4)
    axes = torch.meshgrid(*(torch.arange(n) + 0.5 for n in source), indexing="ij")
    table = (100 * axes[0] + 10 * axes[1] + axes[2]).reshape(1, -1, 1)
    table = torch.cat((torch.full((1, 1, 1), -7.0), table), dim=1)
    change = reshape_weight(
        "pos_embed",
        table,
        (1, 1 + target.num_tokens, 1),
        source=TokenLayout(True, source),
        target=TokenLayout(True, target),
        inflate="mean",
    )
    assert change is not None
    assert change.value[0, 0] == -7.0
    got = change.value[0, 1:, 0].reshape(target)
    axes = torch.meshgrid(*(2 * (torch.arange(n) + 0.5) for n in target), indexing="ij")
    expected = 100 * axes[0] + 10 * axes[1] + axes[2]
    torch.testing.assert_close(got[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])


def test_shapes_that_do_not_go_together() -> None:
    unknown = TokenLayout(True, None)
    known = TokenLayout(False, Grid(1, 4, 4))
    for source, target in (
        (TokenLayout(True, None), known),  # a class token more
        (TokenLayout(False, Grid(1, 3, 3)), known),  # 25 tokens are not those of 3x3
    ):
        change = reshape_weight(
            "pos_embed",
            torch.zeros(1, 25, 8),
            (1, 16, 8),
            source=source,
            target=target,
            inflate="mean",
        )
        assert change is None
    for name, old, new in [
        ("blocks.0.attn.rel_pos_h", (27, 96), (13, 64)),
        ("pos_embed", (1, 17, 8), (1, 65, 8)),  # the model's grid is not known
        ("pos_embed_spatial", (1, 15, 8), (1, 64, 8)),  # not square
        ("patch_embed.proj.weight", (8, 3, 3, 7, 7), (8, 3, 2, 7, 7)),
        ("patch_embed.proj.weight", (8, 3, 7, 7), (8, 3, 3, 8, 8)),
        ("blocks.0.mlp.fc1.weight", (8, 3), (8, 4)),
    ]:
        change = reshape_weight(
            name, torch.zeros(old), new, source=unknown, target=unknown, inflate="mean"
        )
        assert change is None, name


def test_a_kernel_of_one_frame_may_have_four_or_five_axes() -> None:
    kernel, unknown = torch.randn(8, 3, 7, 7), TokenLayout(False, None)
    for old, new in ((kernel, kernel[:, :, None]), (kernel[:, :, None], kernel)):
        change = reshape_weight(
            "patch_embed.proj.weight",
            old,
            tuple(new.shape),
            source=unknown,
            target=unknown,
            inflate="mean",
        )
        assert change is not None
        assert torch.equal(change.value, new)
