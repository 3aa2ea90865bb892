"""Files at paths and at addresses: the same bytes, and errors that say what is wrong."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import fsspec
import pytest
from helpers.stalling import serve
from iopath.common.file_io import PathHandler, g_pathmgr

from slowfast_maskfeat.files import (
    is_file,
    join,
    list_names,
    open_file,
    open_text,
    read_bytes,
)

CONTENT = bytes(range(256)) * 300
NAME = "a piece é.bin"


class _LabHandler(PathHandler):
    """What a laboratory would register for its own store."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def _get_supported_prefixes(self):
        return ["lab://"]

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        return open(self._inside(path), mode)

    def _isfile(self, path, **kwargs):
        return self._inside(path).is_file()

    def _isdir(self, path, **kwargs):
        return self._inside(path).is_dir()

    def _ls(self, path, **kwargs):
        return os.listdir(self._inside(path))

    def _inside(self, path):
        return self.root / path.removeprefix("lab://")


@pytest.fixture(params=["local", "http", "memory", "iopath"])
def folder(request, tmp_path):
    """A folder of each kind with the same two files."""
    (tmp_path / NAME).write_bytes(CONTENT)
    (tmp_path / "empty").touch()
    with ExitStack() as stack:
        if request.param == "local":
            yield str(tmp_path)
        elif request.param == "http":
            yield stack.enter_context(serve(tmp_path))
        elif request.param == "memory":
            store = fsspec.filesystem("memory")
            store.pipe({f"/files/{NAME}": CONTENT, "/files/empty": b""})
            stack.callback(store.rm, "/files", recursive=True)
            yield "memory://files"
        else:
            g_pathmgr.register_handler(_LabHandler(tmp_path))
            stack.callback(g_pathmgr._path_handlers.pop, "lab://")
            yield "lab://"


def test_every_kind_of_place_gives_the_same_bytes(folder):
    path = join(folder, NAME)
    assert read_bytes(path) == CONTENT
    assert is_file(path)
    assert not is_file(join(folder, "absent"))
    with open_file(path) as file:
        assert file.facts().size == len(CONTENT)
        for start, size in ((0, 10), (1000, 512), (len(CONTENT) - 5, 5), (7, None), (9, 0)):
            end = None if size is None else start + size
            assert file.read(start, size) == CONTENT[start:end]
        assert file.read(len(CONTENT) - 5, 100) == CONTENT[-5:]  # fewer where it ends
    with open_file(join(folder, "empty")) as file:
        assert file.facts().size == 0
        assert file.read() == b""
    if not folder.startswith("http"):
        assert list_names(folder) == [NAME, "empty"]
        assert list_names(join(folder, "nowhere")) == []
    with pytest.raises(FileNotFoundError):
        read_bytes(join(folder, "absent"))


def test_a_change_shows_in_the_facts(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    with open_file(str(path)) as file:
        before = file.facts()
    os.utime(path, ns=(1, 1))
    with open_file(str(path)) as file:
        assert file.facts().size == before.size
        assert file.facts().version != before.version


def test_joining_keeps_whole_paths_and_addresses():
    assert join("s3://bucket/lists", "a/b.mp4") == "s3://bucket/lists/a/b.mp4"
    assert join("memory://", "b.mp4") == "memory://b.mp4"
    assert join("/data", "http://host/b.mp4") == "http://host/b.mp4"
    assert join("s3://bucket", "/data/b.mp4") == "/data/b.mp4"
    assert join("/data", "b.mp4") == "/data/b.mp4"
    assert join("", "b.mp4") == "b.mp4"


def test_a_server_without_ranges_gives_whole_files_and_no_pieces(tmp_path):
    (tmp_path / "x.bin").write_bytes(CONTENT)
    with serve(tmp_path, with_ranges=False) as address:
        path = f"{address}/x.bin"
        assert read_bytes(path) == CONTENT
        with open_file(path) as file:
            assert file.facts().size == len(CONTENT)
            with pytest.raises(OSError, match="must support HTTP ranges"):
                file.read(1000, 10)


def test_a_busy_server_is_asked_again_and_a_stalled_one_given_up(tmp_path):
    (tmp_path / "x.bin").write_bytes(CONTENT)
    with serve(tmp_path, busy=1) as address:
        assert read_bytes(f"{address}/x.bin") == CONTENT
    with serve(tmp_path, busy=100) as address, pytest.raises(OSError, match="HTTP 503"):
        read_bytes(f"{address}/x.bin")
    with (
        serve(tmp_path, stalling=("x.bin",)) as address,
        pytest.raises(TimeoutError, match="stalled: no data"),
    ):
        read_bytes(f"{address}/x.bin", timeout=0.3)


class _ToFtp(BaseHTTPRequestHandler):
    """Sends every client to the same port of an FTP server."""

    def do_GET(self):
        self.server.clients.append(self.path)
        self.send_response(302)
        host, port = self.server.server_address[:2]
        self.send_header("Location", f"ftp://{host}:{port}/x.bin")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_server_cannot_lead_to_another_protocol():
    with HTTPServer(("127.0.0.1", 0), _ToFtp) as server:
        server.clients = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/x.bin"
        with pytest.raises(OSError, match="HTTP 302 leads to 'ftp://"):
            read_bytes(address)
        server.shutdown()
        assert server.clients == ["/x.bin"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s4://bucket/x", "s4:// can't be opened: Protocol not known"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x: cannot be read: URLError"),
    ],
)
def test_an_address_that_nothing_opens_is_one_clear_error(path, message):
    for ask in (is_file, lambda path: open_text(path).__enter__()):
        with pytest.raises(ValueError, match=message):
            ask(path)


def test_a_text_that_is_read_by_bytes_must_be_utf8(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n", encoding="utf-16")
    with open_text(str(tmp_path / "x.csv")) as file:
        assert file.read() == "a,b\n"
    with (
        pytest.raises(ValueError, match=r"x\.csv must be text in UTF-8, got UTF-16; convert it"),
        open_text(str(tmp_path / "x.csv"), encoding="latin-1"),
    ):
        pass


def test_an_http_folder_can_not_be_listed():
    with pytest.raises(ValueError, match="does not list its files"):
        list_names("http://127.0.0.1:9/x")
