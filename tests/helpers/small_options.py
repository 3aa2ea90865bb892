"""Options of an encoder by keyword, those of its blocks among them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from slowfast_maskfeat.backbones import BlockOptions, EncoderOptions

_OF_BLOCKS = {field.name for field in fields(BlockOptions)}


def encoder_options(**values: Any) -> EncoderOptions:
    """`EncoderOptions` whose `block` has the values that are a block's."""
    block = {name: value for name, value in values.items() if name in _OF_BLOCKS}
    others = {name: value for name, value in values.items() if name not in _OF_BLOCKS}
    return EncoderOptions(**others, block=BlockOptions(**block))
