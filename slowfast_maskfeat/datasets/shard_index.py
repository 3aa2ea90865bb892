"""Index files of tar shards, stored beside the shards or in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict

from slowfast_maskfeat.datasets.shard_scan import TIMEOUT, ShardIndex, scan_shard, shard_facts
from slowfast_maskfeat.files import FileFacts, atomic_write, is_address, read_bytes

_ENDING = ".index.json"
_FORM = 3


def load_index(shard: str, label: str, cache: str) -> ShardIndex | None:
    """Load the stored index of a shard, if it is up to date.

    The index of a local shard must have the size and modification time of the shard. For an index
    beside a remote shard the size suffices, since an upload changes the time.

    Args:
        shard: path or address of the tar file.
        label: DATA.SHARD_LABEL.
        cache: folder of indices that cannot be stored beside their shards; "" for
            `slowfast_maskfeat/shards` in the user's cache folder.

    Returns:
        The index, or None.

    Raises:
        ShardError: the shard cannot be read.
    """
    facts = shard_facts(shard)
    for path in (shard + _ENDING, _in_cache(shard, cache)):
        found = _load(path)
        if found is None or found.label != label:
            continue
        if is_address(shard) and path == shard + _ENDING:
            found.shard_version = facts.version
        if facts == _facts_of(found):
            return found
    return None


def make_index(shard: str, label: str, cache: str) -> ShardIndex:
    """Scan a shard and store its index.

    Raises:
        ShardError: see `scan_shard`.
    """
    index = scan_shard(shard, label)
    save_index(index, shard, cache)
    return index


def save_index(index: ShardIndex, shard: str, cache: str) -> None:
    """Store an index beside its shard, else in the cache folder; not at all if both fail."""
    text = json.dumps({"form": _FORM, **asdict(index)}, separators=(",", ":"))
    places = [_in_cache(shard, cache)]
    if not is_address(shard):
        places.insert(0, shard + _ENDING)
    for place in places:
        try:
            # Processes on several machines may write the same index.
            with atomic_write(place, shared=True) as part:
                part.write_text(text, encoding="ascii")
        except OSError:
            continue  # read-only or full: the shard will be scanned again
        return


def _facts_of(index: ShardIndex) -> FileFacts:
    return FileFacts(index.shard_bytes, index.shard_version)


def _in_cache(shard: str, cache: str) -> str:
    if not cache:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        cache = os.path.join(home, "slowfast_maskfeat", "shards")
    whole = shard if is_address(shard) else os.path.abspath(shard)
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()
    return os.path.join(cache, f"{digest[:32]}{_ENDING}")


def _load(path: str) -> ShardIndex | None:
    """Read an index file; None if it is missing or unusable."""
    try:
        content = json.loads(read_bytes(path, timeout=TIMEOUT))
        if content.pop("form") != _FORM:
            return None
        index = ShardIndex(**content)
        columns = index.names, index.offsets, index.sizes, index.labels, index.label_kinds
        return index if len({len(column) for column in columns}) == 1 else None
    except Exception:  # missing, truncated or another format: the shard is scanned instead
        return None
