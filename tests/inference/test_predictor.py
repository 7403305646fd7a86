"""The predictor: every way of giving a pair, sizes, precision, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from prediction_helpers import CLASSES, make_model, make_pair
from torch.nn import functional as F

from efnet.core.errors import InputError
from efnet.data.augment import resize_sample
from efnet.data.sample import Sample
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import resize
from efnet.models.base import InputSpec


def reference(model, rgb, thermal, size=None):
    """The steps of the contract one by one, on (H, W, 3) uint8 and (H, W) floats in [0, 1]."""
    sample = resize_sample(Sample("x", rgb, thermal, None), size)
    with torch.no_grad():
        logits = model(
            torch.from_numpy(sample.rgb.copy()).permute(2, 0, 1)[None].float() / 255,
            torch.from_numpy(sample.thermal.copy())[None, None],
        )
        logits = F.interpolate(logits, rgb.shape[:2], mode="bilinear", align_corners=False)
    return logits[0].softmax(dim=0).numpy()


class TestResult:
    def test_is_the_models_answer(self, predictor):
        rgb, thermal = make_pair(0)
        prediction = predictor(rgb, thermal, probabilities=True)
        expected = reference(predictor.model, rgb, thermal.astype(np.float32) / 255)
        assert prediction.index.dtype == np.uint8
        assert prediction.probabilities.dtype == np.float32
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)
        np.testing.assert_array_equal(prediction.index, expected.argmax(axis=0))
        np.testing.assert_allclose(prediction.confidence, expected.max(axis=0), atol=1e-5)
        assert len(np.unique(prediction.index)) > 1, "the test network has to tell something apart"

    def test_resizes_to_the_models_size_and_back(self):
        model = make_model()
        model.input = InputSpec(size=(40, 56))
        rgb, thermal = make_pair(1, 75, 101)
        prediction = Predictor(model, device="cpu")(rgb, thermal, probabilities=True)
        expected = reference(model, rgb, thermal.astype(np.float32) / 255, (40, 56))
        assert prediction.index.shape == (75, 101)
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-5)

    def test_resizing_is_that_of_the_data_set(self):
        rgb, thermal = make_pair(2, 61, 83)
        scaled = thermal.astype(np.float32) / 255
        expected = resize_sample(Sample("x", rgb, scaled, None), (32, 100))
        np.testing.assert_array_equal(resize(rgb, (32, 100)), expected.rgb)
        np.testing.assert_array_equal(resize(scaled, (32, 100)), expected.thermal)

    @settings(max_examples=8, deadline=None)
    @given(height=st.integers(32, 70), width=st.integers(32, 70))
    def test_any_size(self, predictor, height, width):
        prediction = predictor(*make_pair(3, height, width))
        assert prediction.index.shape == (height, width)
        assert prediction.index.max() < len(CLASSES)
        assert sum(prediction.shares().values()) == pytest.approx(1)

    def test_probabilities_only_on_request(self, predictor):
        prediction = predictor(*make_pair(0))
        assert prediction.probabilities is None
        with pytest.raises(InputError, match="probabilities=True"):
            _ = prediction.confidence

    def test_shares_count_pixels(self, predictor):
        prediction = predictor(*make_pair(0))
        for value, name in enumerate(CLASSES.names):
            assert prediction.shares()[name] == pytest.approx((prediction.index == value).mean())

    def test_bfloat16_agrees_mostly(self, predictor):
        """Over several pairs: in a small map, one token in another cluster moves many pixels of its pair."""
        fast = Predictor(make_model(), device="cpu", precision="bf16")
        pairs = [make_pair(seed) for seed in range(6)]
        assert np.mean([fast(*pair).index == predictor(*pair).index for pair in pairs]) > 0.8


class TestWaysOfGivingAPair:
    def test_path_pil_and_numpy_agree(self, predictor, tmp_path):
        rgb, thermal = make_pair(4, 45, 67)
        Image.fromarray(rgb).save(tmp_path / "rgb.png")
        Image.fromarray(thermal).save(tmp_path / "thermal.png")
        expected = predictor(rgb, thermal, probabilities=True).probabilities
        for pair in (
            (tmp_path / "rgb.png", tmp_path / "thermal.png"),
            (str(tmp_path / "rgb.png"), str(tmp_path / "thermal.png")),
            (Image.open(tmp_path / "rgb.png"), Image.open(tmp_path / "thermal.png")),
            (rgb, thermal[..., None]),
            (rgb, np.repeat(thermal[..., None], 3, axis=2)),
            (Image.fromarray(rgb), Image.fromarray(thermal).convert("RGB")),
            (rgb.astype(np.float64) / 255, thermal.astype(np.float32) / 255),
            (np.asfortranarray(rgb), thermal[::-1][::-1]),
        ):
            np.testing.assert_array_equal(predictor(*pair, probabilities=True).probabilities, expected)

    def test_16_bit(self, predictor, tmp_path):
        rgb, thermal = make_pair(5, dtype=np.uint16)
        Image.fromarray(thermal).save(tmp_path / "thermal.png")
        Image.fromarray(thermal.astype(np.float32)).save(tmp_path / "thermal.tif")
        expected = predictor(rgb, thermal, probabilities=True).probabilities
        others = (
            tmp_path / "thermal.png",
            tmp_path / "thermal.tif",
            Image.open(tmp_path / "thermal.png"),
            Image.open(tmp_path / "thermal.tif"),
            thermal.astype(np.int32),
            thermal.astype(np.float64),
        )
        for other in others:
            np.testing.assert_allclose(
                predictor(rgb, other, probabilities=True).probabilities, expected, atol=1e-5
            )
        # The stretch matters: the same values read as a dark 8-bit picture give another answer.
        dark = (thermal / 257).astype(np.uint8)
        assert not np.allclose(predictor(rgb, dark, probabilities=True).probabilities, expected, atol=1e-3)

    def test_fixed_range(self):
        model = make_model()
        model.input = InputSpec(thermal_scale=(8000.0, 8000.0 + 37 * 255))
        rgb, raw = make_pair(6, dtype=np.uint16)
        _, plain = make_pair(6)
        ours = Predictor(model, device="cpu")(rgb, raw, probabilities=True)
        expected = reference(model, rgb, plain.astype(np.float32) / 255)
        np.testing.assert_allclose(ours.probabilities, expected, atol=1e-5)

    def test_four_channels(self, predictor, tmp_path):
        rgb, thermal = make_pair(7)
        rgbt = np.dstack([rgb, thermal])
        Image.fromarray(rgbt, "RGBA").save(tmp_path / "rgbt.png")
        expected = predictor(rgb, thermal).index
        for image in (rgbt, Image.fromarray(rgbt, "RGBA"), tmp_path / "rgbt.png"):
            np.testing.assert_array_equal(predictor(image).index, expected)

    def test_turned_photograph(self, predictor, tmp_path):
        rgb, thermal = make_pair(8)
        exif = Image.Exif()
        exif[0x0112] = 6  # stored lying on its side
        Image.fromarray(np.rot90(rgb)).save(tmp_path / "rgb.jpg", exif=exif, quality=95)
        by_path = predictor(tmp_path / "rgb.jpg", thermal)
        by_pil = predictor(Image.open(tmp_path / "rgb.jpg"), thermal)
        assert by_path.index.shape == thermal.shape
        np.testing.assert_array_equal(by_path.index, by_pil.index)

    def test_thermal_of_lower_resolution(self, predictor):
        rgb, _ = make_pair(9, 96, 128)
        _, small = make_pair(9, 48, 64)
        prediction = predictor(rgb, small)
        enlarged = resize(small.astype(np.float32) / 255, (96, 128))
        np.testing.assert_array_equal(prediction.index, predictor(rgb, enlarged).index)

    @pytest.mark.parametrize("modality", ["rgb", "thermal"])
    def test_one_modality_alone(self, modality):
        predictor = Predictor(make_model(modality), device="cpu")
        rgb, thermal = make_pair(10)
        pair = (rgb, None) if modality == "rgb" else (None, thermal)
        expected = predictor(*pair).index
        assert expected.shape == thermal.shape
        np.testing.assert_array_equal(predictor(rgb, thermal).index, expected)
        np.testing.assert_array_equal(predictor(np.dstack([rgb, thermal])).index, expected)


class TestBatch:
    def test_equals_single_calls(self, predictor):
        sizes = [(48, 64), (33, 47), (48, 64), (64, 48), (48, 64)]
        pairs = [make_pair(seed, *size) for seed, size in enumerate(sizes)]
        together = predictor.batch(pairs, probabilities=True, batch_size=4)
        for pair, prediction, size in zip(pairs, together, sizes, strict=True):
            assert prediction.index.shape == size
            alone = predictor(*pair, probabilities=True)
            np.testing.assert_allclose(prediction.probabilities, alone.probabilities, atol=1e-4)

    def test_names_the_faulty_pair(self, predictor):
        good, bad = make_pair(0), (make_pair(1)[0], np.full((48, 64), np.nan, np.float32))
        with pytest.raises(InputError, match=r"pair 2: thermal .* NaN"):
            predictor.batch([good, good, bad])

    def test_empty(self, predictor):
        assert predictor.batch([]) == []
        with pytest.raises(InputError, match="`batch_size` 0"):
            predictor.batch([], batch_size=0)


RGB, THERMAL = make_pair(0)
HOLED = RGB.astype(np.float32) / 255
HOLED[3, 4] = np.inf

BAD_PAIRS = {
    "no thermal": (RGB, None, "fourth channel is thermal"),
    "no rgb": (None, THERMAL, "RGB image is missing"),
    "rgb of a wrong rank": (RGB[..., 0], THERMAL, r"expected \(height, width, 3\)"),
    "a batch": (RGB[None], THERMAL, "predictor.batch"),
    "channels first": (RGB.transpose(2, 0, 1), THERMAL, "transpose"),
    "rgb beyond 1": (RGB.astype(np.float32), THERMAL, r"scale it to \[0, 1\]"),
    "rgb below 0": (RGB.astype(np.float32) / 255 - 0.5, THERMAL, r"scale it to \[0, 1\]"),
    "rgb not finite": (HOLED, THERMAL, "3 values that are NaN or infinite"),
    "rgb of 16 bits": (RGB.astype(np.uint16), THERMAL, "uint16; pass uint8"),
    "rgb of booleans": (RGB > 9, THERMAL, "bool"),
    "rgb in mode F": (Image.fromarray(THERMAL).convert("F"), THERMAL, "mode F"),
    "thermal of a wrong rank": (RGB, THERMAL[0], r"expected \(height, width\)"),
    "thermal of two channels": (RGB, np.dstack([THERMAL] * 2), r"expected \(height, width\)"),
    "thermal in colour": (RGB, RGB, "channels differ"),
    "thermal floats in colour": (RGB, RGB.astype(np.float32), "three different channels"),
    "thermal of booleans": (RGB, THERMAL > 9, "bool"),
    "thermal not finite": (RGB, np.where(THERMAL > 100, np.nan, THERMAL), "NaN or infinite"),
    "other aspect": (RGB, THERMAL[:, :60], "64x48 but thermal 60x48"),
    "too small": (RGB[:31], THERMAL[:31], "at least 32"),
    "empty": (RGB[:0], THERMAL, "empty"),
    "a list": (RGB.tolist(), THERMAL, "is a list; pass a path"),
    "a tensor": (torch.from_numpy(RGB.copy()), THERMAL, "is a Tensor; pass a path"),
    "no such file": ("nowhere/rgb.png", THERMAL, r"nowhere.rgb\.png: no such file"),
    "no such thermal file": (RGB, "nowhere/thermal.png", r"nowhere.thermal\.png: no such file"),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_bad_pairs(predictor, case):
    rgb, thermal, message = BAD_PAIRS[case]
    with pytest.raises(InputError, match=message) as caught:
        predictor(rgb, thermal)
    assert isinstance(caught.value, ValueError)


def test_aspect_within_one_percent_is_taken(predictor):
    rgb, _ = make_pair(0, 120, 160)
    _, thermal = make_pair(0, 60, 80)
    assert predictor(rgb, thermal[:, :]).index.shape == (120, 160)
    assert predictor(rgb, make_pair(0, 120, 161)[1]).index.shape == (120, 160)
    with pytest.raises(InputError, match="more than 1 %"):
        predictor(rgb, make_pair(0, 120, 162)[1])


def test_weights_that_diverged_are_told():
    model = make_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        Predictor(model, device="cpu")(*make_pair(0))


def test_options_are_checked():
    with pytest.raises(InputError, match="precision 'half' is unknown"):
        Predictor(make_model(), precision="half")
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        Predictor(make_model(), device="gpu")


def test_from_pretrained(predictor, checkpoint):
    loaded = Predictor.from_pretrained(checkpoint, device="cpu")
    pair = make_pair(0)
    assert loaded.classes == CLASSES
    np.testing.assert_array_equal(loaded(*pair).index, predictor(*pair).index)
    with pytest.raises(InputError, match="no such folder"):
        Predictor.from_pretrained(checkpoint / "nothing")


class TestPictures:
    def test_saved_and_read_back(self, predictor, tmp_path):
        rgb, thermal = make_pair(11)
        prediction = predictor(rgb, thermal, probabilities=True)
        outputs = ("index", "color", "overlay", "probabilities")
        paths = prediction.save(tmp_path, "a/b.0", outputs, rgb=rgb)
        assert [str(path.relative_to(tmp_path)) for path in paths] == [
            "index/a/b.0.png",
            "color/a/b.0.png",
            "overlay/a/b.0.png",
            "probabilities/a/b.0.npy",
        ]
        with Image.open(paths[0]) as index:
            assert index.mode == "P"
            np.testing.assert_array_equal(np.asarray(index), prediction.index)
            colors = np.asarray(index.convert("RGB"))
        np.testing.assert_array_equal(colors, np.asarray(Image.open(paths[1])))
        np.testing.assert_array_equal(CLASSES.index_of(colors)[0], prediction.index)
        np.testing.assert_allclose(np.load(paths[3]), prediction.probabilities, atol=1e-3)

    def test_overlay_blends(self, predictor):
        rgb, thermal = make_pair(12)
        prediction = predictor(rgb, thermal)
        shown = np.asarray(prediction.overlay(Image.fromarray(rgb), opacity=0.25)).astype(float)
        expected = 0.75 * rgb + 0.25 * CLASSES.colorize(prediction.index)
        expected[prediction.index == 0] = rgb[prediction.index == 0]  # the black class stays untinted
        np.testing.assert_allclose(shown, expected, atol=1)
        np.testing.assert_array_equal(np.asarray(prediction.overlay(rgb, opacity=0)), rgb)

    def test_refusals(self, predictor, tmp_path):
        rgb, thermal = make_pair(13)
        prediction = predictor(rgb, thermal)
        with pytest.raises(InputError, match=r"opacity 1\.5"):
            prediction.overlay(rgb, opacity=1.5)
        with pytest.raises(InputError, match="64x40 but the prediction 64x48"):
            prediction.overlay(rgb[:40])
        with pytest.raises(InputError, match="unknown output mask"):
            prediction.save(tmp_path, "x", ("mask",))
        with pytest.raises(InputError, match="needs the RGB image"):
            prediction.save(tmp_path, "x", ("overlay",))
        with pytest.raises(InputError, match="no probabilities"):
            prediction.save(tmp_path, "x", ("probabilities",))
        assert not list(tmp_path.rglob("*.npy")), "a refused file must not be left half written"

    def test_is_frozen(self, predictor):
        prediction = predictor(*make_pair(0))
        with pytest.raises(AttributeError):
            prediction.index = prediction.index
        assert replace(prediction, index=prediction.index + 1).shares()["unlabeled"] == 0


def test_real_pairs(predictor, samples):
    """MFNet's four channels, PST900's two files, FMB's odd sizes: read, and answered at their own size."""
    small = Predictor(make_model(), device="cpu")
    small.size = (60, 80)
    mfnet = sorted((samples / "mfnet" / "images").glob("*.png"))[0]
    assert small(mfnet).index.shape == (480, 640)
    fmb = samples / "fmb" / "test"
    name = sorted(path.name for path in (fmb / "Visible").glob("*.png"))[0]
    with Image.open(fmb / "Visible" / name) as image:
        expected = image.size[::-1]
    assert predictor(fmb / "Visible" / name, fmb / "Infrared" / name).index.shape == expected
    pst = samples / "pst900" / "test"
    rgb, thermal = sorted((pst / "rgb").iterdir())[0], sorted((pst / "thermal").iterdir())[0]
    assert small(rgb, thermal).index.shape == (720, 1280)
