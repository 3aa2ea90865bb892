"""Messages of a run, and facts about its data for the log."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from fvcore.common.config import CfgNode

from slowfast_maskfeat import distributed
from slowfast_maskfeat.clips import ClipLoader
from slowfast_maskfeat.files import open_file
from slowfast_maskfeat.text import printable
from slowfast_maskfeat.videos.decode import decoder_versions


def data_facts(cfg: CfgNode, loader: ClipLoader) -> dict[str, Any]:
    """Return the facts behind a result: the annotation file, its hash and the decoders."""
    videos = loader.dataset.videos
    return {
        "list": videos.source,
        "list_sha256": videos.fingerprint,
        "list_notes": list(videos.notes),
        "decoders": decoder_versions(cfg.DATA.DECODING_BACKEND),
    }


def file_sha256(path: str) -> str:
    """Hash a file or address: SHA-256 (hex).

    Raises:
        OSError: it can't be read.
    """
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while block := file.read(size, 2**22):
            digest.update(block)
            size += len(block)
    return digest.hexdigest()


def print_notes(loader: ClipLoader) -> None:
    """Print the notes on the annotation file of a split as warnings."""
    for note in loader.dataset.videos.notes:
        print_main(f"warning: {loader.dataset.videos.source}: {note}")


def print_main(message: str) -> None:
    """Print a line to stderr, in the main process only; control characters are escaped."""
    if distributed.is_main():
        print(printable(message), file=sys.stderr)
