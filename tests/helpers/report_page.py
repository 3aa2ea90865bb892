"""A report's page as a program reads it: tables, tiles, pictures, data of the confusion matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from helpers.comparison import PageTables


class ReportPage(PageTables):
    """Parts of the page of a report.

    Attributes:
        tiles: name -> value.
        pictures: texts in the place of pictures.
        texts: of paragraphs, rows of lists, headings and captions.
        matrix: data of the confusion matrix; None without one.
    """

    def __init__(self, page: str) -> None:
        self.tiles: dict[str, str] = {}
        self.pictures: list[str] = []
        self.texts: list[str] = []
        self.matrix: dict[str, Any] | None = None
        self._is_data = False
        super().__init__(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        found = {name: value or "" for name, value in attrs}
        if "data-tile" in found:
            self.tiles[found["data-tile"]] = found["data-value"]
        if tag == "img":
            self.pictures.append(found["alt"])
        self._is_data = found.get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self._is_data:
            self.matrix = json.loads(data)
            self._is_data = False
        elif data.strip():
            self.texts.append(data.strip())


class ReadReport(NamedTuple):
    """A report as it was written: the numbers of its JSON file, and its page."""

    content: dict[str, Any]
    page: ReportPage


def read_report(folder: Path, name: str = "report") -> ReadReport:
    """Read both files; the page loads nothing from elsewhere."""
    page = ReportPage((folder / f"{name}.html").read_text(encoding="utf-8"))
    assert all(address.startswith("data:image/") for address in page.addresses)
    return ReadReport(json.loads((folder / f"{name}.json").read_text()), page)


def numbers(table: dict[str, dict[str, tuple[str, str]]], column: str) -> list[float | None]:
    """The values of a column, by which it is sorted; None where nothing is known."""
    return [float(value) if value else None for value, _ in (row[column] for row in table.values())]
