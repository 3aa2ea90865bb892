"""Check of a configuration from a checkpoint, before a model is allocated from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from slowfast_maskfeat.backbones.meta_shapes import on_meta
from slowfast_maskfeat.checkpoints import read_weights
from slowfast_maskfeat.log import first_line
from slowfast_maskfeat.text import cut

# Position tables of a larger grid, and a new classifier, make a model larger than its file.
_MAX_FACTOR, _MAX_MORE = 8, 2**24
_MAX_CONSTANTS = 2**28  # such as the coordinates of tokens; no file has them


def check_model_size(
    build: Callable[[], nn.Module], checkpoint: str | os.PathLike[str], content: Mapping[str, Any]
) -> None:
    """Check that a configuration describes a model about as large as a checkpoint's weights.

    The model is built on the meta device, where tensors have shapes but no memory.

    Args:
        build: builds the model from the configuration.
        checkpoint: path of the checkpoint, for messages.
        content: content of the checkpoint.

    Raises:
        ValueError: the model is far larger, has too many constants, or can't be built.
    """
    try:
        with on_meta():
            model = build()
    except ValueError:
        raise
    except Exception as error:  # on values from any file, torch can raise anything
        if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
            return  # a backbone of an extension that reads its initial values
        raise ValueError(
            f"{checkpoint}: no model can be built from its configuration: "
            f"{type(error).__name__}: {cut(first_line(error))}"
        ) from error
    num_constants = sum(buffer.numel() for buffer in model.buffers())
    if num_constants > _MAX_CONSTANTS:
        raise ValueError(
            f"{checkpoint}: the configuration describes a model with {num_constants:,} constants, "
            f"which must be at most {_MAX_CONSTANTS:,}; reduce DATA.TRAIN_CROP_SIZE or "
            "DATA.NUM_FRAMES"
        )
    size = sum(value.numel() for value in model.state_dict().values())
    stored = sum(
        value.numel() for value in read_weights(checkpoint, content=content).weights.values()
    )
    if size > _MAX_FACTOR * stored + _MAX_MORE:
        raise ValueError(
            f"{checkpoint}: the configuration describes a model of {size:,} weights, but the file "
            f"has {stored:,}; use the configuration that it was trained with"
        )
