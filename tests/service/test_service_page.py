"""The page in a browser, used as a person would: by mouse, by keyboard, on a phone."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import resources

import httpx
import numpy as np
import pytest
from PIL import Image
from service_helpers import NAMES, ServerProcess, encode, files_of, index_of, make_pair

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

READY = "#viewer:not([hidden])"
PIXEL = (40, 20)
DROP = """([target, files]) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files) {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
    }
    const event = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server: ServerProcess) -> Iterator[Callable]:
    """Opens the page; afterwards: no error on the console, no request to anybody else."""
    problems: list[str] = []
    requests: list[str] = []
    contexts = []

    def visit(path: str = "", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(server.url + path)
        if not path:
            page.locator("#examples button").nth(2).wait_for()
        page.problems = problems
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []
    assert requests
    assert [url for url in requests if not url.startswith((server.url, "blob:", "data:"))] == []


def drop(page, target: str, **files: bytes) -> None:
    listed = [[f"{name}.png", base64.b64encode(content).decode()] for name, content in files.items()]
    page.evaluate(DROP, [target, listed])


def ask(server: ServerProcess, files: dict[str, bytes]) -> dict:
    query = {"mask": "runs", "confidence": "png", "probabilities": True}
    return httpx.post(f"{server.url}v1/segment", params=query, files=files, timeout=60).json()


def level_at(answer: dict, x: int, y: int) -> float:
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["confidence"]["data"]))))
    return levels[y, x] / 255


def point_at(page, x: int, y: int, size: tuple[int, int] = (64, 48)) -> None:
    """Move the mouse to the middle of a pixel."""
    box = page.locator("#viewer").bounding_box()
    page.mouse.move(
        box["x"] + (x + 0.5) / size[0] * box["width"], box["y"] + (y + 0.5) / size[1] * box["height"]
    )


def test_drop_two_files_and_look(visit: Callable, server: ServerProcess) -> None:
    page = visit(accept_downloads=True)
    files = files_of(1)
    # The thermal image first: names tell which is which.
    drop(page, "#frame", street_thermal=files["thermal"], street=files["rgb"])
    page.locator(READY).wait_for()
    expected = ask(server, files)
    index = index_of(expected)

    # Where classes meet, a pixel too far would be told as its neighbour.
    y, x = (int(place) for place in np.argwhere(index[:-1] != index[1:])[0])
    for place in (PIXEL, (x, y), (x, y + 1)):
        point_at(page, *place)
        readout = page.locator("#readout").inner_text()
        probability = int(re.search(r"(\d+)(?:\.\d)? %", readout)[1])
        assert NAMES[index[place[1], place[0]]] in readout
        assert f"x {place[0]}, y {place[1]}" in readout
        assert abs(probability - 100 * level_at(expected, *place)) < 1.01

    legend = page.locator("#class-list button")
    shown = [legend.nth(place).inner_text().split("\n") for place in range(len(NAMES))]
    shares = {kind["name"]: kind["share"] for kind in expected["classes"]}
    assert [row[0] for row in shown] == sorted(NAMES, key=lambda name: (-shares[name], NAMES.index(name)))
    for row in shown:
        share = 0.0 if row[1] == "none" else float(row[1].removesuffix(" %")) / 100
        assert abs(share - shares[row[0]]) < 0.006

    with page.expect_download() as download:
        page.get_by_role("link", name="Mask").click()
    assert download.value.suggested_filename == "street_mask.png"
    np.testing.assert_array_equal(np.asarray(Image.open(download.value.path())), index)
    with page.expect_download() as download:
        page.get_by_role("button", name="Overlay").click()
    assert Image.open(download.value.path()).size == (64, 48)


def test_choose_files_opacity_base_and_legend(visit: Callable) -> None:
    page = visit()
    files = files_of(2)
    run = page.get_by_role("button", name="Segment")
    assert run.is_disabled()
    for field, content in files.items():
        chosen = {"name": f"{field}.png", "mimeType": "image/png", "buffer": content}
        page.locator(f"[data-field={field}] input").set_input_files(chosen)
    run.click()
    page.locator(READY).wait_for()
    canvas = page.locator("#classes")
    slider = page.get_by_role("slider", name="Classes")
    slider.fill("25")
    assert canvas.evaluate("canvas => canvas.style.opacity") == "0.25"
    assert page.locator("#opacity-value").inner_text() == "25 %"

    base = page.locator("#base-image")
    before = base.get_attribute("src")
    page.get_by_role("radio", name="Thermal").check()
    api.expect(base).not_to_have_attribute("src", before)
    page.get_by_role("radio", name="Colour").check()
    api.expect(base).to_have_attribute("src", before)

    # A click takes a class off the picture: fewer pixels are painted.
    pixels = "canvas.getContext('2d').getImageData(0, 0, 64, 48).data"
    painted = f"canvas => {pixels}.filter((value, place) => place % 4 == 3 && value).length"
    coloured = page.locator("#class-list button:not(:disabled)").filter(has_not_text="unlabeled").first
    all_of_them = canvas.evaluate(painted)
    coloured.click()
    assert coloured.get_attribute("aria-pressed") == "false"
    page.mouse.move(0, 0)
    coloured.evaluate("button => button.blur()")
    assert canvas.evaluate(painted) < all_of_them
    coloured.click()
    assert coloured.get_attribute("aria-pressed") == "true"


