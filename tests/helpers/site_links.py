"""The links of a built site: those that lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        self.targets |= {found[name] for name in ("href", "src") if found.get(name)}


def broken_links(site: Path) -> list[str]:
    """Return the links and pictures of all pages whose file or anchor does not exist.

    Those of 404.html are left out: they begin at the root of a server.
    """
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for target in page.targets if path.name != "404.html" else ():
            link = urlsplit(target)
            if link.scheme or link.netloc:
                continue
            file = (path.parent / unquote(link.path)).resolve() if link.path else path
            file = file / "index.html" if file.is_dir() else file
            anchors = pages[file].anchors if file in pages else None
            is_known = anchors is None or not link.fragment or unquote(link.fragment) in anchors
            if not (file.is_file() and is_known):
                broken.append(f"{path.relative_to(site)}: {target}")
    return sorted(broken)
