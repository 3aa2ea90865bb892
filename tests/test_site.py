"""The documentation as a site: all pages are in its menu, and it builds without a broken link."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.documents import DOCUMENTS, ROOT
from helpers.site_links import broken_links

import slowfast_maskfeat

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def _pages(entries: list) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from _pages(value) if isinstance(value, list) else [value]


def test_the_menu_has_every_page_once():
    notebooks = [path.with_suffix(".md") for path in (ROOT / "docs").glob("*.ipynb")]
    expected = [path.relative_to(ROOT).as_posix() for path in (*DOCUMENTS, *notebooks)]
    assert len(notebooks) == 1
    assert sorted(_pages(CONFIG["nav"])) == sorted(expected)


def test_the_site_is_ignored_by_git():
    command = ["git", "check-ignore", "-q", CONFIG["site_dir"] + "/index.html"]
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git")
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_the_reference_has_every_public_name_once():
    text = (ROOT / "docs/reference.md").read_text()
    named = re.findall(r"^::: slowfast_maskfeat\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(slowfast_maskfeat.__all__)
    assert text.count(":::") == len(named)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="MkDocs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_link_of_the_site_is_broken(site):
    assert broken_links(site) == []
    assert (site / "docs/quickstart.ipynb").is_file()
    assert (site / "configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml").is_file()


def test_the_pages_load_nothing_from_elsewhere(site):
    loaded = re.compile(r"<(?:script|img|link)\b[^>]*(?:src|href)=\"(https?://[^\"]+)\"")
    assert {
        url for path in site.rglob("*.html") for url in loaded.findall(path.read_text())
    } == set()


def test_the_reference_has_signatures_and_docstrings(site):
    text = re.sub(r"<[^>]+>", "", (site / "docs/reference.html").read_text())
    for name in slowfast_maskfeat.__all__:
        assert f"slowfast_maskfeat.{name}" in text
    assert "the folder of the lists" in text  # of an argument of `train`
