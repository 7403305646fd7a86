"""Alignment from edges: known warps of generated scenes come back, chance is refused, real pairs fit."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from efnet.alignment.edges import Shift, estimate_shift, misalignment
from efnet.alignment.estimate import estimate_homography
from efnet.alignment.homography import Homography, apply_matrix, resize_matrix, warp_matrix
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.check import Misalignment, check, estimate_misalignment
from efnet.data.images import read_rgbt
from efnet.data.layouts import find_layout
from efnet.scenes import render

SIZE, THERMAL_SIZE = (240, 320), (120, 160)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@functools.cache
def scene(seed: int, condition: str = "day"):
    sample = render(seed, SIZE, condition)
    return sample.rgb, sample.thermal


def view(scale: float, turn: float, shift: tuple[float, float], bend: tuple[float, float]) -> np.ndarray:
    """Thermal pixels of `THERMAL_SIZE` to colour pixels, about the image's centre."""
    centre = np.array([[1, 0, SIZE[1] / 2], [0, 1, SIZE[0] / 2], [0, 0, 1]])
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    move = np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]], [*bend, 1]])
    return centre @ move @ np.linalg.inv(centre) @ resize_matrix(THERMAL_SIZE, SIZE)


def seen(thermal: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """What the thermal camera of this view sees of a scene given in the colour view."""
    return warp_matrix(thermal, np.linalg.inv(matrix), THERMAL_SIZE)


def errors(found: Homography, matrix: np.ndarray) -> np.ndarray:
    """Distances in colour pixels, over the thermal image as far as it lies in the colour image."""
    grid = np.stack(np.meshgrid(np.linspace(0, 159, 9), np.linspace(0, 119, 9)), axis=-1).reshape(-1, 2)
    truth = apply_matrix(matrix, grid)
    inside = ((truth >= 0) & (truth <= (SIZE[1] - 1, SIZE[0] - 1))).all(axis=1)
    return np.linalg.norm(found.map(grid) - truth, axis=1)[inside]


VIEWS = {
    "aligned": view(1.0, 0.0, (0, 0), (0, 0)),
    "small": view(0.85, 0.04, (12, -8), (1e-4, -1e-4)),
    "large": view(1.2, -0.05, (-20, 10), (-2e-4, 1e-4)),
}


class TestHomography:
    @pytest.mark.parametrize("name", VIEWS)
    def test_a_known_warp_comes_back_from_one_pair(self, name):
        rgb, thermal = scene(0)
        found = estimate_homography([(rgb, seen(thermal, VIEWS[name]))])
        off = errors(found, VIEWS[name])
        assert off.mean() < 0.6
        assert off.max() < 2
        assert found.about["model"] == "homography"
        assert (found.thermal_size, found.rgb_size) == (THERMAL_SIZE, SIZE)
        assert len(found.about["residuals"]) == found.about["parts"]

    def test_several_pairs_and_night(self):
        pairs = [scene(1), scene(2, "night")]
        told = []
        found = estimate_homography(
            [(rgb, seen(thermal, VIEWS["small"])) for rgb, thermal in pairs],
            progress=lambda done, total: told.append((done, total)),
        )
        assert errors(found, VIEWS["small"]).mean() < 1
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]

    @pytest.mark.parametrize("seed", range(3))
    def test_images_of_different_scenes_are_refused(self, seed):
        with pytest.raises(InputError, match="no homography can be estimated with confidence"):
            estimate_homography([(scene(seed)[0], scene(seed + 3)[1])])

    def test_images_without_edges_are_refused(self):
        flat = np.full((*SIZE, 3), 90, np.uint8), np.full(THERMAL_SIZE, 0.4, np.float32)
        with pytest.raises(InputError, match="with confidence"):
            estimate_homography([flat])

    def test_sizes_must_be_those_of_one_camera_head(self):
        rgb, thermal = scene(0)
        with pytest.raises(InputError, match="differ in size"):
            estimate_homography([(rgb, thermal), (rgb, thermal[:100])])
        with pytest.raises(InputError, match="no pair"):
            estimate_homography([])


