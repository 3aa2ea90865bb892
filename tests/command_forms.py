"""Checks by form of documented commands that would change the machine, or need another program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from documents import ROOT

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


def check_bubblewrap(words: Sequence[str]) -> None:
    """What runs inside makes an old checkpoint readable; the walls stand where bwrap is there."""
    words = list(words)
    inside = words.index("python")
    assert "--unshare-all" in words[:inside]  # the network is among it
    assert words[words.index("--ro-bind") + 1 :][:2] == ["/", "/"]
    (folder,) = {words[words.index("--bind") + n] for n in (1, 2)}
    with tempfile.TemporaryDirectory() as own:
        old = Path(own) / "old.pyth"
        torch.save({"model_state": {"w": torch.ones(2)}, "meter": Fraction(1, 3)}, old)
        with pytest.raises(ValueError, match=r"needs the code of fractions\.Fraction"):
            load_checkpoint(old)
        words = [word.replace(folder, own) for word in words]
        words[inside] = sys.executable
        walls = ["bwrap", *words[:inside]]
        if shutil.which("bwrap") is None or subprocess.run([*walls, "true"]).returncode:
            walls = []
        done = subprocess.run([*walls, *words[inside:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert load_checkpoint(Path(own) / "old_plain.pyth")["model_state"]["w"].tolist() == [1, 1]


# By program; each takes the words after it.
FORMS = {
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
    "pre-commit": check_pre_commit,
    "ffmpeg": check_ffmpeg,
    "bwrap": check_bubblewrap,
}
