"""Markdown tables and the figures in them."""

from __future__ import annotations

import math

import pytest

from efnet.reporting.tables import MeanDeviation, markdown_table, percent

ROWS = [["a", "1"], ["long", "1234"]]


def test_a_plain_table() -> None:
    assert markdown_table(["", "n"], ROWS) == ["|  | n |", "| --- | ---: |", "| a | 1 |", "| long | 1234 |"]


def test_an_aligned_table() -> None:
    assert markdown_table(["", "n"], ROWS, aligned=True) == [
        "|      |    n |",
        "|------|-----:|",
        "| a    |    1 |",
        "| long | 1234 |",
    ]


@pytest.mark.parametrize(
    ("share", "text"), [(0.5, "50.00"), (0.123456, "12.35"), (None, "-"), (math.nan, "-"), (0.0, "0.00")]
)
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_a_deviation_follows_the_mean() -> None:
    assert MeanDeviation(0.5, 0.0125).percent() == "50.00 ± 1.25"
    assert MeanDeviation(0.5, None).percent() == "50.00"
