"""Each script starts by its path, from any folder, and hands its exit code to the shell."""

from __future__ import annotations

import subprocess

import pytest
from helpers.load_tool import ROOT, tool_command

# Words, exit code, and a part of the last line. Most are given a file that is not there, which a
# script finds only once everything it needs is imported.
SCRIPTS = {
    "datasets/check_ava.py": ("--label-map x --train none.csv --videos .", 2, "none.csv"),
    "datasets/check_videos.py": ("none.csv --output out", 2, "none.csv"),
    "datasets/make_manifest.py": ("--data none --output out", 2, "none"),
    "datasets/make_motion_boxes.py": ("--output out --num-train 0", 2, "num_train"),
    "datasets/make_motion_clips.py": ("--output out --frames 1", 2, "frames"),
    "datasets/make_shape_images.py": ("--output out --size 1", 2, "size"),
    "datasets/make_shards.py": ("none.csv --output out", 2, "none.csv"),
    "datasets/resize_videos.py": ("none.csv --output out", 2, "none.csv"),
    "datasets/summary.py": ("none.csv --output out", 2, "none.csv"),
    "tools/benchmark.py": ("--help", 0, "--json"),
    "tools/benchmark_data.py": ("--help", 0, "--json"),
    "tools/check_install.py": ("", 0, "The installation works."),
    "tools/compare.py": ("--recipe none.yaml --output out", 2, "none.yaml"),
    "tools/convert_checkpoint.py": ("--cfg none.yaml --input x --output out.pyth", 2, "none.yaml"),
    "tools/decoder_table.py": ("--document none.md", 2, "none.md"),
    "tools/demo.py": ("--output .", 2, "make_motion_clips.py"),
    "tools/demo_ava.py": ("--output .", 2, "make_motion_boxes.py"),
    "tools/demo_image.py": ("--output .", 2, "make_shape_images.py"),
    "tools/detect.py": (
        "--checkpoint none.pyth --video x --boxes x --output out",
        *(2, "none.pyth"),
    ),
    "tools/extract_features.py": ("--checkpoint none.pyth", 2, "none.pyth"),
    "tools/gpu_report.py": ("--quick", 2, "--output"),
    "tools/model_info.py": ("--cfg none.yaml", 2, "none.yaml"),
    "tools/predict.py": ("--checkpoint none.pyth --video x", 2, "none.pyth"),
    "tools/rewrite_checkpoint.py": ("--input none.pth --output out.pyth", 2, "none.pth"),
    "tools/run_net.py": ("--cfg none.yaml", 2, "none.yaml"),
    "tools/visualize.py": ("--checkpoint none.pyth --input x --output out.png", 2, "none.pyth"),
}


def test_every_script_is_here():
    files = [path for folder in ("tools", "datasets") for path in (ROOT / folder).glob("*.py")]
    scripts = [path for path in files if '__name__ == "__main__"' in path.read_text()]
    assert {f"{path.parent.name}/{path.name}" for path in scripts} == set(SCRIPTS)


@pytest.mark.parametrize("path", SCRIPTS)
def test_a_script_starts_from_another_folder(path, tmp_path):
    words, code, part = SCRIPTS[path]
    command = tool_command(path, *words.split())
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    last = said.splitlines()[-1]
    assert last.startswith("error: ") == (code != 0)
    assert part in last
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
