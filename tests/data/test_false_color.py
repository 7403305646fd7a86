"""Thermal images in false colours: every map there and back, with JPEG and logos, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from data_helpers import save
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import efnet
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data import false_color
from efnet.data.false_color import AUTO, PREFIX, decode_colors, palette_scale
from efnet.data.images import places, read_raw_thermal, read_thermal
from efnet.data.layouts import open_split
from efnet.scenes import write_dataset

VARIANTS = [(name, each) for name, variants in false_color._maps().items() for each in variants]
MAPS = {each.name: each for _, each in VARIANTS}
IDS = list(MAPS)


def scene(
    seed: int = 0, size: tuple[int, int] = (96, 128), low: int = 0, high: int = 255
) -> NDArray[np.uint8]:
    """Smooth heat with a warm and a cold object, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 200, (5, 6), dtype=np.uint8))
    heat = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)).astype(float)
    heat[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 3] = 250
    heat[size[0] // 2 : 3 * size[0] // 4, size[1] // 2 : size[1] // 2 + 8] = 5
    return np.rint(low + (high - low) * heat / 255).astype(np.uint8)


def colored(heat: NDArray[np.uint8], colors: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(colors)[heat], dtype=np.uint8)


def through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)  # chroma at half the resolution
    return np.asarray(Image.open(buffer))


