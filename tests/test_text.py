"""Text in messages: no control characters, no value of any length."""

from __future__ import annotations

import pytest

from slowfast_maskfeat.cli import exit_code
from slowfast_maskfeat.runs.report import print_main
from slowfast_maskfeat.text import MAX_QUOTED, cut_quotes, printable, quoted

HOSTILE = "\x1b]0;title\x07\x1b[31mred\x9b2J\r\u202e\ud800"


def test_what_controls_a_terminal_is_escaped() -> None:
    shown = printable(f"a {HOSTILE} b")
    assert shown == r"a \x1b]0;title\x07\x1b[31mred\x9b2J\r\u202e\ud800 b"
    for text in (
        "plain",
        "two\nlines\tand a tab",
        "Händeschütteln 握手 \U0001f469\u200d\U0001f680",
    ):
        assert printable(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        "\x1b" * 1000,
        "'\"" * 1000,
        10**5000,
        -(1 << 100_000),
        list(range(10**6)),
        {"a" * 10**5: [["b" * 10**5] * 100]},
        [[[[[[[[[[[[0]]]]]]]]]]]],
        b"\0" * 10**6,
        {number: number for number in range(10**5)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_quotation_is_short_whatever_the_value(value: object) -> None:
    text = quoted(value)
    assert 0 < len(text) <= MAX_QUOTED
    assert printable(text) == text
    assert "\n" not in text


@pytest.mark.parametrize("value", ["a b", "it's", [1, "b", (2.5, None)], {"a": 1}, True, 10**30])
def test_the_quotation_of_a_small_value_is_its_representation(value: object) -> None:
    assert quoted(value) == repr(value)


def test_messages_quote_a_part_of_long_strings() -> None:
    message = (
        f"KEY can't be {'a' * 5000!r}, nor {'b' * 5000}; the videos' names aren't {'c c' * 99!r}"
    )
    short = cut_quotes(message)
    assert len(short) < 3 * MAX_QUOTED + 60
    assert short.startswith("KEY can't be 'aaa")
    assert " the videos' names aren't 'c c" in short
    assert cut_quotes("can't be 'short', or doesn't") == "can't be 'short', or doesn't"
    path = "/" + "d/" * 2000
    assert cut_quotes(f"{path}: no such file") == f"{path}: no such file"


def test_errors_and_notes_reach_the_terminal_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ValueError(f"class {HOSTILE} must be 'x', got {'y' * 9999!r}")

    assert exit_code(work) == 2
    print_main(f"warning: {HOSTILE}")
    shown = capsys.readouterr().err
    assert all(letter.isprintable() or letter == "\n" for letter in shown)
    assert r"error: class \x1b]0;title" in shown
    assert r"warning: \x1b]0;title" in shown
    assert len(shown) < 600
