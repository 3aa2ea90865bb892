"""Videos in a store: only the parts that a decoder needs are requested."""

from __future__ import annotations

import io

import av
import fsspec
import numpy as np
import pytest
from helpers.videos_on_disk import numbered_frames, write_video

from slowfast_maskfeat.videos import _remote_file
from slowfast_maskfeat.videos._remote_file import RemoteFile
from slowfast_maskfeat.videos.decode import DecodeError, MissingFileError, open_around, open_video
from slowfast_maskfeat.videos.decode_options import DecodeOptions

BLOCK = 4096


@pytest.fixture
def store(monkeypatch):
    """A local file system that acts as a store and counts the bytes that are requested of it."""
    monkeypatch.setattr(_remote_file, "_BLOCK", BLOCK)
    files = fsspec.filesystem("memory")
    requests = []
    read = type(files).cat_file

    def cat_file(self, path, start=None, end=None, **options):
        content = read(self, path, start=start, end=end, **options)
        requests.append(len(content))
        return content

    monkeypatch.setattr(type(files), "cat_file", cat_file)
    yield files, requests
    files.store.clear()


def _put(store, path, name="clip.mp4"):
    files, requests = store
    files.pipe_file(f"/videos/{name}", path.read_bytes())
    requests.clear()
    return f"memory://videos/{name}", requests, path.stat().st_size


def _noisy(num_frames):
    """Frames that compress badly, so that the media data is nearly all of the file."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (num_frames, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265", "libvpx-vp9"])
def test_a_clip_of_a_long_video_needs_a_part_of_it(tmp_path, store, codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = tmp_path / "clip.mp4"
    write_video(path, _noisy(400), fps=30, codec=codec, gop=10)
    address, requests, size = _put(store, path)
    indices = [60, 62, 64, 66]
    with open_video(str(path), "pyav") as local, open_video(address, "pyav") as remote:
        assert np.array_equal(local.timestamps, remote.timestamps)
        assert (local.num_frames, local.fps, local.duration) == (
            remote.num_frames,
            remote.fps,
            remote.duration,
        )
        assert np.array_equal(local.frames(indices), remote.frames(indices))
    if codec != "mpeg4":  # whose frames FFmpeg looks into, so all are read
        assert sum(requests) < 0.6 * size
    assert sum(requests) < 1.1 * size


def test_a_window_of_a_movie_needs_a_part_of_it(tmp_path, store):
    path = tmp_path / "movie.mkv"
    write_video(path, _noisy(300), fps=30, gop=10)
    address, requests, size = _put(store, path, "movie.mkv")
    found = [
        open_around(where, lambda duration: 5.0, seconds=0.3, options=DecodeOptions(backend="pyav"))
        for where in (str(path), address)
    ]
    (local, timestamp), (remote, same) = found
    with local, remote:
        assert timestamp == same
        assert np.array_equal(local.timestamps, remote.timestamps)
        every = range(local.num_frames)
        assert np.array_equal(local.frames(every), remote.frames(every))
    assert 0 < sum(requests) < 0.5 * size


def test_other_decoders_get_the_whole_file(tmp_path, store):
    path = tmp_path / "clip.mp4"
    write_video(path, numbered_frames(20), fps=30)
    address, requests, size = _put(store, path)
    with open_video(address) as remote, open_video(str(path), "pyav") as local:
        assert np.array_equal(remote.frames([3, 7]), local.frames([3, 7]))
    assert sum(requests) <= 2 * size


def test_a_reader_is_a_file_of_the_same_bytes(store):
    files, requests = store
    content = np.random.default_rng(1).bytes(10 * BLOCK + 5)
    files.pipe_file("/a.bin", content)
    requests.clear()
    file = RemoteFile("memory://a.bin")
    own, real = io.BufferedReader(file.reader(), 64), io.BytesIO(content)
    for offset, whence, size in [
        (9, 0, 20),
        (-7, 2, 100),
        (5 * BLOCK - 3, 0, 8),
        (10, 1, 3 * BLOCK),
    ]:
        assert own.seek(offset, whence) == real.seek(offset, whence)
        assert own.read(size) == real.read(size)
    assert own.seek(0) == 0
    assert own.read() == content
    assert file.num_fetched == sum(requests) == len(content)  # nothing is requested twice
    assert file.read_all() == content


def test_requests_of_a_whole_file_grow(store):
    files, requests = store
    files.pipe_file("/b.bin", bytes(200 * BLOCK))
    requests.clear()
    assert len(RemoteFile("memory://b.bin").reader().read()) == 200 * BLOCK
    assert len(requests) < 15
    assert sum(requests) == 200 * BLOCK


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_files_that_are_missing_or_empty(store, backend):
    files, _ = store
    files.pipe_file("/empty.mp4", b"")
    with pytest.raises(MissingFileError, match="no such file"):
        open_video("memory://none.mp4", backend)
    with pytest.raises(DecodeError, match=r"empty \(0 bytes\)"):
        open_video("memory://empty.mp4", backend)
