"""Media files that name other files, addresses, ports or programs: nothing else is opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import hostile_media
from helpers.hostile_media import SECRET, WAYS, playlist, write_hostile
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.videos.decode import DecodeError, available_backends, open_video

if sys.platform == "linux":
    from helpers.forbidden_calls import can_forbid, opened_in
    from helpers.stalling import serve

ROOT = Path(__file__).parents[2]
DECODERS = ["auto", *(name for name, note in available_backends().items() if "absent" not in note)]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not can_forbid(), reason="watches the calls of Linux's kernel"
)


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A folder that only the hostile files name."""
    folder = tmp_path_factory.mktemp("secret")
    for name in (f"{SECRET}.mp4", f"{SECRET}.ts"):
        write_video(folder / name, numbered_frames(12))
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, secret):
    folder = tmp_path_factory.mktemp("media") / "hostile"
    folder.mkdir()
    write_hostile(folder, secret)
    write_video(folder.parent / "good.mp4", numbered_frames(12))
    return folder


def _run(backend: str, way: str, folder: Path) -> tuple[int, list[str]]:
    """Exit code and output of a process that opens the files of a folder."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, hostile_media.__file__, backend, way, str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", DECODERS)
def test_no_socket_no_other_file_and_no_program_is_opened(backend, way, hostile, secret):
    if way == "resize" and backend != "auto":
        pytest.skip("resizing has one decoder")
    names = sorted(path.name for path in hostile.iterdir() if not path.is_symlink())
    with opened_in(secret) as opened:
        code, lines = _run(backend, way, hostile)
    assert code != -signal.SIGSYS, f"a socket or a program: {lines[-1]}"
    assert code == 0
    assert opened == set()
    assert [line.split()[0] for line in lines] == names
    # A transport stream with a text before it may be read as the video that it is.
    outcomes = {name: line for name, line in zip(names, lines, strict=True) if "both" not in name}
    assert {line.split()[1] for line in outcomes.values()} == {"refused"}


def test_the_watch_sees_a_socket_a_program_and_a_file(secret):
    code = "from helpers.forbidden_calls import forbid_sockets_and_programs as forbid; forbid(); "
    for act in ("import socket; socket.socket()", "import os; os.execv('/bin/true', ['true'])"):
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run([sys.executable, "-c", code + act], env=env, timeout=60)
        assert done.returncode == -signal.SIGSYS
    with opened_in(secret) as opened:
        (secret / f"{SECRET}.ts").read_bytes()
    assert opened == {f"{SECRET}.ts"}


@pytest.mark.parametrize("backend", DECODERS)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ts", "a"])
def test_an_address_that_answers_with_a_playlist_fetches_nothing_more(
    backend, name, tmp_path, secret
):
    write_video(tmp_path / "other.ts", numbered_frames(12))
    requests: list[tuple[str, str]] = []
    with serve(tmp_path, requests=requests) as address, opened_in(secret) as opened:
        entries = (f"{address}/other.ts", "other.ts", f"{secret}/{SECRET}.ts")
        (tmp_path / name).write_text(playlist(*entries, f"file://{secret}/{SECRET}.ts"))
        with pytest.raises(DecodeError):
            open_video(f"{address}/{name}", backend)
    assert {path for path, _ in requests} == {name}
    assert opened == set()


@pytest.mark.parametrize("backend", DECODERS)
def test_a_server_that_answers_two_readers_differently_reaches_one_of_them(
    backend, tmp_path, secret
):
    """PyAV sees a video, and a decoder that fetched it once more would get a playlist."""
    good = write_video(tmp_path / "good.mp4", numbered_frames(12)).read_bytes()
    (tmp_path / "a.mp4").write_bytes(good)
    requests: list[tuple[str, str]] = []

    def swap(count: int) -> bool:
        hostile = playlist(f"{address}/other.ts", f"{secret}/{SECRET}.ts")
        (tmp_path / "a.mp4").write_text(hostile)
        return False

    with (
        serve(tmp_path, stalling=("a.mp4",), when=swap, requests=requests) as address,
        opened_in(secret) as opened,
        open_video(f"{address}/a.mp4", backend) as video,
    ):
        assert video.num_frames == 12
    assert {path for path, _ in requests} == {"a.mp4"}
    assert opened == set()


@pytest.mark.parametrize("chain", ["", "simplecache::"])
def test_ftp_is_refused_by_name_at_once(chain):
    with pytest.raises(ValueError, match="ftp:// can't be opened"):
        open_video(f"{chain}ftp://127.0.0.1:9/a.mp4")
