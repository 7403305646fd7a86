"""POST /v1/segment: what comes back is what the predictor says of the same files."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from service_helpers import NAMES, agreement, encode, files_of, index_of, make_pair, make_predictor

from efnet.inference.predictor import Predictor
from efnet.service.answers import format_of, runs_of
from efnet.service.app import create_app
from efnet.service.schemas import ModelInfo, Segmentation


def from_base64(encoded: dict) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded["data"])))


@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 71)])
def test_json_holds_the_prediction(client: TestClient, predictor: Predictor, height: int, width: int) -> None:
    rgb, thermal = make_pair(1, height, width)
    expected = predictor(rgb, thermal, probabilities=True)
    query = {"mask": "both", "confidence": "png", "probabilities": True, "views": True}
    files = files_of(1, height=height, width=width)
    answer = client.post("/v1/segment", params=query, files=files).json()
    Segmentation.model_validate(answer)

    assert answer["size"] == {"height": height, "width": width}
    assert len(np.unique(expected.index)) > 1
    np.testing.assert_array_equal(index_of(answer), expected.index)
    mask = from_base64(answer["mask"])
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.asarray(mask), expected.index)
    np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), np.asarray(expected.color()))
    levels = np.asarray(from_base64(answer["confidence"]))
    np.testing.assert_allclose(levels / 255, expected.confidence, atol=0.6 / 255)
    for kind, (name, share) in zip(answer["classes"], expected.shares().items(), strict=True):
        assert (kind["name"], kind["share"]) == (name, share)
        assert kind["color"] == list(expected.classes.palette[kind["index"]])
        own = expected.index == kind["index"]
        assert kind["pixels"] == own.sum()
        assert kind["mean_probability"] == pytest.approx(
            expected.probabilities[kind["index"]].mean(), abs=1e-5
        )
        won = expected.confidence[own].mean() if own.any() else None
        assert kind["mean_confidence"] == (None if won is None else pytest.approx(won, abs=1e-5))
    assert from_base64(answer["views"]["rgb"]).size == (width, height)
    heat = np.asarray(from_base64(answer["views"]["thermal"]), dtype=float)
    assert np.abs(heat - thermal).mean() < 3, "JPEG, but the thermal image"


def test_deflated_confidence_is_that_of_the_png(client: TestClient) -> None:
    png, deflated = (
        client.post("/v1/segment", params={"confidence": choice}, files=files_of(2)).json()["confidence"]
        for choice in ("png", "deflate")
    )
    assert zlib.decompress(base64.b64decode(deflated["data"])) == np.asarray(from_base64(png)).tobytes()


def test_by_default_the_answer_is_small(client: TestClient) -> None:
    response = client.post("/v1/segment", files=files_of())
    answer = response.json()
    assert answer["runs"] is answer["confidence"] is answer["views"] is None
    assert answer["classes"][0]["mean_probability"] is None
    assert 0 < answer["timing"]["network_ms"] <= answer["timing"]["total_ms"]
    assert "network;dur=" in response.headers["server-timing"]


def test_png_and_overlay(client: TestClient, predictor: Predictor) -> None:
    rgb, thermal = make_pair(3)
    expected = predictor(rgb, thermal)
    mask = client.post("/v1/segment", files=files_of(3), headers={"Accept": "image/png"})
    assert mask.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask.content))), expected.index)
    overlay = client.post("/v1/segment?format=overlay&opacity=0.3", files=files_of(3))
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(overlay.content))), np.asarray(expected.overlay(rgb, 0.3))
    )


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("image/png", "png"),
        ("text/html", "json"),
        ("image/png, */*", "png"),
        ("image/png;q=0.2, application/json", "json"),
        ("application/json;q=0.5, IMAGE/PNG;q=0.9", "png"),
        ("image/png;q=nonsense", "json"),
    ],
)
def test_accept_header(accept: str, expected: str) -> None:
    assert format_of(accept) == expected


def turned(image: np.ndarray, kind: str) -> bytes:
    """Stored lying, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(np.rot90(image), kind, exif=exif)


def thermal_16() -> np.ndarray:
    return make_pair(4)[1].astype(np.uint16) * 37 + 8000


