"""`efnet data view` and `efnet data info`, and the public sets that a description in the package reads."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_helpers import make_pairs, random_label, random_rgb, random_thermal, save
from PIL import Image

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.check import check
from efnet.data.layouts import layout_names, open_split
from efnet.data.layouts.facts import find_facts
from efnet.data.sample import read_sample
from efnet.data.view import look, render, sketch


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth colour and thermal image of 60x80."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 4), dtype=np.uint8)
    large = np.stack([np.asarray(Image.fromarray(small[..., c]).resize((80, 60))) for c in range(4)], axis=2)
    return large[..., :3], large[..., 3]


def make_set(root: Path, splits: dict[str, list[int]]) -> Path:
    """A PST900 of scenes by their numbers; the same scene in two splits differs by noise."""
    for place, (split, seeds) in enumerate(splits.items()):
        for seed in seeds:
            rng, (rgb, heat) = np.random.default_rng((seed, place)), scene(seed)
            noisy = [
                np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
                for image in (rgb, heat)
            ]
            save(root / split / "rgb" / f"f{seed:03d}.png", noisy[0])
            save(root / split / "thermal" / f"f{seed:03d}.png", noisy[1])
            save(root / split / "labels" / f"f{seed:03d}.png", random_label(seed, 5, 60, 80))
    return root


def test_near_duplicates_are_found_across_splits_alone(tmp_path: Path) -> None:
    root = make_set(tmp_path, {"train": [1, 2, 3, 4], "val": [5, 6], "test": [7, 3, 8]})
    view = look("pst900", root, per_split=2)
    assert [(near.one.split, near.one.pair.name, near.other.split) for near in view.near] == [
        ("train", "f003", "test")
    ]
    page = render(view)
    assert re.search(r"train</td><td>f003</td><td>test</td><td>f003", page)
    assert not look("pst900", root, ["train"]).near


def test_the_page_holds_counts_shares_and_pictures(tmp_path: Path) -> None:
    root = make_set(tmp_path, {"train": [1, 2, 3], "test": [4]})
    (root / "train/labels/f002.png").unlink()
    (root / "test/thermal/f004.png").write_bytes(b"damaged")
    make_set(root, {"test": [5]})
    view = look("pst900", root, ["trainval", "test"], per_split=3)
    assert {split: len(seen) for split, seen in view.splits.items()} == {"trainval": 2, "test": 1}
    assert len(view.faults) == 2
    page = render(view)
    assert "f004.png" in page
    labels = np.concatenate([random_label(seed, 5, 60, 80).ravel() for seed in (1, 3)])
    for value, name in enumerate(view.classes.names):
        share = 100 * (labels == value).mean()
        assert f'{name}</th><td class="number">{share:.3f}</td><td class="number">2</td>' in page
    assert page.count("data:image/jpeg") == 3 * 3  # f002 and f004 cannot be read
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    assert "<script" not in page


def test_a_sketch_does_not_depend_on_light() -> None:
    grey = scene(1)[1].astype(np.float32)
    assert float(sketch(grey) @ sketch(grey * np.float32(0.4) + 20)) == pytest.approx(1, abs=1e-5)
    assert not sketch(np.full((60, 80), 7, np.float32)).any()


def test_view_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = make_set(tmp_path / "set", {"train": [1, 2, 3], "test": [3]}), tmp_path / "page.html"
    words = ["data", "view", "--dataset", "pst900", "--root", str(root), "--out", str(out)]
    assert main(words) == 0
    assert "1 near-duplicates" in capsys.readouterr().out
    assert main(words) == 2
    assert main([*words, "--overwrite", "--near", "2"]) == 2
    assert "--near" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--split", "test"]) == 0
    assert main([*words[:-1], str(tmp_path / "b.html"), "--split", "nought"]) == 2
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "train")
    assert main([*words, "--overwrite"]) == 2


def test_the_page_in_a_browser(tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("there is no Chromium")
    out = tmp_path / "page.html"
    root = make_set(tmp_path / "set", {"train": [1, 2, 3], "test": [3]})
    assert main(["data", "view", "--dataset", "pst900", "--root", str(root), "--out", str(out)]) == 0
    problems: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (1280, 360):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.on("console", lambda message: problems.append(message.text))
            page.on(
                "request",
                lambda request: problems.append(request.url) if "file:" not in request.url else None,
            )
            page.goto(out.as_uri())
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
            page.wait_for_function(
                "[...document.images].every((image) => image.complete && image.naturalWidth)"
            )
            assert page.locator(".pair img").count() == 3 * 4
            assert page.locator("table.near tbody tr").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert not [text for text in problems if not text.startswith("data:")]


@pytest.mark.parametrize("name", ["mfnet", "pst900", "fmb", "msrs", "cart", "sus", "semanticrt", "kaist"])
def test_info_as_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", name]) == 0
    text = capsys.readouterr().out
    facts = find_facts(name)
    for entry in (facts.home, facts.licence, facts.size, *facts.uncertain, "layout", "checksums", "classes"):
        assert entry in text
    assert name in layout_names()
    assert main(["data", "info", "imagenet"]) == 2
    assert "there are mfnet, pst900" in capsys.readouterr().err


def test_check_compares_the_number_of_pairs_with_the_official_one(tmp_path: Path) -> None:
    make_pairs(tmp_path / "test", ["a"], ("Visible", "Infrared", "Label"))
    assert any(
        "test: 1 pairs, and the official split has 280" in line for line in check("fmb", tmp_path).notes
    )


PUBLIC = {
    "cart": ("labeled_rgbt_pairs/color/eo-1.png", "labeled_rgbt_pairs/thermal16/thermal-1.png",
             "labeled_rgbt_pairs/annotations/eo-1.png", {}, "trainval", "1", 12),
    "sus": ("seperated_images/1_rgb.jpg", "seperated_images/1_th.jpg", "labels/1.png", {"train.txt": "1"},
            "trainval", "1", 6),
    "semanticrt": ("rgb/1.jpg", "thermal/1.jpg", "labels/1.png", {"test.txt": "1"}, "test", "1", 13),
    "kaist": ("pseudo_KP/val_night/s_I1_visible.png", "pseudo_KP/val_night/s_I1_lwir.png",
              "labels/val_night/s_I1.png", {"filenames_KP/val_night_rgb.txt": "s_I1_visible.png",
              "filenames_KP/val_day_rgb.txt": "s_I1_visible.png"}, "test", "val_night/s_I1", 19),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_that_a_description_reads(tmp_path: Path, name: str) -> None:
    rgb, thermal, label, lists, split, expected, classes = PUBLIC[name]
    save(tmp_path / rgb, random_rgb(1))
    save(tmp_path / thermal, random_thermal(1))
    save(tmp_path / label, random_label(1, classes))
    if name == "kaist":  # further pictures lie beside the images
        save(tmp_path / "pseudo_KP/val_night/s_I1_pseudo.png", random_thermal(1))
    for path, text in lists.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")
    pairset = open_split(name, tmp_path, split)
    assert (pairset.dataset, [pair.name for pair in pairset.pairs]) == (name, [expected])
    assert len(pairset.classes) == classes
    sample = read_sample(pairset.pairs[0], pairset.classes)
    assert sample.label is not None
    assert (sample.label == random_label(1, classes)).all()
    with pytest.raises(InputError, match="no such folder"):
        open_split(name, tmp_path / "elsewhere", split)
