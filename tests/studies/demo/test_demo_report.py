"""The page: well-formed, self-contained, true to its figures, and readable without its pictures."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from demo_helpers import make_report, make_sample
from PIL import Image

from efnet.data.layouts.public import MFNET_CLASSES
from efnet.reporting.svg import line_chart, nice_ticks
from efnet.studies.demo_page import Epoch, duration, render_report, write_report

VOID = {"meta", "img", "line", "circle", "polyline", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects elements and text, and checks that every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> in the wrong place"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make_report())


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_is_self_contained(html, page):
    assert not re.search(r"https?://|@import|<script|<link|<iframe", html)
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 4 * 6
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in sources)
    assert not re.search(r"url\(", html)


def test_is_accessible(page):
    assert page.all("html")[0]["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    alts = [image["alt"] for image in page.all("img")]
    assert len(set(alts)) == len(alts), "every picture is described by itself"
    assert "Thermal image of pair 00001N by night" in alts
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in page.all("svg"))
    assert all(header.get("scope") for header in page.all("th"))
    assert [name for name, _ in page.elements if name == "h1"] == ["h1"]


def test_figures_are_those_of_the_evaluation(page):
    evaluation = make_report().evaluation
    for value in (evaluation["miou"], evaluation["day"]["miou"], evaluation["trivial"]["miou"]):
        assert f"{100 * value:.1f}" in page.text
    for name in MFNET_CLASSES.names:
        assert name in page.text
    widths = [span["style"] for span in page.all("span") if span.get("class") == "bar"]
    expected = [value for value in [*evaluation["iou"].values(), evaluation["miou"]] if value is not None]
    assert widths == [f"width:{100 * value:.1f}%" for value in expected]
    shares = [
        float(cell["style"].split(":")[1]) for cell in page.all("td") if "--share" in cell.get("style", "")
    ]
    counts = np.asarray(evaluation["confusion"], dtype=float)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(np.reshape(shares[1:], (9, 9)), counts / totals, atol=5e-4)


def test_pictures_are_the_samples():
    sample = make_sample(3)
    page = Page(render_report(make_report(samples=[sample])))
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) for image in page.all("img")
    ]
    assert all(picture.size == (80, 60) for picture in pictures)
    rgb, thermal, _, prediction, truth, errors = pictures
    assert np.abs(np.asarray(rgb, float) - sample.rgb).mean() < 12  # JPEG of hard edges
    assert np.abs(np.asarray(thermal, float)[..., 0] - 255 * sample.thermal).mean() < 12
    np.testing.assert_array_equal(np.asarray(prediction), sample.prediction)
    np.testing.assert_array_equal(np.asarray(truth), sample.truth)
    red = np.asarray(errors, float)[..., 0] - np.asarray(errors, float)[..., 1] > 90
    wrong = (sample.prediction != sample.truth) & (sample.truth != 255)
    assert (red == wrong).mean() > 0.95


def test_text_is_escaped(html, page):
    assert "<small>" not in html
    assert "A <small> network & its scenes" in page.text


def test_stays_small(html):
    assert len(html) < 300_000


def test_parts_may_be_missing():
    evaluation = dict(make_report().evaluation)
    for key in ("day", "night", "trivial"):
        evaluation.pop(key)
    report = make_report(evaluation=evaluation, epochs=(), samples=(), steps=(), facts={})
    page = Page(render_report(report))
    assert not page.all("svg")
    assert not page.all("img")
    assert "night" not in page.text


def test_classes_that_do_not_occur_get_a_dash(page):
    evaluation = make_report().evaluation
    absent = [name for name, value in evaluation["iou"].items() if value is None]
    assert absent, "the drawn boxes leave out bump"
    assert f"{absent[0]} - " in page.text


def test_loss_that_is_not_finite_is_left_out():
    epochs = [Epoch(1, float("nan"), None), Epoch(2, 1.0, None), Epoch(3, 0.5, None)]
    page = Page(render_report(make_report(epochs=epochs)))
    (chart,) = page.all("svg")
    assert "from 1 at epoch 2 to 0.5 at epoch 3" in chart["aria-label"]


def test_written_whole(tmp_path):
    write_report(tmp_path / "a" / "report.html", make_report())
    assert (tmp_path / "a" / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_durations():
    assert [duration(seconds) for seconds in (0.04, 12.34, 61, 3599.9)] == [
        "0.0 s",
        "12.3 s",
        "1 min 01 s",
        "60 min 00 s",
    ]


class TestCharts:
    @pytest.mark.parametrize(
        ("low", "high"), [(0, 1), (0, 0.037), (0, 812), (3, 3), (0, 0), (-2, 5), (0, 1e-9), (1, 30)]
    )
    def test_ticks_enclose_the_range_in_round_steps(self, low, high):
        ticks = nice_ticks(low, high, 5)
        assert ticks[0] <= low
        assert ticks[-1] >= high
        assert 2 <= len(ticks) <= 12
        steps = np.diff(ticks)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        assert f"{steps[0]:.0e}"[0] in "125"

    def test_points_lie_where_they_belong(self):
        chart = line_chart([(0, 0), (1, 5), (2, 10)], title="t", x_label="x", y_label="y")
        (path,) = re.findall(r'points="([^"]+)"', chart)
        points = np.array([[float(value) for value in point.split(",")] for point in path.split()])
        np.testing.assert_allclose(points[1], (points[0] + points[2]) / 2, atol=0.06)
        assert points[2, 1] < points[0, 1], "up is more"
        assert points[:, 0].min() >= 0
        assert points[:, 0].max() <= 440

    def test_one_point(self):
        assert "<circle" in line_chart([(1, 0.3)], title="t", x_label="x", y_label="y", percent=True)

    def test_nothing_to_draw(self):
        with pytest.raises(ValueError, match="finite point"):
            line_chart([(1, float("nan"))], title="t", x_label="x", y_label="y")
