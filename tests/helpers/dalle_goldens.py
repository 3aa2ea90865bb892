"""Checks of DALL-E's networks against their goldens, for tests/test_method_goldens.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from helpers.method_goldens import MethodGolden, numbers_in
from torch import Tensor

from slowfast_maskfeat.tokenizers import (
    DVAE,
    DalleDecoder,
    DalleEncoder,
    LogitLaplaceReconstruction,
)

# Tokens whose two largest logits are closer may differ by rounding (README of the goldens).
SMALLEST_MARGIN = 1e-3
# Of the groups, in widths of the first (github.com/openai/DALL-E, dall_e/encoder.py).
WIDTHS = (1, 2, 4, 8)


def check_dalle_dvae(golden: MethodGolden) -> None:
    """Compares logits, tokens and pictures of small networks."""
    names = golden.settings["encoder_names"], golden.settings["decoder_names"]
    kind = LogitLaplaceReconstruction()
    of_encoder, of_decoder = (_widths(part) for part in names)
    vocabulary = golden.settings["encoder"]["vocab_size"]
    encoder = DalleEncoder(of_encoder[0], num_blocks=of_encoder[1], out_channels=vocabulary)
    decoder = DalleDecoder(
        vocabulary,
        golden.settings["decoder_n_init"],
        of_decoder[0],
        num_blocks=of_decoder[1],
        out_channels=kind.num_channels,
    )
    for part, own in zip(names, (encoder, decoder), strict=True):
        assert {name: list(value.shape) for name, value in own.state_dict().items()} == part
    model = DVAE(encoder, decoder, code_dim=None, reconstruction=kind).to(golden.dtype)
    encoder.load_state_dict(golden.weights(names[0]))
    decoder.load_state_dict(golden.weights(names[1], "decoder."))
    images = golden.input("image")
    with torch.no_grad():
        golden.compare("mapped", kind.scaled(images))
        logits = model.logits(images)
        golden.compare("logits", logits)
        highest = logits.topk(2, dim=1).values
        golden.compare("margin", highest[:, 0] - highest[:, 1])
        _compare_tokens(golden, model.encode(images), golden.raw("margin"))
        codes = torch.from_numpy(golden.raw("tokens")).long()
        golden.compare("decoder_out", model.decoder_output(codes))
        golden.compare("reconstruction", model.decode(codes).to(golden.dtype))


def check_dalle_encoder(golden: MethodGolden) -> None:
    """Compares logits and tokens of the encoder in its published size."""
    words = r"n_hid (\d+), (\d+) blocks a group, (\d+) tokens"
    width, num_blocks, num_tokens = (int(n) for n in numbers_in(golden.description, words))
    widths = [width * factor for factor in WIDTHS]
    encoder = DalleEncoder(widths, num_blocks=num_blocks, out_channels=num_tokens)
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert sum(value.numel() for value in encoder.parameters()) == golden.settings["parameters"]
    model = DVAE(encoder, None, code_dim=None, reconstruction=LogitLaplaceReconstruction())
    model.to(golden.dtype)
    encoder.load_state_dict(golden.weights(shapes))
    with torch.no_grad():
        logits = model.logits(golden.input("image"))
    highest = logits.topk(2, dim=1).values
    golden.compare("logits", logits)
    golden.compare("top2_values", highest)
    _compare_tokens(golden, logits.argmax(dim=1), (highest[:, 0] - highest[:, 1]).numpy())


def _compare_tokens(golden: MethodGolden, tokens: Tensor, margin: np.ndarray) -> None:
    is_clear = margin > SMALLEST_MARGIN
    assert is_clear.any()
    assert (tokens.numpy()[is_clear] == golden.raw("tokens")[is_clear]).all()
    golden.accept("tokens")


def _widths(names: Mapping[str, Sequence[int]]) -> tuple[list[int], int]:
    """The widths of groups and their number of blocks, by the shapes of weights."""
    groups = sorted({name.split(".")[1] for name in names if name.startswith("blocks.group_")})
    blocks = {name.split(".")[2] for name in names if name.startswith(f"blocks.{groups[0]}.")}
    last = "block_1.res_path.conv_4.w"
    return [names[f"blocks.{group}.{last}"][0] for group in groups], len(blocks)


DALLE_CHECKS = {"dalle_dvae": check_dalle_dvae, "dalle_encoder_full": check_dalle_encoder}
