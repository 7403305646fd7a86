"""The pictures, the page and the figures: right by hand, complete, self-contained."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from explain_helpers import make_network, make_pair
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError
from efnet.explain import explain, write_explanation
from efnet.explain.html_report import render
from efnet.explain.pictures import (
    INK,
    LARGEST_SIDE,
    LEVELS,
    PAPER,
    draw_clusters,
    draw_distance,
    edges,
    enlarge,
    heat_map,
    outlined,
    pictures,
    viridis,
)
from efnet.reporting.svg import bar_chart, standalone

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def seen():
    network = make_network()
    network.classes = ClassSet(
        ("road", "a/b & <c>", "A B", "sky", "x"), tuple((k, 40 * k, 255 - k) for k in range(5))
    )
    return explain(network, *make_pair(50, 71))


class Page(HTMLParser):
    """Elements and text of a page, every element closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def test_lines_run_between_clusters():
    labels = np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]])
    expected = [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(edges(labels), np.array(expected, dtype=bool))
    assert not edges(np.zeros((3, 4))).any()
    assert edges(enlarge(labels, (6, 6))).sum() == 4 + 6 - 1, "one pixel thin, whatever the size"


@pytest.mark.parametrize("ground", [0, 40, 127, 128, 215, 255])
def test_lines_stand_out_from_any_ground_and_touch_nothing_else(ground):
    image = np.full((12, 12, 3), ground, dtype=np.uint8)
    lines = np.zeros((12, 12), dtype=bool)
    lines[5, 2:9] = True
    drawn = outlined(image, lines, 0.7)
    assert (drawn[~lines] == ground).all()
    assert np.abs(drawn[lines].astype(int) - ground).min() > 80
    assert (image == ground).all(), "the image given stays as it is"


def test_centers_are_drawn_where_they_are(seen):
    level = seen.clusterings[2]
    picture = np.asarray(draw_clusters(np.zeros((52, 72, 3), np.uint8), level)).astype(int)
    assert picture.shape[:2] == (14 * 52, 14 * 72)
    rows, columns = level.clusters.shape
    for row, column in level.centers:
        y, x = int((row + 0.5) * 14 * 52 / rows), int((column + 0.5) * 14 * 72 / columns)
        assert picture[y, x, 0] > 200 > 60 > picture[y, x, 2], "yellow"


def test_large_photographs_shrink(seen):
    picture = draw_clusters(np.zeros((1000, 4000, 3), np.uint8), seen.clusterings[0])
    assert picture.size == (LARGEST_SIDE, 480)


def test_scale_is_viridis_and_can_be_ordered_without_colour():
    assert (np.diff(viridis(64) @ [0.2126, 0.7152, 0.0722]) > 0).all()
    colors = viridis(256).astype(float)
    matplotlib = pytest.importorskip("matplotlib")
    expected = np.array(matplotlib.colormaps["viridis"].colors) * 255
    assert np.abs(colors - expected).max() < 7


def test_heat_map_by_hand():
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    pixels = np.asarray(heat_map(values, (40, 60)))
    assert pixels.shape[1] == 60 < pixels.shape[0] + 20
    middle = [pixels[10, 15], pixels[10, 45], pixels[30, 15], pixels[30, 45]]
    assert middle == [0, round((LEVELS - 1) / 4), (LEVELS - 1) // 2, LEVELS - 1]
    reverse = np.asarray(heat_map(values, (40, 60), limits=(1.0, 3.0), reverse=True))
    assert [reverse[10, 15], reverse[10, 45], reverse[30, 45]] == [LEVELS - 1, LEVELS - 1, 0], "clipped"
    assert (np.asarray(heat_map(np.ones((2, 2)), (40, 60)))[:40] == 0).all(), "a constant map is drawn too"
    color = heat_map(values, (40, 60)).convert("RGB").getpixel((45, 30))
    assert color == tuple(viridis(LEVELS)[-1])


def test_a_region_is_outlined_on_both_sides():
    inside = np.zeros((4, 6), dtype=bool)
    inside[1:3, 2:4] = True
    pixels = np.asarray(heat_map(np.zeros((4, 6)), (40, 60), outlined=inside))[:40]
    assert (pixels[10, 20:40] == INK).all(), "white within"
    assert (pixels[9, 20:40] == PAPER).all(), "black without"
    assert (pixels[12:28, 22:38] == 0).all()
    assert (pixels == INK).sum() == 2 * 20 + 2 * 18


def test_distance_maps_share_a_scale_and_outline_the_winner(seen):
    low, high = seen.distances.min(), seen.distances.max()
    for number in range(5):
        pixels = np.asarray(draw_distance(seen, number))
        height = round(640 * 50 / 71)
        won = (seen.cell_classes == number).any() and not (seen.cell_classes == number).all()
        assert (pixels[:height] == INK).any() == won
        row, column = 6, 9
        y, x = int((row + 0.5) * height / 13), int((column + 0.5) * 640 / 18)
        share = 1 - (seen.distances[number, row, column] - low) / (high - low)
        assert pixels[y, x] == pytest.approx(share * (LEVELS - 1), abs=1)
    with pytest.raises(InputError, match="mlp"):
        draw_distance(explain(make_network(decoder="mlp"), *make_pair()), 0)


def test_strip_shows_every_channel_in_order_with_its_mean():
    weights = np.array([0.2, 0.9, 0.4, 0.6], dtype=np.float32)
    chart = bar_chart(weights, "RGB <1>", "channels")
    assert "http" not in chart
    root = ElementTree.fromstring(chart)
    assert "mean 0.525" in root.attrib["aria-label"]
    band, *bars = root.findall("rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    np.testing.assert_allclose(
        np.array(heights) / heights[0], np.array([0.9, 0.6, 0.4, 0.2]) / 0.9, rtol=1e-3
    )
    assert float(band.attrib["height"]) / heights[0] == pytest.approx(2 * weights.std() / 0.9, rel=1e-3)
    both = ElementTree.fromstring(standalone(chart, chart))
    assert len(both.findall(f".//{SVG}svg")) == 2
    assert len(both.findall(f".//{SVG}rect")) == 1 + 2 * 5


def test_every_part_has_its_pictures(seen):
    shown = list(pictures(seen))
    names = [picture.name for picture in shown]
    assert len(set(names)) == len(names)
    assert {"distance-1-a-b-c", "distance-2-a-b", "distance-4-x"} <= set(names)
    counts = {"pair": 3, "clusters": 3, "importance": 3, "fusion": 2, "distances": 5, "certainty": 2}
    assert {part: sum(picture.part == part for picture in shown) for part in counts} == counts
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


def test_page_holds_every_picture_and_needs_nothing_else(seen):
    shown = list(pictures(seen))
    html = render(seen, "drive <1>/7", shown)
    assert not re.search(r"https?://|@import|<script|<link|<iframe|url\(", html)
    page = Page(html)
    assert len(page.images) == len(shown)
    assert all(re.match(r"data:image/(png|jpeg);base64,", image["src"]) for image in page.images)
    alts = [image["alt"] for image in page.images]
    assert len(set(alts)) == len(alts)
    text = " ".join(page.words)
    assert "Inside EFNet: drive <1>/7" in text
    assert "a/b & <c>" in text
    assert "13x18" not in text
    assert "234 tokens (18x13), then 59, 15, 4." in text
    assert html.count('<svg class="chart"') == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fusion": "add"}, "fuses by add"),
        ({"decoder": "deeplab"}, "decodes by deeplab"),
        ({"position": "none"}, "has no position"),
    ],
)
def test_page_says_what_is_not_there(options, words):
    small = explain(make_network(**options), *make_pair())
    html = render(small, "x", list(pictures(small)))
    assert words in html
    assert "What this network does not have" in html


