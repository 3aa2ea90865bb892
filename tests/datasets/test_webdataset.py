"""Tar shards: which there are, what is in them, what is wrong with them, and in what order."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from helpers.opened_files import opened_files
from helpers.stalling import serve
from helpers.tar_shards import payload, write_rows, write_shard

from slowfast_maskfeat.datasets import (
    DataFolder,
    MissingListError,
    Shards,
    read_webdataset,
)
from slowfast_maskfeat.videos.video import DecodeError, MissingFileError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "slowfast_maskfeat" / "shards"


def _data(folder, prefix="", *, label="", buffer=1000, **patterns) -> DataFolder:
    shards = Shards(patterns=patterns, label=label, buffer=buffer)
    return DataFolder(str(folder), prefix=str(prefix), shards=shards)


def _read(folder, split="train", class_names=None, **options):
    return read_webdataset(_data(folder, **options), split, class_names)


def _paths(videos, folder) -> list[str]:
    return [
        os.path.relpath(videos.path(row), folder).replace(os.sep, "/") for row in range(len(videos))
    ]


def test_a_row_is_a_video_with_its_label(tmp_path):
    write_rows(tmp_path, [3, 2])
    videos = _read(tmp_path)
    shards = ["train-000000.tar"] * 3 + ["train-000001.tar"] * 2
    assert _paths(videos, tmp_path) == [f"{s}/v{row:05d}.mp4" for row, s in enumerate(shards)]
    assert videos.labels.tolist() == [0, 1, 2, 0, 1]
    assert [videos.content(row) for row in range(5)] == [payload(row) for row in range(5)]
    assert pickle.loads(pickle.dumps(videos)).content(4) == payload(4)  # open files stay here
    assert videos.notes == ()
    assert videos.class_names is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for shard in tmp_path.glob("*.tar"):
        (elsewhere / shard.name).write_bytes(shard.read_bytes())
    assert _read(elsewhere).fingerprint == videos.fingerprint


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(form, tmp_path):
    names = ["./here.mp4", "a/b.c/" + "long" * 20 + ".mp4"]
    if form != tarfile.USTAR_FORMAT:
        names += ["跑步/é.mp4", "x" * 150 + ".jpg"]
    write_shard(tmp_path / "train.tar", {n: n.encode() for n in names}, form=form)
    videos = _read(tmp_path)
    assert videos.labels is None
    assert _paths(videos, tmp_path) == [f"train.tar/{name.removeprefix('./')}" for name in names]
    assert [videos.content(row) for row in range(len(names))] == [n.encode() for n in names]


def _one(folder, members) -> Path:
    content = {name: v if isinstance(v, bytes) else v.encode() for name, v in members.items()}
    return write_shard(folder / "train.tar", content)


@pytest.mark.parametrize(
    ("members", "label", "expected"),
    [
        ({"a.mp4": "-", "a.cls": "7\n"}, "", [7]),
        ({"a.MP4": "-", "a.CLS": "7\n"}, "", [7]),
        ({"a.mp4": "-", "a.json": '{"label": 3, "caption": "x"}'}, "", [3]),
        ({"a.mp4": "-", "a.json": '{"class_name": "5"}', "a.txt": "9"}, "", [5]),
        ({"a.mp4": "-", "a.txt": "4"}, "", [4]),
        # A text beside a .json without a label is a caption.
        ({"a.mp4": "-", "a.json": '{"duration": 3}', "a.txt": "9"}, "", None),
        ({"a.mp4": "-", "a.cls": "1", "a.txt": "9"}, "txt", [9]),
        ({"a.mp4": "-", "a.cls": "1", "a.json": '{"kind": {"id": 2}}'}, "json:kind.id", [2]),
        ({"a.mp4": "-", "a.cls": "1"}, "none", None),
    ],
)
def test_the_label_is_where_the_key_says(members, label, expected, tmp_path):
    _one(tmp_path, members)
    videos = _read(tmp_path, label=label)
    assert (None if videos.labels is None else videos.labels.tolist()) == expected


def test_labels_that_are_names_are_numbered(tmp_path):
    _one(tmp_path, {"a.mp4": "-", "a.cls": "run", "b.mp4": "-", "b.cls": "jump high"})
    videos = _read(tmp_path)
    assert videos.labels.tolist() == [1, 0]
    assert videos.class_names == ("jump high", "run")
    assert _read(tmp_path, class_names=("run", "sit", "jump high")).labels.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"train.tar/a.mp4: .*must be a class name, got 'run'"):
        _read(tmp_path, class_names=("jump high", "runs"))


def test_a_number_among_names_is_a_name_and_said(tmp_path):
    _one(tmp_path, {"a.mp4": "-", "a.cls": "run", "b.mp4": "-", "b.cls": "1"})
    videos = _read(tmp_path)
    assert videos.class_names == ("1", "run")
    (note,) = videos.notes
    assert "1 of 2 labels are numbers, such as '1'; they are read as names" in note
    assert _read(tmp_path, class_names=("run", "1")).notes == ()


def test_what_belongs_to_no_sample_is_counted(tmp_path):
    _one(
        tmp_path,
        {"a.mp4": "1", "a.jpg": "thumb", "a.cls": "0", "b.cls": "1", "c.npy": "-", "._a.mp4": "-"},
    )
    videos = _read(tmp_path)
    assert _paths(videos, tmp_path) == ["train.tar/a.mp4"]
    (note,) = videos.notes
    assert note.startswith("ignored 4 members")


@pytest.mark.parametrize(
    ("members", "label", "message"),
    [
        (
            {"a.mp4": "", "a.cls": "1", "b.mp4": ""},
            "",
            r"sample 2: train.tar/b.mp4: the label must be in .cls.*got no label",
        ),
        (
            {"a.mp4": "", "a.cls": "1", "b.mp4": "", "b.txt": "1"},
            "",
            r"must be in .cls.*got one in .txt",
        ),
        ({"a.mp4": "", "b.mp4": "", "b.cls": "1"}, "", r"must be absent.*got one in .cls"),
        ({"a.mp4": "", "a.cls": "one\ntwo"}, "", r"a.mp4: its .cls must be one line.*got 2"),
        ({"a.mp4": "", "a.cls": "1", "b.mp4": "", "b.cls": "-1"}, "", "label must be .*got '-1'"),
        ({"a.mp4": "", "a.cls": "-1"}, "", r"sample 1: train.tar/a.mp4: the label must be"),
        ({"a.mp4": "", "a.json": "{"}, "", r"its .json must be valid JSON"),
        ({"a.mp4": "", "a.json": '{"label": [1]}'}, "", r"label in its .json must be .*got \[1\]"),
        (
            {"a.mp4": "", "a.cls": b"caf\xe9", "b.mp4": "", "b.cls": b"caf\xe8"},
            "",
            r"sample 1: train.tar/a.mp4: its .cls must be UTF-8 text.* sample 2: ",
        ),
        ({"a.mp4": "", "a.cls": "1".encode("utf-16")}, "", r"its .cls must be UTF-8 text"),
        (
            {"a.mp4": "", "a.cls": b"1\0\0"},
            "",
            r"in its .cls must have no control characters, got '1\\x00",
        ),
        (
            {"a.mp4": "", "a.json": '{"label": "\\ud800"}'},
            "",
            r"in its .json must have no control char",
        ),
        (
            {"a.mp4": "", "a.json": '{"label": 1}' + " " * (1 << 20)},
            "",
            r"its .json must have at most 1,048,576 bytes, got 1,048,588",
        ),
        ({"a.mp4": ""}, "yaml", "DATA.SHARD_LABEL must be .*got 'yaml'"),
        ({"a.cls": "1"}, "", "has no rows"),
    ],
)
def test_a_missing_or_wrong_label_names_its_sample(members, label, message, tmp_path):
    _one(tmp_path, members)
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, label=label)


def test_a_key_that_comes_twice_is_an_error(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.mp4"))
    with pytest.raises(ValueError, match=r"train.tar: it contains a.mp4 twice"):
        _read(tmp_path)


def test_bad_shards_are_named_with_the_reason(tmp_path):
    good, *shards = write_rows(tmp_path, [4] * 8)
    whole = good.read_bytes()
    end = whole.rstrip(b"\0").__len__() // 512 * 512 + 512
    cut, torn, damaged, packed, empty, text, joined = (path for path in shards)
    cut.write_bytes(whole[:700])  # inside the data of the first member
    torn.write_bytes(whole[: 3 * 1024 + 100])  # inside a header
    damaged.write_bytes(whole[:2048] + b"\x07" * 512 + whole[2560:])
    packed.write_bytes(gzip.compress(whole))
    empty.write_bytes(b"")
    text.write_text("no tar, but long enough to be one" * 40)
    joined.write_bytes(whole + b"\0" * 20_480 + whole)
    (tmp_path / "train_shards.txt").write_text(
        "# all of them\ntrain-{000000..000007}.tar\ntrain-000009.tar\n"
    )
    with pytest.raises(ValueError) as caught:
        _read(tmp_path)
    message = str(caught.value)
    assert "8 of 9 shards cannot be used" in message
    assert str(good) not in message
    for path, reason in {
        cut: "truncated",
        torn: "truncated",
        damaged: "damaged at byte 2048",
        packed: "compressed with gzip",
        empty: "empty file",
        text: "damaged",
        joined: "joined with `cat`",
        tmp_path / "train-000009.tar": "no such file",
    }.items():
        named = message[message.index(str(path)) :].split("; ")[0]
        assert reason in named, (path, named)
    good.write_bytes(whole[:end])  # nothing is missing but the mark of the end
    (tmp_path / "train_shards.txt").write_text(good.name)
    (note,) = _read(tmp_path).notes
    assert "no end mark" in note


def _header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _pax(**pairs: str) -> bytes:
    records = "".join(
        f"{len(key) + len(value) + 5:2d} {key.replace('_', '.')}={value}\n"
        for key, value in pairs.items()
    ).encode()
    return _header(tarfile.XHDTYPE, len(records)) + records.ljust(512, b"\0")


@pytest.mark.parametrize(
    "damage",
    [
        _header(tarfile.GNUTYPE_LONGNAME, 10**12),
        _pax(GNU_sparse_major="1", GNU_sparse_minor="0"),
        _pax(comment="x") * 3000,
    ],
    ids=["a name of a terabyte", "a sparse member", "3,000 headers in a row"],
)
def test_headers_that_make_tarfile_fail_otherwise_are_damage(damage, tmp_path):
    (shard,) = write_rows(tmp_path, [2])
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1024] + damage + whole[1024:])
    with pytest.raises(ValueError, match=r"damaged or truncated at byte \d+, after 1 intact"):
        _read(tmp_path)


def test_an_index_is_kept_and_made_anew_when_its_shard_changes(tmp_path, cache):
    (shard,) = write_rows(tmp_path, [3])
    index = Path(f"{shard}.index.json")
    _read(tmp_path)
    kept = json.loads(index.read_text())
    kept["labels"] = ["2", "2", "2"]  # so that reading the index shows
    index.write_text(json.dumps(kept))
    assert _read(tmp_path).labels.tolist() == [2, 2, 2]
    assert _read(tmp_path, label="cls").labels.tolist() == [0, 1, 2]  # another wish
    index.write_text(json.dumps(kept)[:-20])
    assert _read(tmp_path).labels.tolist() == [0, 1, 2]
    before = index.read_text()
    os.utime(shard, ns=(1, 1))
    _read(tmp_path)
    assert index.read_text() != before
    assert not cache.exists()
    # Beside a shard in a folder that can't be written it goes into the cache.
    index.unlink()
    index.mkdir()
    assert _read(tmp_path).labels.tolist() == [0, 1, 2]
    (kept_elsewhere,) = cache.iterdir()
    changed = json.loads(kept_elsewhere.read_text()) | {"labels": ["1", "1", "1"]}
    kept_elsewhere.write_text(json.dumps(changed))
    assert _read(tmp_path).labels.tolist() == [1, 1, 1]


def test_an_index_of_another_form_is_made_anew(tmp_path, cache):
    shard = write_shard(tmp_path / "train.tar", {"a.mp4": b"a", "b.m2ts": b"b"})
    assert _paths(_read(tmp_path), tmp_path) == ["train.tar/a.mp4", "train.tar/b.m2ts"]
    path = Path(f"{shard}.index.json")
    index = json.loads(path.read_text())
    columns = ("names", "offsets", "sizes", "labels", "label_kinds")
    shorter = {**index, **{name: index[name][:1] for name in columns}}
    path.write_text(json.dumps(shorter))  # of this form, so it is used
    assert _paths(_read(tmp_path), tmp_path) == ["train.tar/a.mp4"]
    path.write_text(json.dumps({**shorter, "form": index["form"] - 1}))
    assert _paths(_read(tmp_path), tmp_path) == ["train.tar/a.mp4", "train.tar/b.m2ts"]
    assert json.loads(path.read_text()) == index


def test_a_shard_that_changes_after_it_was_indexed_loses_videos_and_gives_no_others(tmp_path):
    shard, _ = write_rows(tmp_path, [4, 4])
    whole = shard.read_bytes()
    videos = _read(tmp_path)
    shard.write_bytes(whole[: len(payload(0)) + 512 + 100])
    with pytest.raises(DecodeError, match=r"v00001.mp4: the shard is truncated"):
        videos.content(1)
    shard.write_bytes(whole[:512] + b"\0" * 512 + whole[512:])
    with pytest.raises(DecodeError, match="has changed since it was indexed"):
        videos.content(2)
    shard.unlink()
    with pytest.raises(MissingFileError):
        videos.content(3)
    assert videos.content(5) == payload(5)


def test_shards_are_found_where_people_keep_them(tmp_path):
    for number, name in enumerate(["train/x-0.tar", "train/x-1.tar", "val-000.tar"]):
        write_shard(tmp_path / "data" / name, {f"{number}.mp4": b"-"})
    data = tmp_path / "data"
    assert _paths(_read(data), data) == ["train/x-0.tar/0.mp4", "train/x-1.tar/1.mp4"]
    assert _paths(_read(data, "val"), data) == ["val-000.tar/2.mp4"]
    with pytest.raises(MissingListError, match=r"set DATA.TEST_SHARDS"):
        _read(data, "test")
    for pattern in ("train/x-{0..1}.tar", "train/*.tar", "train", f"{data}/train/x-{{1,0}}.tar"):
        assert len(_read(data, "test", test=pattern)) == 2
    # A list says the order; its rows lie beside it, or inside the prefix.
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train_shards.txt").write_text("x-1.tar\r\n\r\nx-0.tar\r\n")
    videos = _read(lists, prefix=data / "train")
    assert _paths(videos, data) == ["train/x-1.tar/1.mp4", "train/x-0.tar/0.mp4"]
    (data / "train" / "mine.txt").write_text("x-1.tar\n")
    assert len(_read("", "test", test=str(data / "train" / "mine.txt"))) == 1
    with pytest.raises(ValueError, match=r"must name each shard once, got .*twice"):
        _read(data, train="train/x-{0,0}.tar")
    # A folder of shards alone is the training set.
    assert len(_read(data / "train")) == 2


def test_an_epoch_reads_shards_one_after_the_other(tmp_path):
    counts = [20] * 12
    write_rows(tmp_path, counts)
    videos = _read(tmp_path, buffer=8)
    orders = [videos.shuffled(np.random.default_rng((5, epoch))) for epoch in (0, 0, 1)]
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()
    for order in orders:
        assert sorted(order.tolist()) == list(range(240))
        shards = order // 20
        first = [int(np.flatnonzero(shards == n)[0]) for n in range(12)]
        sequence = np.argsort(first)
        assert sequence.tolist() != list(range(12))  # shuffled, too
        place = np.empty(240, np.int64)
        place[np.concatenate([np.arange(n * 20, n * 20 + 20) for n in sequence])] = np.arange(240)
        # No row leaves the buffer before it has come into it.
        assert (place[order] - np.arange(240)).max() < 8
    plain = _read(tmp_path, buffer=1).shuffled(np.random.default_rng(0))
    runs = np.split(plain, np.flatnonzero(np.diff(plain) != 1) + 1)
    assert len(runs) <= 12  # ascending inside of each shard: no step back
    assert all(len(run) % 20 == 0 for run in runs)


def _bytes_read() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="Linux counts what is read")
def test_a_shard_is_opened_once_and_only_members_are_read(tmp_path):
    write_rows(tmp_path, [30] * 5)
    videos = _read(tmp_path, buffer=40)
    order = videos.shuffled(np.random.default_rng(0)).tolist()
    with opened_files(tmp_path / "opened", lambda path: path.endswith(".tar")) as opened:
        before = _bytes_read()
        size = sum(len(videos.content(row)) for row in order)
        read = _bytes_read() - before
    assert list(opened.values()) == [1] * 5
    # A header of 512 bytes is read with each; the counter reads itself, too.
    assert size + 150 * 512 <= read < size + 150 * 512 + 4096


def test_shards_of_a_server_take_one_request_a_video(tmp_path, cache):
    write_rows(tmp_path, [6, 6])
    local = _read(tmp_path)
    for index in tmp_path.glob("*.json"):
        index.unlink()
    requests: list[tuple[str, str]] = []
    with serve(tmp_path, requests=requests) as address:
        data = _data(address, train="train-{000000..000001}.tar")
        videos = read_webdataset(data, "train")
        assert videos.fingerprint == local.fingerprint
        assert videos.path(7) == f"{address}/train-000001.tar/v00007.mp4"
        assert len(list(cache.iterdir())) == 2
        requests.clear()
        again = read_webdataset(data, "train")
        # Is it still the same shard? No member is read for that.
        assert {asked for name, asked in requests if name.endswith(".tar")} == {"bytes=0-0"}
        requests.clear()
        order = again.shuffled(np.random.default_rng(1)).tolist()
        assert [again.content(row) for row in order] == [payload(row) for row in order]
        assert len(requests) == 12
        sizes = [np.ptp(list(map(int, asked[6:].split("-")))) + 1 for _, asked in requests]
        assert sizes == [len(payload(row)) + 512 for row in order]
        write_rows(tmp_path, [7, 6])  # the size changes: it is indexed anew
        assert len(read_webdataset(data, "train")) == 13


def test_an_index_beside_remote_shards_saves_reading_them(tmp_path, cache):
    write_rows(tmp_path, [200])
    _read(tmp_path)
    requests: list[tuple[str, str]] = []
    with serve(tmp_path, requests=requests) as address:
        videos = read_webdataset(_data(address, train="train-000000.tar"), "train")
        assert len(videos) == 200
        assert len(requests) == 2  # the size of the shard, and the index
        assert not cache.exists()
        assert videos.content(199) == payload(199)


def test_a_server_without_ranges_is_told(tmp_path):
    write_rows(tmp_path, [2])
    with serve(tmp_path, with_ranges=False) as address:
        data = _data(address, train="train-000000.tar")
        with pytest.raises(ValueError, match=r"train-000000.tar: .* HTTP ranges"):
            read_webdataset(data, "train")
        with pytest.raises(MissingListError, match=r"set DATA.VAL_SHARDS"):
            read_webdataset(_data(address), "val")


def test_a_stalled_server_costs_the_video(tmp_path):
    (shard,) = write_rows(tmp_path, [40])
    _read(tmp_path)  # its index comes to lie beside it
    # Of the bytes of the shard only those of the first half are sent.
    with serve(tmp_path, stalling=(shard.name,)) as address:
        videos = read_webdataset(_data(address, train=shard.name), "train")
        assert videos.content(2, timeout=0.5) == payload(2)
        with pytest.raises(DecodeError, match=r"v00035.mp4: stalled: no data"):
            videos.content(35, timeout=0.5)
        assert videos.content(3, timeout=0.5) == payload(3)


def test_shards_in_a_store_are_found_and_read(tmp_path):
    write_rows(tmp_path, [3, 3])
    store = fsspec.filesystem("memory")
    try:
        for shard in tmp_path.glob("*.tar"):
            store.pipe_file(f"/k400/{shard.name}", shard.read_bytes())
        videos = read_webdataset(_data("memory://k400"), "train")
        assert videos.path(4) == "memory://k400/train-000001.tar/v00004.mp4"
        assert videos.fingerprint == _read(tmp_path).fingerprint
        assert [videos.content(row) for row in range(6)] == [payload(row) for row in range(6)]
        store.rm("/k400/train-000001.tar")
        with pytest.raises(MissingFileError):
            videos.content(4)
    finally:
        store.rm("/k400", recursive=True)
