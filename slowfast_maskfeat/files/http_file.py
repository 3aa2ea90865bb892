"""Reading over HTTP, whole or in ranges, with a check of what the server returned."""

from __future__ import annotations

import time
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, Request, build_opener

from slowfast_maskfeat.files.base import STALLED, FileFacts, OpenFile
from slowfast_maskfeat.text import quoted

# Characters that are not escaped in a URL, including "%": it may already be escaped.
_URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"
# Seconds to wait before each retry if a server is busy or has closed the connection.
_RETRY_DELAYS = (0.2, 1.0)
_BUSY = frozenset({429, 500, 502, 503, 504})
_ABSENT = frozenset({404, 410})


class _Redirects(HTTPRedirectHandler):
    """Follow a server to HTTP addresses only: an FTP server could leave the reader waiting."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not newurl.startswith(("http://", "https://")):
            reason = f"leads to {quoted(newurl)}, which is not an HTTP address"
            raise HTTPError(req.full_url, code, reason, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class HttpFile(OpenFile):
    """A file on an HTTP server: each read is one request, whose response is checked.

    Args:
        path: its address.
        timeout: seconds without data after which reading fails; 0 for no limit.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout or None

    def read(self, start: int = 0, size: int | None = None) -> bytes:
        """See `OpenFile.read`."""
        if size == 0:
            return b""
        last = "" if size is None else str(start + size - 1)
        is_whole = start == 0 and size is None
        requested = {} if is_whole else {"Range": f"bytes={start}-{last}"}
        status, headers, content = self._request(requested, with_content=True)
        if status == 416:
            return b""
        if is_whole or status == 206:
            content_range = headers.get("Content-Range", "")
            if status == 206 and not content_range.startswith(f"bytes {start}-"):
                raise OSError(f"Content-Range must begin at byte {start}, got {content_range!r}")
            return content
        raise OSError("the server must support HTTP ranges, to read a part of a file")

    def facts(self) -> FileFacts:
        """See `OpenFile.facts`."""
        # Not HEAD: signed addresses are valid for one method, and some servers support only GET.
        status, headers, _ = self._request({"Range": "bytes=0-0"}, with_content=False)
        size = headers.get("Content-Length")
        if status in (206, 416):
            size = headers.get("Content-Range", "").rpartition("/")[2]
        if not (size or "").isdigit():
            raise OSError("the server does not report the file size")
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        return FileFacts(int(size), version)

    def _request(self, headers: dict[str, str], *, with_content: bool) -> tuple[int, Any, bytes]:
        """Status, headers and content of a response; temporary errors are retried."""
        for delay in (*_RETRY_DELAYS, None):
            try:
                request = Request(quote(self._path, safe=_URL_CHARACTERS), headers=headers)
                with build_opener(_Redirects).open(request, timeout=self._timeout) as response:
                    # If the server ignored the range, its whole file is not downloaded.
                    is_requested = with_content and (response.status == 206 or not headers)
                    content = response.read() if is_requested else b""
                    return response.status, response.headers, content
            except HTTPError as error:
                error.close()
                if error.code == 416:
                    return error.code, error.headers, b""
                if error.code in _ABSENT:
                    raise FileNotFoundError(f"no such file (HTTP {error.code})") from error
                if error.code not in _BUSY or delay is None:
                    raise OSError(f"HTTP {error.code} {error.reason}") from error
            except TimeoutError as error:
                raise TimeoutError(STALLED) from error
            except (URLError, HTTPException, ConnectionError) as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, TimeoutError):
                    raise TimeoutError(STALLED) from error
                if delay is None:
                    raise OSError(f"{type(error).__name__}: {reason}") from error
            time.sleep(delay)
        raise AssertionError("the last attempt returns or raises")
