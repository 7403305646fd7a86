"""Radiometric JPEGs: FLIR's temperatures by the published formula, its photograph, DJI's files by name."""

from __future__ import annotations

import io
import math
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from data_helpers import random_rgb
from numpy.typing import NDArray
from PIL import Image

from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.data.images import read_raw_thermal, read_rgb, read_thermal
from efnet.data.layouts import open_split

HEIGHT, WIDTH = 60, 80
PLANCK = {"r1": 21106.77, "b": 1501.0, "f": 1.0, "o": -7340, "r2": 0.012545258}
EMISSIVITY, REFLECTED = 0.95, 293.15  # K


def celsius(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The formula of FLIR's cameras, for an object at no distance and without a window."""
    radiance = PLANCK["r1"] / (PLANCK["r2"] * (math.exp(PLANCK["b"] / REFLECTED) - PLANCK["f"])) - PLANCK["o"]
    own = (raw - (1 - EMISSIVITY) * radiance) / EMISSIVITY
    kelvin = PLANCK["b"] / np.log(PLANCK["r1"] / (PLANCK["r2"] * (own + PLANCK["o"])) + PLANCK["f"])
    return np.asarray(kelvin - 273.15)


def camera_info() -> bytes:
    block = bytearray(1000)
    fields = {32: EMISSIVITY, 36: 0.0, 40: REFLECTED, 44: 293.15, 48: 293.15, 52: 1.0, 60: 0.5}
    fields |= {88: PLANCK["r1"], 92: PLANCK["b"], 96: PLANCK["f"], 780: PLANCK["r2"]}
    fields |= {112: 0.0066, 116: 0.0126, 120: -0.0023, 124: -0.0067, 128: 1.9}
    for place, value in fields.items():
        struct.pack_into("<f", block, place, value)
    struct.pack_into("<i", block, 776, int(PLANCK["o"]))
    return bytes(block)


def flir_file(
    path: Path,
    raw: NDArray[np.uint16],
    picture: NDArray[np.uint8],
    photograph: NDArray[np.uint8] | None = None,
    view: tuple[float, int, int] | None = None,
    orientation: int = 1,
) -> Path:
    """Write a radiometric JPEG: an FFF file in APP1 segments, its records as exiftool documents them."""
    head = struct.pack("<H", 2)
    records = [(1, head + struct.pack("<HH", *raw.shape[::-1]) + bytes(26) + raw.astype("<u2").tobytes())]
    records.append((32, camera_info()))
    if photograph is not None:
        buffer = io.BytesIO()
        Image.fromarray(photograph).save(buffer, "JPEG", quality=98, subsampling=0)
        size = struct.pack("<HH", *photograph.shape[1::-1])
        records.append((14, head + size + bytes(26) + buffer.getvalue()))
    if view is not None:
        records.append((42, struct.pack("<fhh4h", *view, 0, raw.shape[1] - 1, 0, raw.shape[0] - 1)))
    entries = 28
    place = 64 + 32 * entries
    directory, content = b"", b""
    for kind, data in records:
        directory += struct.pack(">HHIIIIIII", kind, 2, 100, 1, place + len(content), len(data), 0, 0, 0)
        content += data
    fff = b"FFF\0" + b"TEST".ljust(16, b"\0") + struct.pack(">III", 100, 64, entries) + bytes(32)
    fff += directory.ljust(32 * entries, b"\0") + content
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(picture).save(buffer, "JPEG", exif=exif)
    jpeg = buffer.getvalue()
    parts = [fff[start : start + 65000] for start in range(0, len(fff), 65000)]
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", len(part) + 10) + b"FLIR\0\1" + bytes([number, len(parts) - 1]) + part
        for number, part in enumerate(parts)
    )
    path.write_bytes(jpeg[:2] + segments + jpeg[2:])
    return path


@pytest.fixture
def raw() -> NDArray[np.uint16]:
    ramp = np.linspace(15500, 20000, WIDTH)[None] + np.linspace(0, 900, HEIGHT)[:, None]
    return np.rint(ramp).astype(np.uint16)