def error(found: NDArray[np.uint8], heat: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.abs(found.astype(np.int64) - heat)


@pytest.mark.parametrize(("name", "map_"), VARIANTS, ids=IDS)
def test_there_and_back(name: str, map_: false_color.ColorMap) -> None:
    """Exactly, up to neighbours whose colours are the same or nearly; by the name and by `auto`."""
    heat = scene()
    for palette in (name, AUTO):
        found = decode_colors(colored(heat, map_.colors), PREFIX + palette, "a.png")
        assert found.map == map_.name
        assert error(found.values, heat).max() <= 4
        assert error(found.values, heat).mean() < 0.05
        assert found.far == 0
        assert found.distance < 1


@pytest.mark.parametrize(("name", "map_"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("quality", [95, 75, 50])
def test_through_jpeg(name: str, map_: false_color.ColorMap, quality: int) -> None:
    """As good as a grey JPEG nearly: most pixels within a few levels."""
    heat = scene(1)
    image = through_jpeg(colored(heat, map_.colors), quality)
    found = decode_colors(image, PREFIX + AUTO, "a.jpg")
    assert found.map == map_.name
    assert np.percentile(error(found.values, heat), 90) <= 8
    assert decode_colors(image, PREFIX + name, "a.jpg").map == map_.name


@settings(max_examples=25, deadline=None)
@given(place=st.integers(0, 254), step=st.integers(4, 60), which=st.sampled_from(range(len(VARIANTS))))
def test_warmer_is_never_colder(place: int, step: int, which: int) -> None:
    """Two places a little apart keep their order, whichever part of a map they lie in."""
    name, map_ = VARIANTS[which]
    other = min(255, place + step)
    pair = np.array([[place, other]], dtype=np.uint8)
    cold, warm = decode_colors(colored(pair, map_.colors), PREFIX + name, "a.png").values[0].astype(int)
    assert cold <= warm


def test_logos_are_filled_from_beside() -> None:
    heat = scene(2)
    image = Image.fromarray(colored(heat, MAPS["inferno"].colors))
    ImageDraw.Draw(image).rectangle((4, 4, 40, 16), fill=(0, 90, 255))
    ImageDraw.Draw(image).text((60, 80), "24.3 C", fill=(0, 255, 0))
    found = decode_colors(np.asarray(image), PREFIX + AUTO, "a.png")
    assert found.map == "inferno"
    assert 0.03 < found.far < 0.1
    inside = found.values[5:16, 5:40]
    assert inside.min() >= heat[:30, :60].min()
    assert inside.max() <= heat[:30, :60].max()
    far = error(found.values, heat) > 4
    assert far.mean() < found.far + 0.01


def test_filling_by_hand() -> None:
    values = np.array([[10.0, 0, 30, 30], [10, 0, 30, 30]])
    known = np.array([[True, False, True, True], [True, False, True, True]])
    assert false_color._filled(values, known).tolist() == [[10, 10, 30, 30], [10, 10, 30, 30]]
    assert false_color._filled(values, np.zeros_like(known)).tolist() == values.tolist()


def test_photographs_are_of_no_map() -> None:
    rng = np.random.default_rng(0)
    photo = np.stack([scene(seed) for seed in (3, 4, 5)], axis=-1)
    for image in (photo, rng.integers(0, 256, (40, 50, 3), dtype=np.uint8), through_jpeg(photo // 6, 90)):
        with pytest.raises(InputError, match=r"a\.png: its colours are not those of any map.*colour bar"):
            decode_colors(image, PREFIX + AUTO, "a.png")


def test_real_colour_images_are_of_no_map(samples: Path) -> None:
    """Nor grey, by night: the colour image in the thermal one's place is always refused."""
    for path in sorted((samples / "mfnet" / "images").glob("*.png"))[::16]:
        rgb = np.asarray(Image.open(path))[..., :3]
        with pytest.raises(InputError, match="not those of any map"):
            places(np.ascontiguousarray(rgb), PREFIX + AUTO, path.name)


def test_maps_that_share_colours_must_be_named() -> None:
    jet = MAPS["jet"]
    heat = scene(low=45, high=80)  # dark to light blue, as in the spectrum
    image = colored(heat, jet.colors)
    with pytest.raises(InputError, match="fit the maps jet and spectrum, which differ; name the one"):
        decode_colors(image, PREFIX + AUTO, "a.png")
    assert error(decode_colors(image, PREFIX + "rainbow", "a.png").values, heat).max() <= 4


def test_another_map_than_the_named_one() -> None:
    image = colored(scene(), MAPS["jet"].colors)
    with pytest.raises(InputError, match=r"a\.png: .*not those of the map inferno.*levels away"):
        decode_colors(image, PREFIX + "inferno", "a.png")


def test_grey_images(tmp_path: Path) -> None:
    heat = scene()
    path = save(tmp_path / "a.png", heat)
    for palette, expected in (("white-hot", heat), ("black-hot", 255 - heat), (AUTO, heat)):
        assert np.array_equal(read_thermal(path, PREFIX + palette), expected.astype(np.float32) / 255)
    with pytest.raises(InputError, match=r"a\.png: is grey; give `thermal_palette` white-hot or black-hot"):
        read_thermal(path, PREFIX + "inferno")
    wide = save(tmp_path / "wide.png", heat.astype(np.uint16) * 256)
    with pytest.raises(InputError, match=r"wide\.png: has uint16 values.*leave `thermal_palette` out"):
        read_thermal(wide, PREFIX + AUTO)


def test_the_refusal_without_a_palette_names_the_map(tmp_path: Path) -> None:
    image = colored(scene(), MAPS["inferno"].colors)
    path = save(tmp_path / "a.png", image)
    with pytest.raises(InputError, match=r"a\.png: .*the colour map inferno: give `thermal_palette`"):
        read_raw_thermal(path)


def test_a_map_from_a_file(tmp_path: Path) -> None:
    """A colour bar, lying or upright, or lines of text; the scale holds its colours, not the file."""
    colors = np.stack(
        [np.linspace(0, 250, 64), np.linspace(20, 90, 64) ** 2 / 90, np.linspace(200, 0, 64)], 1
    )
    bar = np.rint(colors).astype(np.uint8)
    lying = save(tmp_path / "lying.png", np.repeat(bar[None], 9, axis=0))
    upright = save(tmp_path / "upright.png", np.repeat(bar[::-1, None], 9, axis=1))
    text = tmp_path / "map.csv"
    text.write_text("\n".join(f"{k}, {r}, {g}, {b}" for k, (r, g, b) in enumerate(bar)), encoding="utf-8")
    scales = {palette_scale(str(path)) for path in (lying, upright, text)}
    assert len(scales) == 1
    scale = scales.pop()
    assert palette_scale(scale.removeprefix(PREFIX)) == scale
    heat = scene()
    image = colored(heat, false_color.ColorMap.of("mine", bar.astype(float)).colors)
    assert error(decode_colors(image, scale, "a.png").values, heat).max() <= 3
    for content in ("red, green", "1, 2, 3", "0 0 0\n5 5 5"):
        text.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"map\.csv: not "):
            palette_scale(str(text))
    with pytest.raises(InputError, match=r"infra: no file, and no map; give auto, white-hot"):
        palette_scale("infra")


@pytest.fixture
def false_colors(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of generated pairs whose thermal images are inferno JPEGs, and the same in grey."""
    inferno = MAPS["inferno"].colors
    write_dataset(tmp_path / "scenes", 4, 1, 1, size=(64, 96))
    split = open_split("mfnet", tmp_path / "scenes", "train")
    roots = tmp_path / "colors", tmp_path / "grey"
    for root in roots:
        for folder in ("rgb", "thermal", "labels"):
            (root / folder).mkdir(parents=True)
        text = json.dumps({**split.classes.to_dict(), "splits": {"train": "a.txt", "test": "a.txt"}})
        (root / "dataset.yaml").write_text(text, encoding="utf-8")
    values = json.loads((roots[0] / "dataset.yaml").read_text())
    (roots[0] / "dataset.yaml").write_text(json.dumps({**values, "thermal_palette": "inferno"}))
    for number, pair in enumerate(split.pairs[:4]):
        four = np.asarray(Image.open(pair.rgb))
        for root in roots:
            save(root / "rgb" / f"{number}.png", four[..., :3])
            assert pair.label is not None
            (root / "labels" / f"{number}.png").write_bytes(pair.label.read_bytes())
            with (root / "a.txt").open("a") as file:
                file.write(f"{number}\n")
        Image.fromarray(colored(four[..., 3], inferno)).save(
            roots[0] / "thermal" / f"{number}.jpg", quality=95
        )
        save(roots[1] / "thermal" / f"{number}.png", four[..., 3])
    return roots


def test_from_check_to_a_score(
    false_colors: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data set in false colours is checked, trained on, and scored nearly as the grey one."""
    colors, grey = false_colors
    assert main(["data", "check", "--dataset", "folders", "--root", str(colors)]) == 0
    assert "false colours of inferno" in capsys.readouterr().out
    run = tmp_path / "run"
    train = [
        "--model",
        "efnet_tiny",
        "--size",
        "64x96",
        "--batch-size",
        "2",
        "--epochs",
        "1",
        "--workers",
        "0",
    ]
    data = ["--dataset", "folders", "--root", str(colors), "--data.val_split", "test"]
    assert main(["train", *data, *train, "--workers", "0", "--device", "cpu", "--out", str(run)]) == 0
    network = efnet.Predictor.from_pretrained(run, "cpu")
    assert network.thermal_scale == PREFIX + "inferno"
    scores = {}
    for name, root, extra in (("own", colors, []), ("grey", grey, ["--thermal-palette", "white-hot"])):
        report = tmp_path / f"{name}.json"
        data = ["--dataset", "folders", "--root", str(root), "--split", "test", "--workers", "0"]
        command = ["evaluate", "--checkpoint", str(run), *data, *extra, "--device", "cpu"]
        assert main([*command, "--json", str(report)]) == 0
        scores[name] = json.loads(report.read_text())["miou"]
    assert scores["own"] == pytest.approx(scores["grey"], abs=0.03)


def test_predict_with_the_option(
    false_colors: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colors, _ = false_colors
    command = [
        "predict",
        "--rgb",
        str(colors / "rgb"),
        "--thermal",
        str(colors / "thermal"),
        "--device",
        "cpu",
    ]
    assert main([*command, "--out", str(tmp_path / "plain")]) == 2
    assert "looks like the colour map inferno: give --thermal-palette auto" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "out"), "--thermal-palette", "auto"]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 4
    assert main([*command, "--out", str(tmp_path / "x"), "--thermal-palette", "infra"]) == 2
    assert "--thermal-palette infra: no file, and no map" in capsys.readouterr().err


def test_networks_of_raw_values_take_no_colours() -> None:
    model = efnet.create_model("mfnet")
    model.input = efnet.models.InputSpec(thermal_scale=(20000.0, 30000.0))
    with pytest.raises(InputError, match="`thermal_palette` inferno: the network learned thermal values"):
        efnet.Predictor(model, "cpu").use_palette("inferno")


@pytest.mark.parametrize("command", ["compare", "data issues", "temperature"])
def test_a_data_sets_palette_holds_for_every_command(
    false_colors: tuple[Path, Path], tmp_path: Path, command: str
) -> None:
    """A network of grey files meets a data set in false colours: its `thermal_palette` counts."""
    colors, _ = false_colors
    model = efnet.create_model("efnet_tiny", classes=open_split("folders", colors, "test").classes)
    model.save_pretrained(tmp_path / "net")
    data = ["--dataset", "folders", "--root", str(colors), "--split", "test", "--workers", "0"]
    words = {
        "compare": ["compare", str(tmp_path / "net"), f"again={tmp_path / 'net'}"],
        "data issues": [
            "data",
            "issues",
            "--checkpoint",
            str(tmp_path / "net"),
            "--out",
            str(tmp_path / "out"),
        ],
        "temperature": ["temperature", "--checkpoint", str(tmp_path / "net")],
    }
    assert main([*words[command], *data, "--device", "cpu"]) == 0


def test_without_the_line_in_the_data_set(
    false_colors: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands without the option name the key of dataset.yaml; training takes `--thermal-scale`."""
    colors, _ = false_colors
    path = colors / "dataset.yaml"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in values.items() if key != "thermal_palette"}))
    data = ["--dataset", "folders", "--root", str(colors)]
    assert main(["data", "view", *data, "--out", str(tmp_path / "a.html")]) == 2
    assert "give 'thermal_palette' (dataset.yaml) auto" in capsys.readouterr().err
    words = "train --model efnet_tiny --size 64x96 --batch-size 2 --epochs 1 --workers 0 --device cpu"
    run = tmp_path / "run"
    more = ["--data.val_split", "test", "--thermal-scale", "palette:inferno", "--out", str(run)]
    assert main([*words.split(), *data, *more]) == 0
    assert efnet.Predictor.from_pretrained(run, "cpu").thermal_scale == PREFIX + "inferno"
    pair = ["--rgb", str(colors / "rgb" / "0.png"), "--thermal", str(colors / "thermal" / "0.jpg")]
    command = ["explain", "--checkpoint", str(run), *pair, "--thermal-palette", "auto", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "page")]) == 0


def test_the_given_palette_wins_over_the_data_sets_and_that_over_the_networks() -> None:
    """Also where it is the network's own; and a data set leaves the predictor as it was for the next one."""
    model = efnet.create_model("mfnet")
    model.input = efnet.models.InputSpec(thermal_scale=PREFIX + "inferno")
    predictor = efnet.Predictor(model, "cpu")
    assert predictor.scale_of(PREFIX + "iron") == PREFIX + "iron"
    assert predictor.scale_of("auto") == predictor.thermal_scale == PREFIX + "inferno"
    predictor.use_palette("inferno")
    assert predictor.scale_of(PREFIX + "iron") == PREFIX + "inferno"
    model.input = efnet.models.InputSpec(thermal_scale=(0.0, 40.0))
    with pytest.raises(InputError, match="`thermal_palette` iron: the network learned thermal values"):
        efnet.Predictor(model, "cpu").scale_of(PREFIX + "iron")