def test_files_hold_the_figures(seen, tmp_path):
    written = write_explanation(tmp_path / "a", "x", seen)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(path.name for path in written)
    values = json.loads((tmp_path / "a" / "explain.json").read_text())
    assert values["grid_size"] == [13, 18]
    assert values["shares"] == seen.prediction.shares()
    for level, said in zip(seen.clusterings, values["clusterings"], strict=True):
        assert sum(said["tokens_per_class"].values()) == pytest.approx(level.num_clusters, abs=1e-2)
        assert said["importance"]["max"] == pytest.approx(level.importance.max(), abs=1e-5)
    np.testing.assert_allclose(
        values["mif"]["thermal"]["weights"], seen.interaction.thermal.weights, atol=1e-6
    )
    assert values["distances"]["sky"]["mean"] == pytest.approx(seen.distances[3].mean(), rel=1e-5)
    assert values["absent"] == []
    for name in values["pictures"]:
        if name.endswith(".png"):
            Image.open(tmp_path / "a" / name).verify()


def test_another_network_leaves_no_stale_pictures(seen, tmp_path):
    write_explanation(tmp_path, "x", seen)
    (tmp_path / "distance-9-mine.png").write_bytes(b"not ours")
    other = write_explanation(tmp_path, "x", explain(make_network(decoder="mlp", fusion="add"), *make_pair()))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {path.name for path in other} | {"distance-9-mine.png"}
    values = json.loads((tmp_path / "explain.json").read_text())
    assert values["mif"] is None
    assert values["distances"] is None
    assert len(values["absent"]) == 2
