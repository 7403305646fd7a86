"""Dead cameras: found where they are, and nowhere else; replaced by what training knows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from prediction_helpers import make_model, make_pair, write_pair

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.augment import PAD_RGB, PAD_THERMAL
from efnet.data.images import read_rgb, read_rgbt, read_thermal
from efnet.inference.missing_cameras import blank_rgb, blank_thermal, check_missing, dead_reason
from efnet.inference.predictor import Predictor
from efnet.scenes import render

RNG = np.random.default_rng(0)
SIZE = (120, 160)


def cap(level: float, noise: float) -> np.ndarray:
    """What a covered colour camera gives: its black level and noise."""
    return np.clip(RNG.normal(level, noise, (*SIZE, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((*SIZE, 3), np.uint8), "of one value"),
        (np.full((*SIZE, 3), 255, np.uint8), "of one value"),
        (cap(6, 1), "almost of one value"),
        (cap(12, 6), "noise without a picture"),
        (cap(250, 40).clip(200), "noise without a picture"),
        (np.where(RNG.random(SIZE) < 0.05, 90, 255).astype(np.uint8)[..., None].repeat(3, 2), "saturated"),
    ],
)
def test_dead_colour_images(image, reason):
    assert dead_reason(image, "rgb").startswith(reason)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros(SIZE, np.float32), "of one value"),
        (np.ones(SIZE, np.float32), "of one value"),
        (
            np.full(SIZE, 0.3, np.float32) + RNG.uniform(0, 0.004, SIZE).astype(np.float32),
            "almost of one value",
        ),
        (RNG.uniform(0, 1, SIZE).astype(np.float32), "noise without a picture"),
    ],
)
def test_dead_thermal_images(image, reason):
    assert dead_reason(image, "thermal").startswith(reason)


@pytest.mark.parametrize("condition", ["day", "night"])
def test_generated_scenes_are_alive(condition):
    for seed in range(4):
        scene = render(seed, (120, 160), condition)
        assert dead_reason(scene.rgb, "rgb") is None
        assert dead_reason(scene.thermal, "thermal") is None


def test_not_one_false_alarm_on_real_pairs(samples):
    pairs = [read_rgbt(path) for path in sorted((samples / "mfnet" / "images").glob("*.png"))[::4]]
    for rgb, thermal in (("Visible", "Infrared"), ("rgb", "thermal")):
        for folder in (path.parent for path in samples.glob(f"*/*/{rgb}")):
            files = zip(sorted((folder / rgb).iterdir()), sorted((folder / thermal).iterdir()), strict=True)
            pairs += [(read_rgb(one), read_thermal(other)) for one, other in files]
    assert len(pairs) > 45
    assert not [pair for pair in pairs if dead_reason(pair[0], "rgb") or dead_reason(pair[1], "thermal")]


def test_a_small_image_is_not_called_noise():
    assert dead_reason(RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8), "rgb") is None


def test_grey_is_what_training_drops_to():
    assert (blank_rgb((2, 3)) == PAD_RGB).all()
    assert blank_rgb((2, 3)).shape == (2, 3, 3)
    assert (blank_thermal((2, 3)) == np.float32(PAD_THERMAL)).all()


def test_unknown_policy():
    with pytest.raises(InputError, match="missing 'replace' is unknown; choose warn, error, ignore"):
        check_missing("replace")


class TestPredictor:
    @pytest.fixture
    def warned(self):
        model = make_model()
        model.training_summary = {"dropped": ["rgb", "thermal"]}
        predictor = Predictor(model, device="cpu")
        predictor.missing = "warn"
        return predictor

    def test_a_network_that_was_not_trained_without_a_camera_sees_what_there_is(self, predictor):
        rgb, thermal = make_pair(1)
        unprepared = Predictor(make_model(), device="cpu")
        unprepared.missing = "warn"
        prepared = unprepared.prepare(np.zeros_like(rgb), thermal)
        assert prepared.missing == {"rgb": "of one value"}
        assert not prepared.rgb.any()
        np.testing.assert_array_equal(
            unprepared.run([prepared])[0].index, predictor(np.zeros_like(rgb), thermal).index
        )

    def test_a_dead_image_becomes_grey(self, warned, predictor):
        rgb, thermal = make_pair(1)
        prepared = warned.prepare(np.zeros_like(rgb), thermal)
        assert prepared.missing == {"rgb": "of one value"}
        assert (prepared.rgb == PAD_RGB).all()
        assert not prepared.original.any(), "the overlay shows the image as it is"
        [prediction] = warned.run([prepared])
        np.testing.assert_array_equal(prediction.index, predictor(blank_rgb(thermal.shape), thermal).index)

        prepared = warned.prepare(rgb, np.full((24, 48), 200, np.uint8))
        assert (prepared.thermal == np.float32(PAD_THERMAL)).all(), "whatever its shape"
        assert "thermal" in prepared.missing

    def test_living_images_stay(self, warned, predictor):
        rgb, thermal = make_pair(1)
        assert not warned.prepare(rgb, thermal).missing
        np.testing.assert_array_equal(warned(rgb, thermal).index, predictor(rgb, thermal).index)

    def test_ignored_unless_asked(self, predictor):
        prepared = predictor.prepare(np.zeros((40, 40, 3), np.uint8), make_pair(1, 40, 40)[1])
        assert not prepared.rgb.any()
        assert not prepared.missing

    def test_refused_if_asked(self, warned):
        warned.missing = "error"
        rgb, thermal = make_pair(1)
        with pytest.raises(InputError, match=r"the thermal image is of one value: .*`missing` warn"):
            warned(rgb, np.zeros_like(thermal))

    def test_one_modality_looks_at_its_own(self):
        predictor = Predictor(make_model("rgb"), device="cpu")
        predictor.missing = "error"
        rgb, thermal = make_pair(1)
        assert predictor(rgb, np.zeros_like(thermal)).index.shape == thermal.shape


class TestCommand:
    @pytest.fixture
    def command(self, checkpoint, tmp_path):
        for number in range(3):
            write_pair(tmp_path, f"frame{number}", number)

        def run(*more: str, rgb: str = f"{tmp_path}/rgb", thermal: str = f"{tmp_path}/thermal") -> int:
            images = [f"--rgb={rgb}", f"--thermal={thermal}", f"--out={tmp_path}/out", "--save=index"]
            return main(["predict", f"--checkpoint={checkpoint}", "--device=cpu", *images, *more])

        return run

    def test_told_once_and_counted(self, command, tmp_path, capsys):
        for number in (0, 2):
            Image.new("L", (64, 48), 90).save(tmp_path / "thermal" / f"frame{number}.png")
        assert command() == 0
        captured = capsys.readouterr()
        said = " ".join(captured.err.split())
        assert said.count("the thermal image is of one value") == 1
        assert "frame0.png: the thermal" in said
        assert "--augment.drop_thermal" in said
        assert "2 without a usable thermal image" in captured.out
        lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[1:]
        missing = {record["name"]: record.get("missing") for record in map(json.loads, lines)}
        assert missing == {
            "frame0": {"thermal": "of one value"},
            "frame1": None,
            "frame2": {"thermal": "of one value"},
        }

    def test_error_leaves_the_pair_out(self, command, tmp_path, capsys):
        Image.new("RGB", (64, 48)).save(tmp_path / "rgb" / "frame1.png")
        assert command("--missing=error") == 2
        captured = capsys.readouterr()
        assert "predicted 2 of 3 images" in captured.out
        assert "frame1.png" in captured.err
        assert "the rgb image is of one value" in captured.err

    @pytest.mark.parametrize("camera", ["rgb", "thermal"])
    def test_no_such_camera(self, command, tmp_path, predictor, camera, capsys):
        assert command(**{camera: "none"}) == 0
        assert "usable" not in capsys.readouterr().out, "nobody need be told what they said themselves"
        rgb, thermal = make_pair(1)
        grey = (blank_rgb(thermal.shape), thermal) if camera == "rgb" else (rgb, blank_thermal(thermal.shape))
        index = np.asarray(Image.open(tmp_path / "out" / "index" / "frame1.png"))
        np.testing.assert_array_equal(index, predictor(*grey).index)

    def test_a_folder_left_out_is_still_a_mistake(self, checkpoint, tmp_path, command, capsys):
        words = ["predict", f"--checkpoint={checkpoint}", f"--rgb={tmp_path}/rgb", f"--out={tmp_path}/out"]
        assert main(words) == 2
        assert "needs --thermal too" in capsys.readouterr().err

    def test_unknown_policy(self, command, capsys):
        assert command("--missing=perhaps") == 2
        assert "choose warn, error, ignore" in capsys.readouterr().err
