"""The Python blocks of the pages run unchanged, in a folder with the files they name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import efnet
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.scenes import render

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {"serve.md": "tests/service", "deploy.md": "tests/export"}
"""Pages whose blocks need a server or exported files, and the tests that run them."""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


PAGES = [
    page
    for page in sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
    if blocks(page) and page.name not in ELSEWHERE
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    efnet.create_model("efnet_tiny", classes=MFNET_CLASSES).save_pretrained(folder / "runs" / "x")
    scene = render(0, (96, 128))
    thermal = Image.fromarray(np.uint8(255 * scene.thermal))
    for rgb_name, thermal_name in (("rgb", "thermal"), ("street", "street_th")):
        Image.fromarray(scene.rgb).save(folder / f"{rgb_name}.png")
        thermal.save(folder / f"{thermal_name}.png")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EFNET_ALLOCATOR", "system")  # do not change the memory settings of later tests
    rgb, thermal = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
    names = {"rgb": rgb, "thermal": thermal, "model": efnet.create_model("efnet_tiny", num_classes=5)}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def test_pages_are_covered() -> None:
    assert {"README.md", "get-started.md", "explain.md"} <= {page.name for page in PAGES}
    for page, tests in ELSEWHERE.items():
        if (ROOT / "docs" / page).exists():
            assert any(page in path.read_text(encoding="utf-8") for path in (ROOT / tests).glob("*.py"))
