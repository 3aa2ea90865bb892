"""Messages of a run, and the facts that its results are logged with."""

from __future__ import annotations

import sys
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.videos.decode import decoder_versions


def data_facts(cfg: CfgNode, loader: ClipLoader) -> dict[str, Any]:
    """What a result stands on: the list and the decoder."""
    videos = loader.dataset.videos
    return {
        "list": videos.source,
        "list_sha256": videos.fingerprint,
        "list_notes": list(videos.notes),
        "decoders": decoder_versions(cfg.DATA.DECODING_BACKEND),
    }


def tell_notes(loader: ClipLoader) -> None:
    """Say what a user should know of the list."""
    for note in loader.dataset.videos.notes:
        say(f"warning: {loader.dataset.videos.source}: {note}")


def say(message: str) -> None:
    """A line for people, from the main process alone."""
    if distributed.is_main():
        print(message, file=sys.stderr)
