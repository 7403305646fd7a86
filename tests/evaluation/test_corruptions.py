"""The corruptions, each against what it is said to do."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from efnet.evaluation.corruptions import faults
from efnet.evaluation.corruptions.fields import (
    clouds,
    convolve,
    disk,
    from_light,
    gaussian,
    line,
    pixels,
    to_light,
)
from efnet.scenes import render


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scene():
    return render(3, (120, 160), "day")


@pytest.fixture(scope="module")
def colour(scene):
    return scene.rgb.astype(np.float32) / np.float32(255)


def flat(value, shape=(200, 200, 3)):
    return np.full(shape, value, dtype=np.float32)


def linear(value):
    """One stored value as light, by the letter of the sRGB standard."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def test_light_and_back():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(to_light(values), [linear(float(value)) for value in values], atol=1e-6)
    np.testing.assert_allclose(from_light(to_light(values)), values, atol=1e-6)
    assert from_light(np.float32([-1, 3])).tolist() == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("shape", [(9, 14), (31, 20, 3), (1, 1), (5, 5, 3)])
@pytest.mark.parametrize(
    "kernel", [disk(2.3), line(5.5, 0.4), gaussian(0.8)], ids=["disk", "line", "gaussian"]
)
def test_convolution_is_a_sum_over_the_kernel(shape, kernel):
    image = rng().random(shape).astype(np.float32)
    rows, columns = (side // 2 for side in kernel.shape)
    expected = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            for (di, dj), weight in np.ndenumerate(kernel):
                y = min(max(i + rows - di, 0), shape[0] - 1)
                x = min(max(j + columns - dj, 0), shape[1] - 1)
                expected[i, j] += weight * image[y, x]
    np.testing.assert_allclose(convolve(image, kernel), expected, atol=1e-5)


def test_kernels_have_the_shape_of_their_names():
    grid = np.arange(-20, 21)
    for radius in (0.01, 0.5, 3.0, 7.4):
        kernel = disk(radius)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.max() == pytest.approx(1 / max(math.pi * radius**2, 1), rel=0.3)
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)
    for length, angle in ((0.2, 0.1), (9.0, 0.0), (21.5, 0.7), (12.0, -0.7)):
        kernel = line(length, angle)
        reach = kernel.shape[0] // 2
        y, x = (np.arange(-reach, reach + 1)[:, None], np.arange(-reach, reach + 1)[None, :])
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        # A uniform line has variance L^2 / 12 along its direction; bilinear drawing adds at most 1/4 pixel^2.
        along = (kernel * (x * math.cos(angle) + y * math.sin(angle)) ** 2).sum()
        across = (kernel * (y * math.cos(angle) - x * math.sin(angle)) ** 2).sum()
        assert along == pytest.approx(length**2 / 12, rel=0.01, abs=0.3)
        assert across < 0.3
    kernel = gaussian(2.5)
    centred = kernel.sum(axis=0)
    assert (centred * grid[20 - len(centred) // 2 : 21 + len(centred) // 2] ** 2).sum() == pytest.approx(
        2.5**2, rel=0.01
    )


def test_lengths_and_fields_scale_with_the_image():
    assert pixels(10, flat(0, (480, 640))) == 10
    assert pixels(10, flat(0, (1280, 960, 3))) == 20
    small, large = clouds((60, 80), rng(5)), clouds((240, 320), rng(5))
    shrunk = np.asarray(Image.fromarray(large).resize((80, 60), Image.Resampling.BOX))
    assert np.abs(small - shrunk).mean() < 0.03
    assert (small.min(), small.max()) == (0, 1)
    assert np.abs(small - clouds((60, 80), rng(6))).mean() > 0.05


def test_gaussian_noise_has_its_deviation():
    noise = faults.gaussian_noise(flat(0.5), 0.1, rng()) - 0.5
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.002
    assert faults.thermal_noise(flat(0.5, (300, 300)), 0.07, rng()).std() == pytest.approx(0.07, rel=0.02)


@pytest.mark.parametrize("value", [0.1, 0.8])
def test_shot_noise_has_the_variance_of_counts(value):
    noisy = faults.shot_noise(flat(value), 12, rng())
    assert noisy.mean() == pytest.approx(value, rel=0.01)
    assert noisy.var() == pytest.approx(value / 12, rel=0.03)
    np.testing.assert_allclose(noisy * 12, np.rint(noisy * 12), atol=1e-4)


def test_blurs_keep_the_light_of_a_lamp():
    dark = flat(0, (120, 160, 3))
    dark[60, 80] = 1
    for blurred in (faults.defocus_blur(dark, 12, rng()), faults.motion_blur(dark, 20, rng())):
        assert to_light(blurred).sum() == pytest.approx(3, rel=0.02)
        assert blurred.max() < 0.8
    constant = flat(0.4, (33, 47, 3))
    np.testing.assert_allclose(faults.defocus_blur(constant, 100, rng()), constant, atol=1e-5)


def test_motion_is_at_most_45_degrees_from_the_horizontal():
    dark = flat(0, (121, 161, 3))
    dark[60, 80] = 1
    for seed in range(8):
        rows, columns = np.nonzero(faults.motion_blur(dark, 80, rng(seed))[..., 0] > 0.02)
        assert np.ptp(columns) >= np.ptp(rows) - 2
        assert math.hypot(np.ptp(columns), np.ptp(rows)) == pytest.approx(20, abs=3)  # 80 of 480 is 20 of 121


@pytest.mark.parametrize("stops", [1, 3])
def test_darkness_halves_the_light_and_keeps_the_noise(stops):
    light = to_light(faults.darkness(flat(0.9), stops, rng()))
    expected = linear(0.9) / 2**stops
    assert light.mean() == pytest.approx(expected, rel=0.01)
    electrons = faults.FULL_WELL * expected
    assert light.std() * faults.FULL_WELL == pytest.approx(
        math.sqrt(electrons + faults.READ_NOISE**2), rel=0.03
    )


def test_overexposure_doubles_the_light(colour):
    spoiled = faults.overexposure(colour, 2, rng())
    np.testing.assert_allclose(to_light(spoiled), np.minimum(4 * to_light(colour), 1), atol=1e-4)


def test_glare_adds_light_around_a_lamp_in_the_upper_half():
    added = to_light(faults.glare(flat(0, (240, 320, 3)), 0.5, rng(1)))[..., 0]
    y, x = np.unravel_index(added.argmax(), added.shape)
    assert y < 121
    assert added.max() == pytest.approx(0.5, rel=0.01)
    radius = round(pixels(faults.GLARE_RADIUS, added))
    assert added[y + radius, x] == pytest.approx(0.25, abs=0.02)
    far = (added[y + 60, x], added[y + 120, x])
    assert far[0] / far[1] == pytest.approx((1 + 16) / (1 + 4), rel=0.06)


def test_fog_mixes_scene_and_airlight(colour):
    light = to_light(colour)
    airlight = np.percentile(light @ np.array([0.2126, 0.7152, 0.0722]), 95)
    foggy = to_light(faults.fog(colour, 0.7, rng()))
    distant = np.abs(light - airlight) > 0.05
    passed = ((foggy - airlight) / np.where(distant, light - airlight, 1))[distant]
    assert passed.min() == pytest.approx(math.exp(-0.7 * 1.4), abs=0.03)
    assert passed.max() == pytest.approx(math.exp(-0.7 * 0.6), abs=0.03)
    night = flat(0.05)
    np.testing.assert_allclose(faults.fog(night, 3, rng()), night, atol=1e-4)  # nothing that could scatter


def test_jpeg_is_pillow_s(colour, scene):
    stream = io.BytesIO()
    Image.fromarray(scene.rgb).save(stream, "JPEG", quality=10)
    expected = np.asarray(Image.open(stream)).astype(np.float32) / 255
    np.testing.assert_allclose(faults.jpeg(colour, 10, rng()), expected, atol=1e-6)


def test_stripes_are_columns_and_half_as_strong_rows():
    error = faults.thermal_stripes(flat(0.5, (400, 500)), 0.1, rng()) - 0.5
    columns, rows = error.mean(axis=0), error.mean(axis=1)
    assert columns.std() == pytest.approx(0.1, rel=0.1)
    assert rows.std() == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(error, columns + rows[:, None] - error.mean(), atol=1e-5)


def test_drift_is_smooth_of_one_sign_and_bounded():
    signs = set()
    for seed in range(8):
        error = faults.thermal_drift(flat(0.5, (60, 81)), 0.2, rng(seed)) - 0.5
        signs.add(np.sign(error).mean())
        size = np.abs(error)
        assert size.min() >= 0.1 - 1e-6
        assert 0.17 < size.max() <= 0.2 + 1e-6
        assert np.abs(np.diff(size, axis=0)).max() < 0.01
        assert np.abs(np.diff(size, axis=1)).max() < 0.01
    assert signs == {-1, 1}


@pytest.mark.parametrize(("shape", "share", "counts"), [((100, 200), 0.02, (2, 4)), ((7, 5), 0.01, (1, 1))])
def test_dead_lines_are_whole_and_at_an_end_of_the_range(shape, share, counts):
    dead = faults.dead_lines(flat(0.5, shape), share, rng(2)) != 0.5
    rows, columns = dead.all(axis=1), dead.all(axis=0)
    assert (rows.sum(), columns.sum()) == counts
    np.testing.assert_array_equal(dead, rows[:, None] | columns[None, :])


def test_what_is_dead_stays_dead():
    image = flat(0.5, (150, 170))
    for spoil in (faults.dead_lines, faults.dead_pixels):
        before = spoil(image, 0.01, rng(4)) != 0.5
        after = spoil(image, 0.05, rng(4))
        assert set(np.unique(after)) == {0.0, 0.5, 1.0}
        assert (after != 0.5)[before].all()
        assert (after != 0.5).sum() > before.sum() > 0
    share = (faults.dead_pixels(image, 0.05, rng()) != 0.5).mean()
    assert share == pytest.approx(0.05, rel=0.1)


def test_contrast_steps_and_crossover_by_their_formulas(scene):
    image = scene.thermal
    mean, median = image.mean(), np.median(image)
    narrow = faults.thermal_contrast(image, 0.25, rng())
    np.testing.assert_allclose(narrow, mean + 0.25 * (image - mean), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(narrow * 255, np.rint(narrow * 255), atol=1e-4)
    bytes_ = np.rint(image * 255).astype(int)
    for bits in (6, 4, 2):
        cut = np.rint(faults.thermal_steps(image, bits, rng()) * 255).astype(int)
        np.testing.assert_array_equal(cut, bytes_ // 2 ** (8 - bits) * 2 ** (8 - bits))
    np.testing.assert_allclose(faults.thermal_crossover(image, 0, rng()), median, atol=1e-6)
    negative = faults.thermal_crossover(image, -1, rng())
    np.testing.assert_allclose(negative + image, 2 * median, atol=1e-5)


def slope(x, y):
    """A plane of values: bilinear interpolation is exact on it."""
    return (0.3 + 0.002 * x + 0.001 * y).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(120, 160), (101, 77)])
def test_shift_and_rotation_move_thermal_as_they_say(seed, size):
    y, x = (axis.astype(np.float64) for axis in np.mgrid[: size[0], : size[1]])
    inside = (slice(25, -25), slice(25, -25))
    angle = rng(seed).uniform(0, 2 * math.pi)
    length = 32 * min(size) / 480
    expected = slope(x - length * math.cos(angle), y - length * math.sin(angle))
    moved = faults.shift(slope(x, y), 32, rng(seed))
    np.testing.assert_allclose(moved[inside], expected[inside], atol=1e-5)

    turn = math.radians(7) * rng(seed).choice((-1.0, 1.0))
    cx, cy = (size[1] - 1) / 2, (size[0] - 1) / 2
    back_x = cx + math.cos(turn) * (x - cx) + math.sin(turn) * (y - cy)
    back_y = cy - math.sin(turn) * (x - cx) + math.cos(turn) * (y - cy)
    turned = faults.rotation(slope(x, y), 7, rng(seed))
    np.testing.assert_allclose(turned[inside], slope(back_x, back_y)[inside], atol=1e-5)


def test_thermal_blur_is_gaussian():
    point = flat(0, (480, 480))
    point[240, 240] = 1
    blurred = faults.thermal_blur(point, 4, rng())
    y, x = np.mgrid[:480, :480] - 240
    expected = np.exp(-(x**2 + y**2) / 32) / (2 * math.pi * 16)
    np.testing.assert_allclose(blurred, expected, atol=1e-5)
