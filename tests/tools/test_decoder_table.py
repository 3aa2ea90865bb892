"""tools/decoder_table.py: the table of docs/decoders.md from files that it tries."""

from __future__ import annotations

from helpers.load_tool import ROOT, run_tool

from slowfast_maskfeat.videos.decode import available_backends

DOCUMENT = ROOT / "docs" / "decoders.md"
FILES = ("h264", "truncated-before-index", "mjpeg-exif")


def test_the_table_is_repaired_by_trying_the_files(tmp_path):
    text = DOCUMENT.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    (h264,) = (line for line in lines if line.startswith("| `h264` |"))
    (exif,) = (line for line in lines if line.startswith("| `mjpeg-exif` |"))
    cells = h264.split("|")
    cells[3] = " wrong "  # of PyAV
    copy = tmp_path / "decoders.md"
    copy.write_text(text.replace(h264, "|".join(cells)).replace(exif, ""), encoding="utf-8")
    done = run_tool("tools/decoder_table.py", "--document", copy, "--files", *FILES)
    assert done.returncode == 0, done.stderr
    assert "h264, pyav: wrong -> exact" in done.stdout
    assert "mjpeg-exif, pyav: nothing -> exact" in done.stdout
    if all("absent" not in note for note in available_backends().values()):
        assert copy.read_text(encoding="utf-8") == text
    assert h264 in copy.read_text(encoding="utf-8")


def test_a_document_without_the_table_is_left_alone(tmp_path):
    (tmp_path / "other.md").write_text("no table\n")
    done = run_tool("tools/decoder_table.py", "--document", tmp_path / "other.md")
    assert done.returncode == 2
    assert "must have a table that begins with" in done.stderr
    assert (tmp_path / "other.md").read_text() == "no table\n"
