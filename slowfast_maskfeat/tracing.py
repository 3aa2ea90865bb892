"""Whether torch traces a network for another program."""

from __future__ import annotations

import torch


def is_exporting() -> bool:
    """Whether torch.export traces: what it records must work for any number of clips and boxes."""
    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()
