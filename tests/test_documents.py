"""What the documentation names exists: files, links, configuration keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.documents import DOCUMENTS, ROOT, all_blocks, blocks, in_backticks
from helpers.golden_rule import golden_json

from slowfast_maskfeat import __all__
from slowfast_maskfeat.config import default_config
from slowfast_maskfeat.config.inert import INERT_KEYS, INERT_SECTIONS

PACKAGE = ROOT / "slowfast_maskfeat"
KEY = re.compile(r"\b[A-Z][A-Z0-9_]+(?:(?:\.[A-Z][A-Za-z0-9_]+)+(?:\.\*)?|\.\*)")


# The golden defaults leave this section out; slowfast/config/defaults.py of PySlowFast.
PUBLISHED_CONTRASTIVE = {
    f"CONTRASTIVE.{name}"
    for name in (
        "TYPE",
        "DIM",
        "NUM_MLP_LAYERS",
        "MLP_DIM",
        "BN_MLP",
        "BN_SYNC_MLP",
        "PREDICTOR_DEPTHS",
        "MOMENTUM",
        "MOMENTUM_ANNEALING",
        "T",
    )
}


def _live_keys() -> set[str]:
    nodes = default_config().items()
    return {f"{name}.{key}" for name, node in nodes if isinstance(node, dict) for key in node}


def _documents():
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in DOCUMENTS]


@pytest.mark.parametrize("document", _documents())
def test_links_lead_somewhere(document):
    links = re.findall(r"(?:\]\(|src=\")([^)#\s\"]+)", document.read_text())
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", _documents())
def test_links_lead_to_headings(document):
    for file, heading in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", document.read_text()):
        target = document.parent / file if file else document
        assert heading in _headings(target), f"{file}#{heading}"


def _headings(document: Path) -> set[str]:
    """The fragments by which GitHub links to headings."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_landing_page_is_short_and_leads_to_every_document():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 170
    linked = {ROOT / link for link in re.findall(r"\]\(([\w/]+\.md)", text)}
    assert linked == set(DOCUMENTS) - {ROOT / "README.md"}


def test_the_page_of_the_api_has_an_example_of_every_public_name():
    code = "\n".join(line for block in blocks(ROOT / "docs/api.md") for line in block.lines)
    imported = re.findall(r"^from slowfast_maskfeat import (.*)$", code, re.MULTILINE)
    assert {name.strip() for names in imported for name in names.split(",")} == set(__all__)


def test_results_on_the_landing_page_are_those_of_the_model_zoo():
    zoo = (ROOT / "docs/model_zoo.md").read_text()
    urls = dict(re.findall(r"^\[([^\]]+)\]: (https://\S+)$", zoo, re.MULTILINE))
    published = {}
    for line in zoo.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == "published" and (config := re.findall(r"\((?:\.\./)(\S+)\)", cells[0])):
            weights = re.findall(r"\]\[([^\]]+)\]", cells[9])
            published[config[0]] = (cells[4], [urls[name] for name in weights])
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\|.*\| (\S+) \| (.*) \| .*\((configs/\S+)\) \|$", text, re.MULTILINE)
    shown = {config: (top1, re.findall(r"\((\S+)\)", cell)) for top1, cell, config in rows}
    assert shown == published


def test_every_event_of_the_log_is_documented():
    sources = [path.read_text() for path in PACKAGE.glob("*/*.py")]
    written = {event for s in sources for event in re.findall(r'log\.write\(\s*"(\w+)"', s)}
    text = (ROOT / "docs/results.md").read_text()
    table = re.search(r"## stats\.jsonl\n(.*?)\n## ", text, re.DOTALL)
    assert written
    assert set(re.findall(r"^\| `(\w+)` \|", table[1], re.MULTILINE)) == written


@pytest.mark.parametrize("document", _documents())
def test_files_in_backticks_exist(document):
    named = [text for text in in_backticks(document) if re.fullmatch(r"[\w.-]+/[\w./-]*", text)]
    places = (ROOT, PACKAGE, document.parent)
    known = [
        text for text in named if any((place / text.split("/")[0]).exists() for place in places)
    ]
    missing = [t for t in known if not any((place / t).exists() for place in places)]
    assert [text for text in missing if not text.startswith("output/")] == []


@pytest.mark.parametrize("document", _documents())
def test_keys_in_backticks_exist(document):
    sections = {f"{name}.*" for name in [*INERT_SECTIONS, *default_config()]}
    known = _live_keys() | set(INERT_KEYS) | sections
    named = {key for text in in_backticks(document) for key in KEY.findall(text)}
    assert named - known == set()


def test_keys_in_commands_exist():
    words = {word for block in all_blocks() for command in block.commands() for word in command}
    named = {word for word in words if KEY.fullmatch(word)}
    assert named
    assert named <= _live_keys()


def test_the_list_of_inert_keys_is_that_of_the_code():
    text = (ROOT / "docs/compatibility.md").read_text()
    rows = re.search(r"### Inert keys\n(.*?)\n## ", text, re.DOTALL)
    listed = [
        key
        for row in rows[1].splitlines()
        if row.startswith("|")
        for key in KEY.findall(row.split("|")[1])
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == set(INERT_KEYS) | {f"{section}.*" for section in INERT_SECTIONS}


def test_the_list_of_keys_that_work_is_that_of_the_code():
    text = (ROOT / "docs/compatibility.md").read_text()
    table = re.search(r"### Keys that work\n(.*?)\n### ", text, re.DOTALL)
    rows = re.findall(r"^\| (?:`(\S+)`|none) \| (.*) \|$", table[1], re.MULTILINE)
    listed = [
        (f"{section}.{name}" if section else name, bool(mark))
        for section, keys in rows
        for mark, name in re.findall(r"(\*\*)?`(\w+)`", keys)
    ]
    published = {*golden_json("defaults.json")["defaults"], *PUBLISHED_CONTRASTIVE}
    top = {name for name, node in default_config().items() if not isinstance(node, dict)}
    expected = {key: key not in published for key in _live_keys() | top}
    assert sorted(listed) == sorted(expected.items())


def test_the_layout_names_every_package():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert len(packages) > 10
    assert [name for name in packages if f"\n  {name}/ " not in text] == []
