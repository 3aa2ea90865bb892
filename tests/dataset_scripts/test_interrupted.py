"""Ctrl-C ends a script with one line, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from helpers import dataset_scripts, sessions
from helpers.tiny_run import wait_for
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("make_motion_clips.py", ("--num-pretrain", 400)),
        ("make_motion_boxes.py", ("--num-train", 30)),
    ],
)
def test_a_signal_to_all_processes_is_one_line(tmp_path, script, options, number):
    words = ("--output", tmp_path, "--processes", 2, *options)
    process = sessions.start(dataset_scripts.command(script, *words))
    wait_for(lambda: process.poll() is not None or list((tmp_path / "videos").glob("*.mp4")))
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert errors.splitlines()[-1].endswith("run the same command again to resume")
    assert "Traceback" not in errors