def rendering(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    return random_rgb(5, height, width)


def test_temperatures_by_the_formula(tmp_path: Path, raw: NDArray[np.uint16]) -> None:
    found = read_raw_thermal(flir_file(tmp_path / "a.jpg", raw, rendering()))
    expected = celsius(raw.astype(np.float64))
    assert found.dtype == np.float32
    assert 0 < expected.min() < expected.max() < 120
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_range_in_degrees(tmp_path: Path, raw: NDArray[np.uint16]) -> None:
    path = flir_file(tmp_path / "a.jpg", raw, rendering())
    expected = np.clip((celsius(raw.astype(np.float64)) - 20) / 40, 0, 1)
    np.testing.assert_allclose(read_thermal(path, (20.0, 60.0)), expected, atol=1e-3)


def test_a_larger_picture_gives_its_size_to_all(tmp_path: Path, raw: NDArray[np.uint16]) -> None:
    """Temperatures are enlarged; the photograph is cut to the thermal view, here its middle."""
    photograph = np.zeros((240, 320, 3), dtype=np.uint8)
    photograph[60:180, 80:240] = (200, 100, 50)  # what the thermal camera sees
    path = flir_file(tmp_path / "a.jpg", raw, rendering(120, 160), photograph, view=(2.0, 0, 0))
    assert read_raw_thermal(path).shape == (120, 160)
    rgb = read_rgb(path)
    assert rgb.shape == (120, 160, 3)
    assert np.abs(rgb[4:-4, 4:-4].astype(int) - (200, 100, 50)).max() <= 6
    moved = flir_file(tmp_path / "b.jpg", raw, rendering(120, 160), photograph, view=(2.0, 80, 0))
    rgb = read_rgb(moved)  # half a view to the right
    assert np.abs(rgb[4:-4, 4:76].astype(int) - (200, 100, 50)).max() <= 6
    assert rgb[4:-4, 84:-4].max() <= 6


def test_a_turned_camera(tmp_path: Path, raw: NDArray[np.uint16]) -> None:
    photograph = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    photograph[:, : WIDTH // 2] = 250
    path = flir_file(tmp_path / "a.jpg", raw, rendering(), photograph, orientation=6)
    assert read_raw_thermal(path).shape == (WIDTH, HEIGHT)
    expected = np.rot90(celsius(raw.astype(np.float64)), -1)
    np.testing.assert_allclose(read_raw_thermal(path), expected, atol=0.01)
    assert read_rgb(path)[: WIDTH // 2 - 4].min() > 200
    assert read_rgb(path)[WIDTH // 2 + 4 :].max() < 50


def test_what_is_refused(tmp_path: Path, raw: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch) -> None:
    path = flir_file(tmp_path / "a.jpg", raw, rendering())
    with pytest.raises(InputError, match=r"a\.jpg: .*holds no photograph; give the colour image"):
        read_rgb(path)
    other = flir_file(tmp_path / "b.jpg", raw, rendering(80, 80))
    with pytest.raises(InputError, match=r"b\.jpg: its temperatures are 80x60, of another shape"):
        read_raw_thermal(other)
    content = bytearray(path.read_bytes())
    place = content.find(b"FFF\0")
    content[place + 64 : place + 64 + 32 * 28] = bytes(32 * 28)
    (tmp_path / "c.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"c\.jpg: its FLIR records cannot be read.*copy it again"):
        read_raw_thermal(tmp_path / "c.jpg")
    monkeypatch.setitem(sys.modules, "flyr", None)
    with pytest.raises(InputError, match=r'a\.jpg: .*needs flyr: pip install "efnet\[radiometric\]"'):
        read_raw_thermal(path)


def test_files_of_dji_are_named(tmp_path: Path) -> None:
    """Their picture is never taken for temperatures; with a palette it is read as what it is."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[271] = "DJI"
    grey = np.tile(np.arange(80, dtype=np.uint8) * 3, (60, 1))
    Image.fromarray(np.dstack([grey] * 3)).save(buffer, "JPEG", exif=exif)
    jpeg = buffer.getvalue()
    path = tmp_path / "DJI_0001_T.JPG"
    path.write_bytes(jpeg[:2] + b"\xff\xe3" + struct.pack(">H", 102) + bytes(100) + jpeg[2:])
    for read in (read_raw_thermal, read_rgb):
        with pytest.raises(InputError, match=r"DJI_0001_T\.JPG: a radiometric JPEG of DJI.*dji-thermal-cli"):
            read(path)
    assert np.abs(read_thermal(path, "palette:white-hot") * 255 - grey).max() <= 6
    path.write_bytes(jpeg)  # the colour camera's file of the same maker
    assert np.abs(read_rgb(path)[..., 0].astype(int) - grey).max() <= 6


def test_one_file_is_a_pair(tmp_path: Path, raw: NDArray[np.uint16]) -> None:
    photographs = random_rgb(2, HEIGHT, WIDTH)
    (tmp_path / "flir").mkdir()
    for name in "ab":
        flir_file(tmp_path / "flir" / f"{name}.jpg", raw, rendering(), photographs)
    folder = str(tmp_path / "flir")
    command = ["predict", "--rgb", folder, "--thermal", folder, "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out").rglob("*.png")} >= {"a", "b"}
    text = "names: [background, car]\nrgb: flir\nthermal: flir\n"
    (tmp_path / "dataset.yaml").write_text(text, encoding="utf-8")
    pairs = [*open_split("folders", tmp_path, "trainval").pairs]
    assert [(pair.name, pair.rgb == pair.thermal) for pair in pairs] == [("a", True), ("b", True)]
