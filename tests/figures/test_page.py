"""Parts of an HTML page: texts are escaped, tables sort, charts stay inside, pictures are in it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers.comparison import PageTables
from PIL import Image

from slowfast_maskfeat.figures import page

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def test_texts_of_users_are_no_html(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    whole = page.html_page(
        HOSTILE,
        page.section(HOSTILE, page.paragraph(HOSTILE), page.bullets([HOSTILE])),
        page.details(HOSTILE, page.link_rows({HOSTILE: [(HOSTILE, 'a"b/<c>')]})),
        page.sortable_table(
            "t",
            [page.Head("a", HOSTILE, HOSTILE), page.Head("b", HOSTILE)],
            [page.Row(HOSTILE, HOSTILE, [page.Cell(HOSTILE, HOSTILE, HOSTILE)])],
        ),
        page.line_chart(HOSTILE, [page.Line([(0, 1), (1, 2)], HOSTILE)], caption=HOSTILE),
        page.embedded_picture(tmp_path / "a.png", HOSTILE, caption=HOSTILE),
    )
    assert "<script>alert" not in whole
    assert whole.count("<script>") == 1
    assert PageTables(whole).addresses[0] == "a%22b/%3Cc%3E"


def test_a_table_has_the_values_that_it_is_sorted_by():
    table = page.sortable_table(
        "t",
        [page.Head("name", "Name"), page.Head("x", "X")],
        [
            page.Row("one", "One", [page.Cell("1.0", 1.04, "± 2")]),
            page.Row("two", "Two", [page.Cell("-")]),
        ],
    )
    found = PageTables(table).tables["t"]
    assert found["one"]["x"] == ("1.04", "1.0 ± 2")
    assert found["two"]["x"] == ("", "-")


@pytest.mark.parametrize(
    "points", [[(1, 0.0), (2, 100.0)], [(0.5, 120.0), (7, -0.0)], [(3, 50.0)], []]
)
def test_a_chart_stays_inside_its_frame(points):
    chart = page.line_chart("title", [page.Line(points, "a"), page.Line([(1, 5.0)], "b")])
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', chart).groups())
    paths = re.findall(r'd="M ([^"]+)"', chart)
    spots = np.array([spot.split() for path in paths for spot in path.split(" L ")], float)
    assert len(spots) == len(points) + 1
    assert (spots >= 0).all()
    assert (spots <= [width, height]).all()
    assert chart.count("<circle") == sum(len(of) == 1 for of in (points, [(1, 5.0)]))


def test_a_large_picture_is_reduced(tmp_path):
    Image.new("RGB", (5000, 100), (255, 0, 0)).save(tmp_path / "a.png")
    text = page.embedded_picture(tmp_path / "a.png", "a")
    assert len(text) < 20_000
    assert 'src="data:image/png;base64,' in text


def test_empty_parts_are_left_out():
    assert page.section("title") == ""
    assert page.section("title", "", "") == ""
    assert page.paragraph("") == ""
    assert page.bullets([]) == ""


def test_the_style_follows_the_choice_of_dark_or_light():
    whole = page.html_page("title")
    assert "color-scheme: light dark" in whole
    assert "prefers-color-scheme: dark" in whole
    assert 'name="viewport"' in whole
    assert "http" not in whole
