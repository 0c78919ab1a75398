"""Numbers that a person types, and messages: one line, whatever stands in them."""

from __future__ import annotations

import argparse

import pytest

from gnn_core import usage


@pytest.mark.parametrize(
    "text", ["²", "1.5", "", " ", "1e3", "0x10", "9" * 5000, "٣", "1__0", "--1"]
)
def test_what_is_no_whole_number_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number, got ") as caught:
        usage.read_whole(text)
    assert len(str(caught.value)) < 120
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number"):
        usage.whole()(text)


@pytest.mark.parametrize(("text", "value"), [("7", 7), (" -3 ", -3), ("+5", 5), ("1_000", 1000)])
def test_whole_numbers_are_read(text: str, value: int) -> None:
    assert usage.read_whole(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [("0", "from 1"), ("1" + "0" * 12, "at most 2147483647"), ("9" * 90, "at most 2147483647")],
)
def test_counts_are_bounded(text: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        usage.whole()(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "2", "x", "1e999"])
def test_numbers_outside_their_range_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a "):
        usage.finite(0, 1)(text)


def test_a_value_is_shown_on_a_line_and_cut() -> None:
    assert usage.shown("a\nb\x1b[31m") == "'a\\nb\\x1b[31m'"
    assert len(usage.shown("x" * 1000)) == 60
    assert usage.shown(10**5000) == "a number of thousands of digits"
    assert usage.one_line("a\r\n b\x00\x9bc\u2028d") == r"a b\x00\x9bc d"
