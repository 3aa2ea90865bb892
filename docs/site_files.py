"""Hook of MkDocs (mkdocs.yml): the files of the site, at their places in the repository.

Pages are README.md and the other documents at the top, in `datasets/` and in `docs/`; a notebook
becomes a page, too. Every file that a page links to or shows is copied, so that the same relative
links work on the site, on GitHub and in a checkout.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_PAGES = ("*.md", "datasets/*.md", "docs/*.md")
_NOTEBOOKS = "docs/*.ipynb"
_LINK = re.compile(r"\]\(([^)#\s:]+)[)#]|src=\"([^\":]+)\"")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs/, but not those of the theme, by those of the site."""
    root = Path(config.config_file_path).parent
    texts = {
        path: path.read_text(encoding="utf-8") for pages in _PAGES for path in root.glob(pages)
    }
    for notebook in root.glob(_NOTEBOOKS):
        texts[notebook.with_suffix(".md")] = notebook_page(notebook)
    linked = {
        (page.parent / (link or shown)).resolve()
        for page, text in texts.items()
        for link, shown in _LINK.findall(text)
    }
    linked |= {root / str(name) for name in config.extra_css}
    copied = [path for path in sorted(linked) if path.is_file() and path not in texts]
    found = [file for file in files if file.src_dir != config.docs_dir]
    for path, text in texts.items():
        found.append(File.generated(config, path.relative_to(root).as_posix(), content=text))
    for path in copied:
        name = path.relative_to(root).as_posix()
        found.append(File.generated(config, name, abs_src_path=str(path)))
    return Files(found)


def notebook_page(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([*parts, f"This page is the notebook [{path.name}]({path.name}).\n"])
