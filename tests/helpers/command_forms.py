"""Checks by form of documented commands that would change the machine, or need another program."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from helpers.documents import ROOT

from slowfast_maskfeat.checkpoints import load_checkpoint


def check_venv(words: Sequence[str]) -> None:
    """The folder is the one that the Makefile and the other documents speak of."""
    assert list(words) == [".venv"]


def check_source(words: Sequence[str]) -> None:
    """The environment that was just made."""
    assert list(words) == [".venv/bin/activate"]


def check_make(words: Sequence[str]) -> None:
    """The targets and variables are those of the Makefile."""
    settable = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word.partition("=")[0] for word in words if "=" in word} <= set(settable)
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_pip(words: Sequence[str]) -> None:
    """Extras, constraints and pinned versions exist."""
    assert words[0] == "install"
    extras = metadata.metadata("slowfast_maskfeat").get_all("Provides-Extra") or []
    pinned = (ROOT / "constraints.txt").read_text().split()
    rest = iter(words[1:])
    for word in rest:
        if word == "-c":
            assert (ROOT / next(rest)).is_file()
        elif word in ("--index-url", "--extra-index-url"):
            assert next(rest).startswith("https://")
        elif found := re.fullmatch(r"\.(?:\[(\w+)\])?", word):
            assert found[1] is None or found[1] in extras
        else:
            assert word == "-e" or word in pinned


def check_pre_commit(words: Sequence[str]) -> None:
    """The hooks call what the extra `dev` installs."""
    assert list(words) == ["install"]
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"].split()[0] for repo in content["repos"] for hook in repo["hooks"]]
    assert {"ruff", "mypy"} == set(entries)


def check_ffmpeg(words: Sequence[str]) -> None:
    """The filter, by the FFmpeg that PyAV brings: the short side becomes 340 pixels."""
    assert words[list(words).index("-c:v") + 1] in av.codecs_available
    name, _, options = words[list(words).index("-vf") + 1].partition("=")
    for height, width in ((480, 640), (640, 360)):
        graph = av.filter.Graph()
        frame = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        source = graph.add_buffer(
            width=width, height=height, format="rgb24", time_base=Fraction(1, 30)
        )
        scale = graph.add(name, options)
        source.link_to(scale)
        scale.link_to(sink := graph.add("buffersink"))
        graph.configure()
        source.push(frame)
        scaled = sink.pull()
        assert min(scaled.width, scaled.height) == 340


def check_mkdir(words: Sequence[str]) -> None:
    """One folder among what is lost with the next start."""
    (folder,) = words
    assert folder.startswith("/tmp/")


def check_bubblewrap(words: Sequence[str]) -> None:
    """What runs inside makes an old checkpoint readable."""
    words = list(words)
    old_place, new_place = (
        words[words.index(option) + 1] for option in ("--checkpoint", "--output")
    )
    with tempfile.TemporaryDirectory() as own:
        old, folder = Path(own) / Path(old_place).name, Path(own) / "rewritten"
        folder.mkdir()
        torch.save({"model": {"w": torch.ones(2)}, "args": Namespace(top1=Fraction(1, 3))}, old)
        with pytest.raises(ValueError, match=r"needs the code of fractions\.Fraction"):
            load_checkpoint(old)
        places = {old_place: str(old), str(Path(new_place).parent): str(folder)}
        places[new_place] = str(folder / Path(new_place).name)
        written = run_sandboxed(shlex.join(["bwrap", *(places.get(w, w) for w in words)]))
        assert load_checkpoint(written)["model_state"]["w"].tolist() == [1, 1]


def run_sandboxed(command: str) -> Path:
    """Run a command that rewrites a checkpoint, inside its walls where bwrap can build them.

    Args:
        command: `bwrap ... python -m slowfast_maskfeat rewrite ... --output PATH`, with the making
            of a folder before it or not.

    Returns:
        The path.
    """
    making, _, sandboxed = command.rpartition("&&")
    for folder in shlex.split(making)[-1:]:
        Path(folder).mkdir()
    words = shlex.split(sandboxed)
    inside = words.index("python")
    walls = words[:inside]
    output = Path(words[words.index("--output") + 1])
    assert "--unshare-all" in walls  # the network is among it
    assert walls[walls.index("--ro-bind") + 1 :][:2] == ["/", "/"]
    # Nothing but the new folder can be written.
    assert walls[walls.index("--bind") + 1 :] == [str(output.parent), str(output.parent)]
    if shutil.which("bwrap") is None or subprocess.run([*walls, "true"]).returncode:
        walls = []
    words = [*walls, sys.executable, *words[inside + 1 :]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return output


# By program; each takes the words after it.
def check_requeue(words: Sequence[str]) -> None:
    """The line of a batch script after srun: the exit code is that of a run that SIGUSR1 ends."""
    code = str(128 + signal.SIGUSR1)
    assert list(words) == ["$?", "-eq", code, "&&", "scontrol", "requeue", "$SLURM_JOB_ID"]


FORMS = {
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
    "pre-commit": check_pre_commit,
    "ffmpeg": check_ffmpeg,
    "mkdir": check_mkdir,
    "bwrap": check_bubblewrap,
    "test": check_requeue,
}
