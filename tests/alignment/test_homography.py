"""Homographies: fitted to points, kept in files, and applied."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efnet.alignment.homography import (
    Homography,
    apply_matrix,
    corners,
    fit_homography,
    fit_similarity,
    resize_matrix,
    warp_matrix,
)
from efnet.core.errors import InputError

TRUTH = np.array([[1.1, 0.03, 20.0], [-0.02, 1.15, -8.0], [5e-5, -3e-5, 1.0]])
RNG = np.random.default_rng(5)


def points(count: int) -> np.ndarray:
    return np.random.default_rng(count).uniform(0, 300, (count, 2))


def error(matrix: np.ndarray) -> float:
    """Greatest distance from the truth at the corners of a 300x300 image."""
    place = corners((300, 300))
    return float(np.linalg.norm(apply_matrix(matrix, place) - apply_matrix(TRUTH, place), axis=1).max())


@given(
    st.floats(0.3, 3), st.floats(-1, 1), st.floats(-200, 200), st.floats(-3e-4, 3e-4), st.floats(-3e-4, 3e-4)
)
def test_four_exact_points_are_enough(scale, turn, shift, across, down):
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    truth = np.array([[cos, -sin, shift], [sin, cos, -shift / 2], [across, down, 1.0]])
    source = corners((240, 320)) * 0.8 + 10
    fit = fit_homography(source, apply_matrix(truth, source), 1.0)
    np.testing.assert_allclose(
        apply_matrix(fit.matrix, corners((240, 320))), apply_matrix(truth, corners((240, 320))), atol=1e-5
    )


@pytest.mark.parametrize("count", [5, 12, 40])
def test_least_squares_evens_out_noise(count):
    source = points(count)
    target = apply_matrix(TRUTH, source) + RNG.normal(0, 0.5, source.shape)
    fit = fit_homography(source, target, 5.0)
    assert fit.inliers.all()
    # No perturbation of the result may be better: it is a least-squares minimum.
    for _ in range(20):
        other = fit.matrix * (1 + RNG.normal(0, 1e-4, (3, 3)))
        worse = np.linalg.norm(apply_matrix(other, source) - target, axis=1)
        assert (worse**2).sum() >= (fit.residuals**2).sum() * (1 - 1e-9)


@pytest.mark.parametrize(("count", "wrong"), [(6, 1), (10, 3), (60, 25)])
def test_wrong_pairs_are_left_out(count, wrong):
    source = points(count)
    target = apply_matrix(TRUTH, source) + np.random.default_rng(0).normal(0, 0.3, source.shape)
    target[:wrong] += np.random.default_rng(1).uniform(30, 80, (wrong, 2))
    fit = fit_homography(source, target, 3.0)
    assert not fit.inliers[:wrong].any()
    assert fit.inliers[wrong:].all()
    assert fit.residuals[:wrong].min() > 20
    assert error(fit.matrix) < 4 if count < 20 else error(fit.matrix) < 1


def test_four_cannot_outvote_a_fifth():
    """Any four fit exactly: with five of which one is wrong nobody can say which, so it is refused."""
    source = points(5)
    target = apply_matrix(TRUTH, source)
    target[2] += 50
    with pytest.raises(InputError, match=r"do not agree on a homography within 3 pixels \(pair"):
        fit_homography(source, target, 3.0)


@pytest.mark.parametrize(
    "source",
    [
        [[0, 0], [10, 10], [20, 20], [30, 30]],
        [[0, 0], [100, 100], [200, 200], [0, 200]],
        [[5, 5], [5, 5], [5, 5], [5, 5]],
        [[0, 0], [0, 0], [100, 0], [0, 100]],
        [[0, 0], [50, 1], [100, 2], [150, 3], [200, 4], [250, 5]],
    ],
)
def test_degenerate_points_are_refused(source):
    source = np.array(source, dtype=float)
    with pytest.raises(InputError, match="on a line"):
        fit_homography(source, apply_matrix(TRUTH, source), 3.0)


def test_too_few_or_unreal_points_are_refused():
    with pytest.raises(InputError, match="3 point pairs"):
        fit_homography(points(3), points(3), 3.0)
    bad = points(4)
    bad[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        fit_homography(bad, points(4), 3.0)


def test_similarity():
    source = points(9)
    matrix = np.array([[0.9, -0.2, 7], [0.2, 0.9, -3], [0, 0, 1.0]])
    fit = fit_similarity(source, apply_matrix(matrix, source), np.ones(9, dtype=bool))
    np.testing.assert_allclose(fit.matrix, matrix, atol=1e-9)


class TestHomography:
    def test_round_trip(self, tmp_path):
        made = Homography(TRUTH * 3, (240, 320), (480, 640), {"method": "points", "rms": 0.5})
        made.save(tmp_path / "h.json")
        read = Homography.load(tmp_path / "h.json")
        np.testing.assert_array_equal(read.matrix, made.matrix)
        np.testing.assert_allclose(read.matrix, TRUTH)
        assert read.to_dict() == made.to_dict()
        assert json.loads((tmp_path / "h.json").read_text())["about"]["rms"] == 0.5

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not a homography file"),
            ("{}", "not a homography file"),
            ('{"matrix": [[1]], "thermal_size": [4, 4], "rgb_size": [4, 4]}', "3x3 matrix"),
            (
                '{"matrix": [[1,0,0],[0,1,0],[0,0,1]], "thermal_size": [0, 4], "rgb_size": [4, 4]}',
                "size below 1",
            ),
            ('{"matrix": [[-1,0,0],[0,1,0],[0,0,1]], "thermal_size": [4, 4], "rgb_size": [4, 4]}', "mirrors"),
            ('{"matrix": [[1,0,0],[0,1,0],[-1,0,1]], "thermal_size": [4, 4], "rgb_size": [4, 4]}', "folds"),
        ],
    )
    def test_bad_files(self, tmp_path, text, message):
        (tmp_path / "h.json").write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            Homography.load(tmp_path / "h.json")
        assert "h.json" in str(caught.value)

    def test_absent_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.json: cannot be read"):
            Homography.load(tmp_path / "none.json")

    def test_identity_leaves_every_pixel(self):
        image = RNG.random((37, 53), dtype=np.float32)
        same = Homography.stretched((37, 53), (37, 53)).warp(image, (37, 53))
        np.testing.assert_allclose(same, image, atol=1e-5)

    def test_a_ramp_shows_where_each_pixel_comes_from(self):
        """Bilinear sampling of a plane is exact, so values tell coordinates."""
        y, x = np.mgrid[:240, :320].astype(np.float32)
        homography = Homography(TRUTH, (240, 320), (300, 400))
        columns, rows = homography.warp(x, (300, 400)), homography.warp(y, (300, 400))
        for place in ([60, 40], [200, 100], [310, 220]):
            expected = apply_matrix(np.linalg.inv(TRUTH), np.array([place], dtype=float))[0]
            assert columns[place[1], place[0]] == pytest.approx(expected[0], abs=1e-2)
            assert rows[place[1], place[0]] == pytest.approx(expected[1], abs=1e-2)

    def test_outside_the_border_goes_on(self):
        image = RNG.random((20, 30), dtype=np.float32)
        moved = np.array([[1, 0, 10.0], [0, 1, 5.0], [0, 0, 1]])
        warped = Homography(moved, (20, 30), (40, 60)).warp(image, (40, 60))
        np.testing.assert_allclose(warped[5:25, 10:40], image, atol=1e-5)
        np.testing.assert_allclose(warped[:5, 10:40], np.repeat(image[:1], 5, axis=0), atol=1e-5)
        np.testing.assert_allclose(warped[0, 0], image[0, 0], atol=1e-5)
        np.testing.assert_allclose(warped[-1, -1], image[-1, -1], atol=1e-5)

    def test_other_resolutions_of_the_same_cameras(self):
        made = Homography(TRUTH, (240, 320), (480, 640))
        half = made.resized((120, 160), (240, 320))
        # The corner between four pixels is the centre of the pixel that they become.
        np.testing.assert_allclose(
            half.map(np.array([[40.0, 30.0]])), (made.map(np.array([[80.5, 60.5]])) - 0.5) / 2
        )
        with pytest.raises(InputError, match=r"thermal images of 320x240 .* 256x256 is of another shape"):
            made.warp(np.zeros((256, 256), np.float32), (480, 640))

    def test_displacement(self):
        assert Homography.stretched((60, 80), (480, 640)).displacement() == pytest.approx(0, abs=1e-9)
        shift = np.array([[1, 0, 3.0], [0, 1, 4.0], [0, 0, 1]])
        moved = Homography(shift @ resize_matrix((60, 80), (480, 640)), (60, 80), (480, 640))
        assert moved.displacement() == pytest.approx(5)

    def test_shrinking_averages(self):
        """A checkerboard of single pixels becomes grey, not black or white."""
        board = (np.indices((200, 200)).sum(axis=0) % 2).astype(np.float32)
        small = warp_matrix(board, resize_matrix((200, 200), (50, 50)), (50, 50))
        assert np.abs(small[2:-2, 2:-2] - 0.5).max() < 0.1
