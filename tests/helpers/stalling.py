"""Videos that make a decoder wait: for a server that stops sending, or in the kernel for ever."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@contextmanager
def serve(
    folder: Path,
    *,
    stalling: tuple[str, ...] = (),
    share: float = 0.5,
    when: Callable[[int], bool] = lambda count: True,
    with_ranges: bool = True,
    busy: int = 0,
    requests: list[tuple[str, str]] | None = None,
) -> Iterator[str]:
    """A local HTTP server of a folder: its address.

    Args:
        folder: what is served.
        stalling: names of files whose bytes stop coming, with the connection left open.
        share: of such a file's bytes that can be had.
        when: whether a request for such a file stalls, by how many came before it.
        with_ranges: whether the server knows ranges, so that decoders can seek.
        busy: so many requests are refused at first, as by a server that has too much to do.
        requests: gets the path and the range of each request.
    """
    released = threading.Event()
    counters: dict[str, Iterator[int]] = defaultdict(itertools.count)  # next() is atomic

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            nonlocal busy
            path = folder / unquote(self.path.lstrip("/"))
            asked = self.headers.get("Range", "")
            if requests is not None:
                requests.append((path.name, asked))
            if busy > 0:
                busy -= 1
                self.send_error(503)
                return
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if with_ranges else None
            first = int(wanted[1]) if wanted else 0
            last = int(wanted[2]) if wanted and wanted[2] else len(content) - 1
            last = min(last, len(content) - 1)
            if wanted and first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Connection", "close")  # or FFmpeg tries to go on with this one
            if with_ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
            if wanted:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            is_stalling = path.name in stalling and when(next(counters[path.name]))
            end = int(len(content) * share) if is_stalling else len(content)
            try:
                self.wfile.write(content[first : min(last + 1, end)])
                if end <= last:
                    released.wait()
            except OSError:
                pass  # the decoder has seen enough

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # A connection beyond the queue would be tried again after a second, and then three.
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def hanging_to_open(path: Path) -> Iterator[None]:
    """Inside it, opening a regular file blocks in the kernel, as on a dead network disk.

    The lease makes another process's open() wait until it is given back, or for the system's
    `lease-break-time` (45 s).
    """
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel asks for the lease by it
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, before)