KINDS = {
    "jpeg turned by EXIF": lambda: ("rgb", turned(make_pair(4)[0], "JPEG"), ".jpg"),
    "palette": lambda: ("rgb", encode(Image.fromarray(make_pair(4)[0]).quantize(32)), ".png"),
    "opacity": lambda: ("rgb", encode(np.dstack(make_pair(4))), ".png"),
    "grey of 16 bits": lambda: ("rgb", encode(thermal_16()), ".png"),
    "cmyk": lambda: ("rgb", encode(Image.fromarray(make_pair(4)[0]).convert("CMYK"), "TIFF"), ".tif"),
    "webp": lambda: ("rgb", encode(make_pair(4)[0], "WEBP", lossless=True), ".webp"),
    "thermal of 16 bits": lambda: ("thermal", encode(thermal_16()), ".png"),
    "thermal tiff of 16 bits, lzw": lambda: (
        "thermal",
        encode(thermal_16(), "TIFF", compression="tiff_lzw"),
        ".tif",
    ),
    "thermal float tiff": lambda: ("thermal", encode(thermal_16().astype(np.float32), "TIFF"), ".tif"),
    "thermal big-endian pgm": lambda: ("thermal", encode(thermal_16(), "PPM"), ".pgm"),
    "thermal in three channels": lambda: ("thermal", encode(np.dstack([make_pair(4)[1]] * 3)), ".png"),
    "thermal with opacity": lambda: (
        "thermal",
        encode(Image.fromarray(make_pair(4)[1]).convert("LA")),
        ".png",
    ),
    "four channels turned by EXIF": lambda: ("rgbt", turned(np.dstack(make_pair(4)), "PNG"), ".png"),
    "four channels": lambda: ("rgbt", encode(np.dstack(make_pair(4))), ".png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_reads_the_pixels_that_predict_reads(
    client: TestClient, predictor: Predictor, kind: str, tmp_path
) -> None:
    field, content, suffix = KINDS[kind]()
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    rgb, thermal = make_pair(4)
    files = {"rgbt": content} if field == "rgbt" else files_of(4) | {field: content}
    pair = {"rgb": (path, thermal), "thermal": (rgb, path), "rgbt": (path, None)}[field]
    response = client.post("/v1/segment?mask=runs", files=files)
    assert response.status_code == 200, response.text
    np.testing.assert_array_equal(index_of(response.json()), predictor(*pair).index)


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_networks_of_one_modality(modality: str) -> None:
    predictor = make_predictor(modality)
    rgb, thermal = make_pair(5)
    expected = predictor(rgb if modality == "rgb" else None, thermal).index
    with TestClient(create_app(predictor)) as client:
        info = ModelInfo.model_validate(client.get("/v1/model").json())
        assert info.input.images == [[modality], ["rgbt"]]
        other = {"rgb": "thermal", "thermal": "rgb"}[modality]
        for files in (
            {modality: files_of(5)[modality]},
            files_of(5) | {other: b"not even read"},
            {"rgbt": encode(np.dstack([rgb, thermal]))},
        ):
            answer = client.post("/v1/segment?mask=runs&views=true", files=files).json()
            np.testing.assert_array_equal(index_of(answer), expected)
            assert [view is None for view in answer["views"].values()] == [
                modality == "thermal",
                modality == "rgb",
            ]
        assert client.post("/v1/segment", files={other: files_of(5)[other]}).status_code == 400


def test_a_network_of_fixed_size_answers_at_the_size_of_the_image() -> None:
    predictor = make_predictor(size=(48, 64))
    rgb, _ = make_pair(6, 96, 128)
    _, thermal = make_pair(6, 48, 64)
    with TestClient(create_app(predictor)) as client:
        files = {"rgb": encode(rgb), "thermal": encode(thermal)}
        answer = client.post("/v1/segment?mask=runs", files=files).json()
    assert agreement(index_of(answer), predictor(rgb, thermal).index) == 1.0


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)))
def test_runs_are_undone_by_repeat(index: np.ndarray) -> None:
    runs = runs_of(index)
    np.testing.assert_array_equal(np.repeat(runs.values, runs.lengths).reshape(index.shape), index)
    assert all(one != other for one, other in zip(runs.values, runs.values[1:], strict=False))


def test_model_says_what_it_is(client: TestClient) -> None:
    info = ModelInfo.model_validate(client.get("/v1/model").json())
    assert info.name == "efnet_tiny"
    assert [kind.name for kind in info.classes] == list(NAMES)
    assert info.config["fusion"] == "mif"
    assert info.limits.max_pixels == 300_000
    assert info.input.images == [["rgb", "thermal"], ["rgbt"]]
