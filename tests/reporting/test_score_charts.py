"""Charts of scores: well-formed SVG whose marks lie where their values are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from efnet.reporting.score_charts import chart_file, confusion_chart, interval_chart, reliability_chart

SVG = "{http://www.w3.org/2000/svg}"


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart_file(chart))


def test_intervals_lie_on_one_scale() -> None:
    root = parsed(interval_chart([("car", 2.0, 1.0, 3.0), ("a<b", -1.0, -2.0, 0.5)], "a & b"))
    dots = root.findall(f"{SVG}circle")
    xs = [float(dot.get("cx", "")) for dot in dots]
    lines = [line for line in root.findall(f"{SVG}line") if "stroke-width:2" in line.get("style", "")]
    ends = [(float(line.get("x1", "")), float(line.get("x2", ""))) for line in lines]
    pitch = (xs[0] - xs[1]) / 3  # pixels of a point
    assert ends[0] == pytest.approx((xs[0] - pitch, xs[0] + pitch), abs=0.1)
    assert ends[1] == pytest.approx((xs[1] - pitch, xs[1] + 1.5 * pitch), abs=0.1)
    # Only the first excludes zero.
    assert ["--accent" in dot.get("style", "") for dot in dots] == [True, False]
    assert "a<b -1.00, -2.00 to +0.50" in root.get("aria-label", "")
    with pytest.raises(ValueError, match="at least one"):
        interval_chart([], "empty")


def test_a_calibrated_bin_lies_on_the_diagonal() -> None:
    root = parsed(reliability_chart([(0.25, 0.25, 10), (0.5, 0.9, 0), (0.8, 0.6, 30)], "title"))
    dots = [(float(dot.get("cx", "")), float(dot.get("cy", ""))) for dot in root.findall(f"{SVG}circle")]
    assert len(dots) == 2  # the empty bin has none
    assert dots[0] == pytest.approx((56 + 75, 34 + 225), abs=0.1)
    assert dots[1] == pytest.approx((56 + 240, 34 + 120), abs=0.1)
    bars = [float(bar.get("height", "")) for bar in root.findall(f"{SVG}rect")[1:]]
    assert bars == pytest.approx([75, 0, 225], abs=0.1)


def test_a_confusion_matrix_shows_percent_of_truth() -> None:
    text = chart_file(confusion_chart([[3, 1], [0, 0]], ["car", "<person>"], "t"))
    cells = re.findall(r">([\d.]+|-)</text>", text)
    assert cells == ["75.0", "25.0", "-", "-"]
    assert "&lt;person&gt;" in text
    assert "car 75.0" in parsed(confusion_chart([[3, 1], [0, 0]], ["car", "<person>"], "t")).get(
        "aria-label", ""
    )
