"""The index of a tar shard is kept, in a small file beside it or in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict

from slowfast_maskfeat.datasets.shard_scan import TIMEOUT, ShardIndex, scan_shard, shard_facts
from slowfast_maskfeat.files import FileFacts, atomic_write, is_address, read_bytes

_ENDING = ".index.json"
_FORM = 1


def load_index(shard: str, label: str, cache: str) -> ShardIndex | None:
    """The index that was kept of a shard, if it is still that of this shard.

    One beside a local shard must have its size and time of change. One beside a remote shard was
    put there with it, and the size must be the same: times do not survive an upload.

    Args:
        shard: Path or address of the tar file.
        label: DATA.SHARD_LABEL.
        cache: Folder of the indices that can't lie beside their shards; "" for
            `slowfast_maskfeat/shards` in the user's cache folder.

    Raises:
        ShardError: The shard can't be read.
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
    """Read what is in a shard, and keep it.

    Raises:
        ShardError: See `scan_shard`.
    """
    index = scan_shard(shard, label)
    save_index(index, shard, cache)
    return index


def save_index(index: ShardIndex, shard: str, cache: str) -> None:
    """Keep an index beside its shard, or else in the cache folder, or else not at all."""
    text = json.dumps({"form": _FORM, **asdict(index)}, separators=(",", ":"))
    places = [_in_cache(shard, cache)]
    if not is_address(shard):
        places.insert(0, shard + _ENDING)
    for place in places:
        try:
            # Processes of several machines may write one index at once.
            with atomic_write(place, shared=True) as part:
                part.write_text(text, encoding="ascii")
        except OSError:
            continue  # read-only, or full: it will be read anew the next time
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
    """An index, or None where there is none that can be read."""
    try:
        content = json.loads(read_bytes(path, timeout=TIMEOUT))
        if content.pop("form") != _FORM:
            return None
        index = ShardIndex(**content)
        columns = index.names, index.offsets, index.sizes, index.labels, index.label_kinds
        return index if len({len(column) for column in columns}) == 1 else None
    except Exception:  # absent, cut, of another form: the shard itself says it
        return None
