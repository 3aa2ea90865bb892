"""Every command in the documentation is run, small; one that no rule covers fails.

Commands of this project run as they stand, in a folder where the files that they name exist, with
pairs appended that make model, data and training tiny. What would change the machine (pip, a
virtual environment) is checked by its form.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from helpers import detection_commands, hugging_face
from helpers.command_forms import FORMS
from helpers.command_rules import PROGRAMS, as_subprocess, assert_that_it_ran
from helpers.command_sandbox import (
    Sandbox,
    as_run_net,
    configuration,
    make_finished,
    make_longer_videos,
    small,
)
from helpers.documents import Block, all_blocks
from helpers.tiny_detection import make_boxes

from slowfast_maskfeat.datasets import registry

LONG = {
    *("tools/demo.py", "tools/demo_ava.py", "tools/demo_image.py"),
    *("tools/benchmark.py", "tools/benchmark_data.py", "maskfeat compare"),
}
BLOCKS = all_blocks()


def _is_of_several_machines(words: Sequence[str]) -> bool:
    return "--num_shards" in words or "--nnodes" in words


def _single_commands() -> list[object]:
    """One case for each command that needs no other one beside it."""
    cases, known = [], set()
    for block in BLOCKS:
        for words in block.commands():
            if tuple(words) in known or _is_of_several_machines(words):
                continue
            known.add(tuple(words))
            is_long = words[0] in ("torchrun", "srun") or LONG & {*words, " ".join(words[:2])}
            marks = [pytest.mark.slow] if is_long else []
            name = f"{block.name} {' '.join(words)[:50]}"
            cases.append(pytest.param(words, id=name, marks=marks))
    return cases


def _blocks_of_several_machines() -> list[object]:
    found = [b for b in BLOCKS if any(_is_of_several_machines(w) for w in b.commands())]
    return [pytest.param(block, id=block.name) for block in found]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return make_longer_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def finished(videos, tmp_path_factory):
    """A pre-training and the fine-tuning from it, by TASK."""
    folders = {task: tmp_path_factory.mktemp(task) for task in ("ssl", "ssl_eval")}
    make_finished(folders, videos)
    return folders


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Videos and annotations in the form of AVA; validation looks at second 4 alone."""
    return make_boxes(tmp_path_factory.mktemp("boxes"), seconds=5)


@pytest.fixture
def sandbox(tmp_path, videos, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Trained only where a command needs it.
    finished, boxes = (partial(request.getfixturevalue, name) for name in ("finished", "boxes"))
    return Sandbox(tmp_path, videos, finished, boxes)


def test_there_are_commands_to_run():
    assert len(_single_commands()) > 15
    assert len(_blocks_of_several_machines()) == 2


@pytest.mark.parametrize("words", _single_commands())
def test_a_documented_command_works(words, sandbox):
    program = words[0]
    assert program in PROGRAMS or program in FORMS, f"no rule covers {' '.join(words)}"
    if program in FORMS:
        FORMS[program](words[1:])
        return
    sandbox.provide(as_run_net(words))
    PROGRAMS[program](words[1:], sandbox)


@pytest.mark.slow
@pytest.mark.parametrize("block", _blocks_of_several_machines())
def test_machines_work_together(block, sandbox):
    port = _free_port()
    commands = block.commands()
    assert all(map(_is_of_several_machines, commands)), "one command for each machine is wanted"
    sandbox.provide(commands[0])
    running = [subprocess.Popen(small(_on_this_host(words, port))) for words in commands]
    try:
        assert [process.wait(timeout=300) for process in running] == [0] * len(commands)
    finally:
        for process in running:
            process.kill()
    assert_that_it_ran(commands[0])


def _on_this_host(words: Sequence[str], port: int) -> list[str]:
    """The command of one machine, with this host for the one where they meet."""
    local = [re.sub(r":\d+$", f":{port}", w.replace("first-machine", "127.0.0.1")) for w in words]
    if local[0] == "torchrun":
        local[1:1] = ["--master_port", str(port)]
    return as_subprocess(local, num_processes=1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=block.name) for block in BLOCKS if block.language == "python"],
)
def test_a_documented_example_works(block: Block, sandbox, monkeypatch):
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))  # an example adds to it
    code = "\n".join(block.lines)
    sandbox.provide(re.findall(r'"([^"\n]+\.(?:mp4|pyth))"', code))
    for folder in set(re.findall(r'"(output/\w+)"', code)):
        sandbox.results(folder)
    for folder in set(re.findall(r'(?:data=|"DATA\.PATH_TO_DATA_DIR", )"([^"]+)"', code)):
        sandbox.provide(["DATA.PATH_TO_DATA_DIR", folder])
    if '"videomae-base"' in code:
        hugging_face.write_folder(Path("videomae-base"), "videomae_pretraining")
    if "embedder.stream(" in code:
        Path("my_videos/a.mp4").write_bytes(b"broken")
    if "output/ava/test_detections.csv" in code:
        detection_commands.provide_detections(sandbox.boxes())
    exec(compile(code, block.name, "exec"), {"__name__": "__main__"})


def test_documented_checkpoints_are_those_of_the_last_epoch(sandbox):
    last, named = set(), set()
    for block in BLOCKS:
        for words in map(as_run_net, block.commands()):
            named |= set(re.findall(r"checkpoint_epoch_(\d+)\.pyth", " ".join(words)))
            if "--cfg" in words and "tools/run_net.py" in words:
                last.add(f"{configuration(words).SOLVER.MAX_EPOCH:05d}")
    assert named
    assert named <= last