class TestShift:
    @pytest.mark.parametrize("shift", [(0, 0), (7, -5), (-15, 11), (2, 20)])
    def test_known_shifts_come_back(self, shift):
        rgb, thermal = scene(1)
        x, y = shift
        moved = np.roll(thermal, (-y, -x), axis=(0, 1))  # it has to move back right by x, down by y
        found = estimate_shift(rgb, moved)
        assert found.confident
        assert (found.x, found.y) == pytest.approx(shift, abs=0.6)

    def test_pixels_are_those_of_the_colour_image(self):
        sample = render(1, (480, 640), "day")
        found = estimate_shift(sample.rgb, np.roll(sample.thermal, -12, axis=1)[::2, ::2])
        assert (found.x, found.y) == pytest.approx((12, 0), abs=1.5)

    def test_different_scenes_are_not_confident(self):
        assert not any(estimate_shift(scene(k)[0], scene(k + 3)[1]).confident for k in range(3))

    def test_real_pairs_are_clear_and_strangers_are_not(self, samples):
        pairs = [read_rgbt(path) for path in sorted((samples / "mfnet" / "images").glob("*.png"))[::8]]
        found = [estimate_shift(rgb, thermal) for rgb, thermal in pairs]
        strangers = [estimate_shift(pairs[k][0], pairs[k - 7][1]) for k in range(len(pairs))]
        assert sum(shift.confident for shift in found) >= 18
        assert max(math.hypot(shift.x, shift.y) for shift in found if shift.confident) < 9
        assert not any(shift.confident for shift in strangers)

    def test_the_median_needs_three(self):
        sure, unsure = Shift(3, 4, 9), Shift(50, 50, 2)
        assert misalignment([sure, sure, unsure]) is None
        middle = misalignment([sure, Shift(5, 0, 8), Shift(40, 2, 7), unsure])
        assert (middle.x, middle.y) == (5, 2)

    def test_what_is_warned_of(self):
        assert Misalignment(5, 5, 10, 12, 800).warning() is None
        assert "about 15 pixels off" in Misalignment(-9, 12, 10, 12, 800).warning()


class TestDataSet:
    @staticmethod
    def folders(root, shift: int):
        for seed in range(4):
            rgb, thermal = scene(seed)
            pixels = np.rint(np.roll(thermal, shift, axis=1) * 255).astype(np.uint8)
            for folder, array in (("rgb", rgb), ("thermal", pixels)):
                save(root / "train" / folder / f"{seed}.png", array)
            save(root / "train" / "labels" / f"{seed}.png", np.zeros(SIZE, np.uint8))
        return root

    def test_a_shifted_set_is_warned_of(self, tmp_path, capsys):
        root = self.folders(tmp_path, 12)
        assert main(["data", "check", "--dataset=pst900", f"--root={root}", f"--json={tmp_path}/r.json"]) in (
            0,
            1,
        )
        out = " ".join(capsys.readouterr().out.split())
        assert "warning: thermal lies about 12 pixels off" in out
        off = json.loads((tmp_path / "r.json").read_text())["misalignment"]
        assert (off["x"], off["y"], off["pairs"]) == (pytest.approx(-12, abs=1), pytest.approx(0, abs=1), 4)

    def test_an_aligned_set_is_not(self, tmp_path):
        report = check("pst900", self.folders(tmp_path, 0))
        assert abs(report.misalignment.x) < 1
        assert not any("pixels off" in warning for warning in report.warnings)

    @pytest.mark.parametrize("dataset", ["mfnet", "fmb", "pst900"])
    def test_no_wolf_on_real_pairs(self, samples, dataset):
        layout, root = find_layout(dataset), samples / dataset
        off = estimate_misalignment([layout.open(root, split) for split in layout.splits(root)])
        if dataset == "pst900":
            assert off is None, "one pair tells nothing of a data set"
        else:
            assert off.warning() is None
            assert off.pairs > off.looked_at / 2, "most real pairs are clear enough"
