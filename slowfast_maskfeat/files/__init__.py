"""Any path or address, read in pieces or whole; the only atomic write."""

from slowfast_maskfeat.files.base import (
    STALLED,
    FileFacts,
    OpenFile,
    SchemeError,
)
from slowfast_maskfeat.files.reading import (
    expand_home,
    has_ranges,
    is_address,
    is_file,
    is_plain_http,
    join,
    kind_of_file,
    list_names,
    open_file,
    open_text,
    read_bytes,
)
from slowfast_maskfeat.files.writing import (
    PART_SUFFIX,
    atomic_write,
)

__all__ = [
    "PART_SUFFIX",
    "STALLED",
    "FileFacts",
    "OpenFile",
    "SchemeError",
    "atomic_write",
    "expand_home",
    "has_ranges",
    "is_address",
    "is_file",
    "is_plain_http",
    "join",
    "kind_of_file",
    "list_names",
    "open_file",
    "open_text",
    "read_bytes",
]