def test_one_file_of_four_channels(visit: Callable, server: ServerProcess) -> None:
    page = visit()
    content = encode(np.dstack(make_pair(3)))
    drop(page, "body", night=content)
    page.locator(READY).wait_for()
    assert page.get_by_role("radio", name="Four channels").is_checked()
    point_at(page, *PIXEL)
    index = index_of(ask(server, {"rgbt": content}))
    assert NAMES[index[PIXEL[1], PIXEL[0]]] in page.locator("#readout").inner_text()


def test_errors_are_shown_in_place_and_go_away(visit: Callable) -> None:
    page = visit()
    files = files_of(4)
    drop(page, "#frame", colour=b"not an image", heat=files["thermal"])
    fault = page.get_by_role("alert")
    api.expect(fault).to_contain_text("is not an image format that this service reads")
    assert page.locator("#viewer").is_hidden()
    drop(page, "[data-field=rgb]", colour=bytes(7_000_000))
    page.get_by_role("button", name="Segment").click()
    api.expect(fault).to_contain_text("this service takes 6000000 in all")
    drop(page, "#frame", a=b"", b=b"", c=b"")
    api.expect(fault).to_contain_text("one pair at a time")
    # The browser notes each answer that is no success; that one is expected here.
    assert [text for text in page.problems if "415" not in text] == []
    page.problems.clear()
    drop(page, "[data-field=rgb]", colour=files["rgb"])
    page.locator(READY).wait_for()
    assert fault.is_hidden()


def test_by_keyboard_alone(visit: Callable) -> None:
    page = visit()

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"no way to {selector} by Tab")

    tab_to("#mode input")
    tab_to("[data-field=rgb] input")
    tab_to("[data-field=thermal] input")
    tab_to("#examples button")
    page.keyboard.press("Enter")
    page.locator(READY).wait_for()
    tab_to("#base input")
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="Thermal").is_checked()
    tab_to("#opacity")
    page.keyboard.press("End")
    assert page.locator("#opacity-value").inner_text() == "100 %"
    tab_to("#download-mask")
    tab_to("#viewer")
    readings = []
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowLeft"):
        page.keyboard.press(key)
        readings.append(page.locator("#readout .where").inner_text())
    assert readings == ["x 330, y 240", "x 330, y 250", "x 329, y 250"]
    page.keyboard.press("Escape")
    assert page.locator("#cross").is_hidden()
    tab_to("#class-list button")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"


def test_on_a_phone(visit: Callable) -> None:
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    page.locator("#examples button").first.tap()
    page.locator(READY).wait_for()
    assert page.evaluate(overflow) == 0
    page.locator("#viewer").tap(position={"x": 100, "y": 60})
    assert "%" in page.locator("#readout").inner_text()
    assert visit("docs", viewport={"width": 360, "height": 740}).evaluate(overflow) == 0


def test_light_and_dark(visit: Callable) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (
        sum(map(int, re.findall(r"\d+", visit(color_scheme=scheme).evaluate(colour))))
        for scheme in ("light", "dark")
    )
    assert dark < 200 < 600 < light


def test_documentation_of_every_route(visit: Callable, server: ServerProcess) -> None:
    page = visit("docs")
    text = page.locator("main").inner_text()
    schema = httpx.get(f"{server.url}openapi.json").json()
    for path, operations in schema["paths"].items():
        assert path in text
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in text
    assert {"rgb", "thermal", "rgbt"} <= set(
        schema["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"][
            "properties"
        ]
    )
    targets = page.evaluate("[...document.querySelectorAll('main a')].map(link => link.getAttribute('href'))")
    assert all(page.locator(f"[id='{target.removeprefix('#')}']").count() == 1 for target in targets)


def test_nothing_of_the_page_points_elsewhere(server: ServerProcess) -> None:
    """No address of another host, and none from the root: a proxy may put the service below a prefix."""
    folder = resources.files("efnet.service").joinpath("page")
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, file.name
        assert not re.search(r"""(?:href|src|fetch\()=?\s*["'`(]/|["'`]/v1""", text), file.name
    response = httpx.get(server.url)
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert json.dumps(dict(response.headers)).count("nosniff") == 1
