"""setup.py, constraints.txt and the Makefile agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers.tiny_run import FINETUNING, MODEL, make_videos, pairs

import slowfast_maskfeat

ROOT = Path(__file__).parents[1]


def normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, list[str]]:
    """Package -> the markers of its lines, '' where there is none."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9-]+)==[^; ]+(?:; (.+))?", line)
            assert match, f"constraints.txt: {line!r} pins no version"
            found.setdefault(match[1], []).append(match[2] or "")
    return found


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What setup.py declares, as setuptools writes it down."""
    folder = tmp_path_factory.mktemp("egg")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    metadata = (folder / "slowfast_maskfeat.egg-info" / "PKG-INFO").read_text()
    assert f"\nVersion: {slowfast_maskfeat.__version__}\n" in metadata
    return metadata


def test_every_requirement_is_pinned(requirements: str) -> None:
    names = re.findall(r"^Requires-Dist: ([A-Za-z0-9._-]+)", requirements, re.MULTILINE)
    assert len(names) > 8
    # torchcodec is an extra whose release goes with the platform's FFmpeg.
    missing = {normalize(name) for name in names} - {"torchcodec"} - constraints().keys()
    assert not missing


def test_constraints_cover_every_python_once() -> None:
    old, new = 'python_version < "3.11"', 'python_version >= "3.11"'
    for name, markers in constraints().items():
        assert sorted(markers) in ([""], [old], [old, new]), name
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_decord_is_asked_for_only_where_it_has_wheels(requirements: str) -> None:
    line = next(line for line in requirements.splitlines() if line.startswith("Requires-Dist: dec"))
    assert 'platform_machine == "x86_64"' in line.replace("'", '"')
    assert "win32" in line
    assert "darwin" not in line


def test_newer_releases_of_torchcodec_may_be_installed(requirements: str) -> None:
    line = next(
        line for line in requirements.splitlines() if line.startswith("Requires-Dist: torchc")
    )
    assert re.fullmatch(r"Requires-Dist: torchcodec>=0\.13; extra == .torchcodec.", line)


def test_make_refuses_an_old_python_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.8.1' && exit 0\nexit 1\n")
    old.chmod(0o755)
    for python, message in ((old, "Python 3.8.1 is too old"), ("no-python", "no 'no-python'")):
        command = ["make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode != 0
        assert message in result.stderr
        assert not (tmp_path / "venv").exists()


def test_the_package_imports_quickly_and_without_torch() -> None:
    code = """
import sys, time
begin = time.perf_counter()
import slowfast_maskfeat
print(time.perf_counter() - begin)
known = set(sys.modules)
print(sorted({"torch", "numpy", "av", "fvcore"} & known), len(dir(slowfast_maskfeat)))
"""
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    seconds, rest = output.split("\n", 1)
    assert float(seconds) < 0.1
    assert rest.startswith("[] ")


def test_every_public_name_is_there() -> None:
    for name in slowfast_maskfeat.__all__:
        value = getattr(slowfast_maskfeat, name)
        assert callable(value), name
        assert name in dir(slowfast_maskfeat)
    assert slowfast_maskfeat.evaluate_ava.__module__ == "slowfast_maskfeat.metrics.ava_map"
    with pytest.raises(AttributeError, match="'slowfast_maskfeat' has no attribute 'no_such_name'"):
        _ = slowfast_maskfeat.no_such_name


@pytest.mark.slow
def test_the_installed_package_trains_away_from_its_source(tmp_path: Path) -> None:
    source, away = tmp_path / "source", tmp_path / "away"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("slowfast_maskfeat", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
    subprocess.run(command, check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The dependencies of this interpreter, but not its installation of the package.
    (purelib,) = (tmp_path / "venv").glob("lib/*/site-packages")
    (purelib / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q"]
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(source)]
    subprocess.run(pip, check=True, capture_output=True)
    shutil.rmtree(source)
    (away / "data").mkdir(parents=True)
    data = make_videos(away / "data")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)

    def maskfeat(*words: object) -> str:
        command = [str(python.with_name("maskfeat")), *map(str, words)]
        done = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sizes = pairs(MODEL, FINETUNING, {"DATA.PATH_TO_DATA_DIR": data, "SOLVER.MAX_EPOCH": 1})
    maskfeat("train", "--cfg", "demo/finetune", "--output", "run", *sizes)
    (checkpoint,) = (away / "run" / "checkpoints").glob("*.pyth")
    printed = maskfeat("predict", "--checkpoint", checkpoint, "--video", data / "1.mp4")
    assert len(printed.splitlines()) == 3
    assert maskfeat("--version") == f"maskfeat {slowfast_maskfeat.__version__}\n"
    for name in ("demo/finetune", "own/finetune", "own/linear"):
        assert list(purelib.glob(f"slowfast_maskfeat/configs/{name}.yaml"))
