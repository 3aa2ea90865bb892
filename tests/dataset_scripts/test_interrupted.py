"""Ctrl-C ends a script with one line, and the same command goes on."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from helpers import dataset_scripts
from helpers.videos_on_disk import numbered_frames, write_video


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(3):
        write_video(folder / f"{number}.mp4", numbered_frames(12))
    (folder / "train.csv").write_text("".join(f"{folder}/{n}.mp4 0\n" for n in range(3)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("check_videos.py", ()),
        ("resize_videos.py", ("--short-side", 32)),
        ("summary.py", ()),
    ],
)
def test_an_interruption_is_one_line(data, tmp_path, script, options):
    output = tmp_path / "out"
    words = (data / "train.csv", "--output", output, "--processes", 1, *options)
    command = dataset_scripts.command(script, *words)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (output.exists() and list(output.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)  # until the journal, or the note of the settings, is there
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in errors
    dataset_scripts.run(script, *words)
