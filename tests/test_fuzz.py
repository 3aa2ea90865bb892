"""Inputs changed at random: each is read, or refused in one clear error, and none takes long.

Seeds are fixed. A failure names the seed; `changed(content, random.Random(seed))` is its input.
"""

from __future__ import annotations

import linecache
import pickle
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.load_tool import ROOT, run_tool
from torch import nn

from slowfast_maskfeat.checkpoints import load_checkpoint, load_weights
from slowfast_maskfeat.config import load_config
from slowfast_maskfeat.config.load import parse_config
from slowfast_maskfeat.datasets import read_class_names
from slowfast_maskfeat.datasets.box_rows import read_box_rows, read_excluded
from slowfast_maskfeat.datasets.label_map import read_labelmap
from slowfast_maskfeat.datasets.list_file import read_csv, read_list
from slowfast_maskfeat.datasets.video_list import DataFolder
from slowfast_maskfeat.engine.gradient_step import GradientStep
from slowfast_maskfeat.engine.state import TrainState, is_resumable
from slowfast_maskfeat.losses import cross_entropy
from slowfast_maskfeat.tasks import Classification

SEEDS = range(300)
SECONDS = 30  # a case takes milliseconds, on a busy machine more
LONGEST_MESSAGE = 20_000  # of fifty malformed rows

# Pieces that parsers treat in a way of their own.
PIECES = [
    *(b"\0", b"\x1b[2J", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b"\t", b" ", b'"'),
    *(b"'", b",", b";", b":", b": ", b"- ", b"#", b"\\", b"{", b"}", b"[", b"]", b"[[[[[[[[["),
    *(b"-1", b"0", b"1e999", b"nan", b"inf", b"9" * 30, b"9" * 5000, b"0x" + b"f" * 40, b"1:1:1.5"),
    *(b"&a ", b"*a", b"<<: *a", b"!!bool ", b"!!timestamp ", b"!!binary ", b"!!int ", b"? ", b"~"),
    *(b"True", b"None", b"null", b"_BASE_", b"IMPORTS", b"{[]: 1}", b"x" * 200_000, b"%s", b"{0}"),
]


def changed(content: bytes, generator: random.Random) -> bytes:
    """Change a content in a few places."""
    found = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 3, 5, 8])):
        begin = generator.randrange(len(found) + 1)
        end = min(len(found), begin + generator.choice([0, 1, 2, 8, 40]))
        kind = generator.randrange(6)
        if kind == 0 and begin < len(found):
            found[begin] ^= 1 << generator.randrange(8)
        elif kind == 1:
            del found[begin:end]
        elif kind == 2:
            found[begin:begin] = found[begin:end] * generator.choice([1, 2, 50])
        elif kind == 3:
            found[begin:end] = generator.choice(PIECES)
        elif kind == 4:
            found[begin:end] = generator.randbytes(end - begin)
        elif generator.random() < 0.2:
            del found[begin:]
        else:
            other = generator.randrange(len(found) + 1)
            found[begin:begin] = found[other : other + 40]
    return bytes(found)


