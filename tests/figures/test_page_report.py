"""Parts of the page of a test: hostile names stay data, bars and diagrams have their numbers."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from helpers.report_page import ReportPage
from PIL import Image

from slowfast_maskfeat.figures import page, page_matrix
from slowfast_maskfeat.figures.page_report import (
    ReliabilityBin,
    Tile,
    VideoCard,
    reliability_diagram,
    tiles,
    video_cards,
)

HOSTILE = "</script><script>alert(1)</script><!-- & \u2028 \"'"


def test_names_in_the_script_stay_data():
    names = [HOSTILE, "</SCRIPT >", "<!--<script>"]
    matrix = page_matrix.confusion_matrix(names, [2, 0, 1], [5, 0, 1], [(0, 2, 5), (2, 2, 1)])
    whole = page.html_page("title", matrix, style=page_matrix.STYLE, script=page_matrix.SCRIPT)
    assert len(re.findall("<script", whole, re.IGNORECASE)) == 2
    assert len(re.findall("</script", whole, re.IGNORECASE)) == 2
    assert "<!--" not in whole
    assert "\u2028" not in whole
    found = ReportPage(whole)
    assert found.matrix == {
        "names": names,
        "order": [2, 0, 1],
        "support": [5, 0, 1],
        "cells": [[0, 2, 5], [2, 2, 1]],
    }
    assert any("needs a script" in text for text in found.texts)


def test_scripts_and_styles_do_not_end_their_elements():
    for text in (page_matrix.SCRIPT, page_matrix.STYLE):
        assert "</" not in text
        assert "http" not in text


@pytest.mark.parametrize("value", [HOSTILE, ["<", ">", "&"], {"<a>": "\u2029"}])
def test_json_of_a_script_is_what_was_given(value):
    text = page_matrix.json_script(value)
    inside = text.removeprefix('<script type="application/json">').removesuffix("</script>")
    assert not set(inside) & set("<>&")
    assert json.loads(inside) == value


def test_tiles_have_full_numbers_and_bars():
    made = tiles(
        [
            Tile("top1", HOSTILE, HOSTILE, 62.123456, HOSTILE, (0.5, 0.62, 0.7)),
            Tile("more", "b", "+1", 1.0, span=(-0.1, 0.02, 0.5), is_difference=True),
            Tile("none", "c", "-", None),
        ]
    )
    assert "<script" not in made
    assert ReportPage(made).tiles == {"top1": "62.123456", "more": "1.0", "none": ""}
    assert re.findall(r'<i style="left:([\d.]+)%;width:([\d.]+)%"', made) == [
        *(("50.00", "20.00"), ("45.00", "30.00"))
    ]
    assert re.findall(r'<s style="left:([\d.]+)%"', made) == ["62.00", "51.00"]
    assert made.count("<u></u>") == 1


def test_a_reliability_diagram_has_a_bar_for_each_bin_with_videos():
    bins = [
        ReliabilityBin(0.0, 0.5, 10, 0.4, 0.2),
        ReliabilityBin(0.5, 0.75, 0, None, None),
        ReliabilityBin(0.75, 1.0, 20, 0.8, 1.0),
    ]
    made = reliability_diagram(bins, HOSTILE)
    assert "<script" not in made
    assert made.count("<g>") == 2
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', made).groups())
    found = re.findall(
        r'<rect(?: class="(\w+)")? x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"',
        made,
    )
    boxes = {(number // 3, kind): [*map(float, box)] for number, (kind, *box) in enumerate(found)}
    for x, y, wide, high in boxes.values():
        assert x + wide <= width
        assert y + high <= height
    # Accuracy 0.2 and score 0.4: dark up to 0.2, then as much in the color of too few.
    assert boxes[0, ""][3] == pytest.approx(boxes[0, "below"][3], abs=0.2)
    assert boxes[1, ""][3] == pytest.approx(4 * boxes[1, "above"][3], abs=0.5)
    assert boxes[1, "count"][3] == pytest.approx(2 * boxes[0, "count"][3], abs=0.1)


def _pictures(made: str) -> list[np.ndarray]:
    contents = re.findall(r"base64,([^\"]+)", made)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in contents]


def test_frames_of_a_video_are_side_by_side_and_reduced():
    frames = [np.full((1080, 1920, 3), 250 - 100 * number, np.uint8) for number in range(3)]
    made = video_cards([VideoCard(frames, HOSTILE, [HOSTILE])])
    assert "<script" not in made
    (picture,) = _pictures(made)
    assert picture.shape[1] <= 740
    middle = picture[picture.shape[0] // 2, :, 0].astype(int)
    places = [len(middle) * part // 6 for part in (1, 3, 5)]
    assert middle[places].tolist() == pytest.approx([250, 150, 50], abs=3)


def test_annotated_frames_are_pictures_of_their_own():
    frames = [np.zeros((40, 1, 3), np.uint8), np.zeros((360, 480, 3), np.uint8)]
    made = video_cards([VideoCard(frames, "a", ())], is_wide=True)
    assert [picture.shape[1] for picture in _pictures(made)] == [18, 720]
    assert video_cards([]) == ""