@contextmanager
def in_time(seed: int) -> Iterator[None]:
    """Fail a case that takes long."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"seed {seed} takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def refused(seed: int, read: Callable[[], object]) -> bool:
    """Read an input; return whether it was refused with an error that this project words.

    Raises:
        AssertionError: another error was raised, or one of a conversion that nobody worded.
    """
    raised: Exception | None = None
    try:
        with in_time(seed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except Exception as error:
        raised = error
    if raised is None:
        return False
    place = traceback.extract_tb(raised.__traceback__)[-1]
    line = linecache.getline(place.filename, place.lineno or 0)
    is_worded = ROOT in Path(place.filename).parents and "raise" in line
    if not (isinstance(raised, ValueError) and is_worded):
        raise AssertionError(f"seed {seed}: {raised!r}") from raised
    assert 0 < len(str(raised)) < LONGEST_MESSAGE, f"seed {seed}"
    return True


@pytest.mark.parametrize(
    "read", [lambda: int("x"), lambda: {}["x"], lambda: [0][1:2][0], lambda: b"\xff".decode()]
)
def test_other_errors_fail(read: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="seed 7: "):
        refused(7, read)


def test_what_takes_long_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_fuzz.SECONDS", 0.05)
    with pytest.raises(AssertionError, match="takes more than"):
        refused(7, lambda: time.sleep(9))


def refused_share(read: Callable[[random.Random], object]) -> float:
    """Share of the seeds whose input is refused."""
    results = [refused(seed, lambda seed=seed: read(random.Random(seed))) for seed in SEEDS]
    return sum(results) / len(results)


def test_lists(tmp_path: Path) -> None:
    forms = [
        b"".join(b"videos/a %d.mp4,%d\n" % (n, n % 3) for n in range(20)),
        b"path,label\n" + b"".join(b'"v/%d.mp4",class %d\n' % (n, n % 3) for n in range(20)),
        b"".join(b"v/%d.mp4 %d\n" % (n, n % 3) for n in range(20)),
        b"label,youtube_id,time_start,time_end,split\n" + b"walk,aaaaaaaaaaa,1,11,train\n" * 9,
        b"original_vido_id video_id frame_id path labels\n" + b'a 0 0 a/1.jpg ""\n' * 9,
    ]

    def read(generator: random.Random) -> None:
        path = tmp_path / "train.csv"
        path.write_bytes(changed(generator.choice(forms), generator))
        (tmp_path / "classes.txt").write_bytes(changed(b"class 0\nclass 1\n", generator))
        if generator.random() < 0.5:
            names = read_class_names(tmp_path) if generator.random() < 0.5 else None
            read_csv(DataFolder(str(tmp_path)), "train", names)
        else:
            read_list(path, separator=generator.choice(" ,\t"))

    assert 0.1 < refused_share(read) < 0.9


def test_yaml_files(tmp_path: Path) -> None:
    files = sorted((ROOT / "configs").glob("*/*.yaml"))
    texts = [file.read_bytes() for file in files]
    texts.append(load_config([]).dump().encode())
    texts.append(b"A: &a {x: 1}\nTRAIN: &b\n  BATCH_SIZE: 8\nTEST:\n  <<: *b\n")

    def read(generator: random.Random) -> None:
        content = changed(generator.choice(texts), generator)
        if generator.random() < 0.3:
            parse_config(content.decode("utf-8", "replace"), "c.pyth")
            return
        path = tmp_path / "x.yaml"
        path.write_bytes(content.replace(b"../_base_", str(ROOT / "configs/_base_").encode()))
        load_config([str(path)])

    assert 0.1 < refused_share(read) < 0.98


def test_ava_files(tmp_path: Path) -> None:
    rows = b"".join(
        b"video_%d,%04d,0.1,0.2,0.%d,0.9,%d,0.9%d\n" % (n % 3, 902 + n, 3 + n % 6, 1 + n % 5, n % 9)
        for n in range(30)
    )
    excluded = b"".join(b"video_%d,%04d\n" % (n % 3, 902 + n) for n in range(10))
    labels = b"".join(b'item {\n  name: "walk %d"\n  id: %d\n}\n' % (n, n + 1) for n in range(9))
    kinds: list[tuple[bytes, Callable[[Path], object]]] = [
        (rows, read_box_rows),
        (rows.replace(b",0.9", b",1.", 3), lambda path: read_box_rows(path, keep_odd_boxes=True)),
        (excluded, read_excluded),
        (labels, read_labelmap),
    ]

    def read(generator: random.Random) -> None:
        content, reader = generator.choice(kinds)
        path = tmp_path / "boxes.csv"
        path.write_bytes(changed(content, generator))
        reader(path)

    assert 0.2 < refused_share(read) < 0.98


def _state() -> TrainState:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    task = Classification(
        cross_entropy, torch.sigmoid, num_classes=2, ensemble="sum", mean=[0.5] * 3, std=[0.5] * 3
    )
    stepper = GradientStep(torch.optim.AdamW(model.parameters(), lr=0.1))
    return TrainState(model, task, stepper, torch.amp.GradScaler("cpu", enabled=False), epoch=3)


def test_checkpoints(tmp_path: Path) -> None:
    state = _state()
    state.model(torch.ones(5, 3)).sum().backward()
    state.stepper.optimizer.step()
    payload = {**state.payload(lost={"num_replaced": 0, "known": []}), "class_names": ["a", "b"]}
    path = tmp_path / "ssl_checkpoint_epoch_00001.pyth"
    forms = []
    for is_zip in (True, False):  # the old form has no checksums: what it holds is changed
        torch.save(payload, path, _use_new_zipfile_serialization=is_zip)
        forms.append(path.read_bytes())

    def read(generator: random.Random) -> None:
        form = generator.choice(forms)
        path.write_bytes(changed(form, generator))
        content = load_checkpoint(path)
        load_weights(_state().bare, path, content=content, min_coverage=0.0)
        if is_resumable(content):
            _state().restore(content, str(path))

    assert refused_share(read) > 0.5


VALUES = [
    *(None, True, -1, 3, 2**70, float("nan"), "x", b"x", [], [1], {}, {"a": 1}, {1: 2}, ()),
    *(torch.ones(3), torch.ones(2, device="meta"), torch.full((4, 3), float("inf"))),
    *({"a": torch.ones(2)}, ["a"], [{"cpu": 3}], torch.ones(2, dtype=torch.uint8)),
]


def _places(content: object, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield (*above, key)
            yield from _places(content[key], (*above, key))


def test_checkpoints_with_parts_of_other_types(tmp_path: Path) -> None:
    state = _state()
    state.model(torch.ones(5, 3)).sum().backward()
    state.stepper.optimizer.step()
    payload = pickle.dumps({**state.payload(), "class_names": ["a", "b"]})
    places = list(_places(pickle.loads(payload)))
    path = tmp_path / "c.pyth"

    def read(generator: random.Random) -> None:
        content = pickle.loads(payload)
        held: Any = content
        *above, last = generator.choice(places)
        for key in above:
            held = held[key]
        held[last] = generator.choice(VALUES)
        torch.save(content, path)
        loaded = load_checkpoint(path)
        load_weights(_state().bare, path, content=loaded, min_coverage=0.0)
        if is_resumable(loaded):
            resumed = _state()
            resumed.restore(loaded, str(path))
            resumed.model(torch.ones(5, 3)).sum().backward()
            resumed.stepper(torch.ones(()))

    assert refused_share(read) > 0.5


COMMANDS = [
    (
        "tools/run_net.py",
        "--cfg configs/demo/pretrain.yaml DATA.PATH_TO_DATA_DIR nowhere NUM_GPUS 0",
    ),
    ("tools/run_net.py", "--cfg configs/demo/finetune.yaml OUTPUT_DIR out TRAIN.BATCH_SIZE 8"),
    ("tools/run_net.py", "--cfg configs/Kinetics/MVITv2_S_16x4.yaml MVIT.DROPPATH_RATE 0.2"),
    ("tools/predict.py", "--checkpoint nowhere.pyth --video x.mp4 --top 3 --device cpu"),
    ("tools/predict.py", "--checkpoint nowhere.pyth --clips x.npy --json MODEL.NUM_CLASSES 3"),
    ("tools/extract_features.py", "--checkpoint no.pyth --split val --output f.npz --device cpu"),
    ("tools/detect.py", "--checkpoint nowhere.pyth --video x.mp4 --boxes b.csv --output d"),
    ("tools/convert_checkpoint.py", "--cfg configs/demo/finetune.yaml --input a --output b.pyth"),
]
WORDS = ["--", "-", "", "--cfg", "=", "KEY", "1", "-1", "None", "[", "\x1b[2J", "\udcff", "/", "."]


@pytest.mark.filterwarnings("ignore")
def test_command_lines(tmp_path: Path) -> None:
    num_refused = 0
    for seed in SEEDS:
        generator = random.Random(seed)
        tool, line = generator.choice(COMMANDS)
        words = [str(ROOT / word) if word.startswith("configs/") else word for word in line.split()]
        for _ in range(generator.choice([1, 1, 2, 4])):
            place = generator.randrange(len(words))
            kind = generator.randrange(5)
            if kind == 0:
                del words[place]
            elif kind == 1:
                words.insert(place, generator.choice(words + WORDS))
            elif kind == 2:
                words[place] = generator.choice(words + WORDS)
            elif kind == 3:
                text = changed(words[place].encode("utf-8", "surrogateescape"), generator)
                words[place] = text.replace(b"\0", b"").decode("utf-8", "surrogateescape")
            else:
                words[place] = "9" * 100_000
            words = words or ["--cfg"]
        with in_time(seed):
            done = run_tool(tool, *words, cwd=tmp_path)
        assert done.returncode in (0, 2), f"seed {seed}: {done}"
        assert "Traceback" not in done.stderr, f"seed {seed}: {done.stderr[-2000:]}"
        num_refused += done.returncode == 2
    assert num_refused > 250
