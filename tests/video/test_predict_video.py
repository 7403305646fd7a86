"""Two videos in, one video out."""

from __future__ import annotations

import json
import signal
import tracemalloc
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from video_helpers import HEIGHT, WIDTH, blobs, make_model, moving, read_video, write_video

from efnet.alignment.homography import Homography, resize_matrix
from efnet.core.errors import InputError
from efnet.data.augment import PAD_THERMAL
from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.tiles import Tiling
from efnet.video import VideoOptions, predict_video
from efnet.video.source import Source, match


def predict(predictor, videos, out, thermal=True, **options):
    return predict_video(
        predictor, str(videos[0]), str(videos[1]) if thermal else None, out, VideoOptions(**options)
    )


def expected(predictor, videos, count: int = 8) -> list[Prediction]:
    """Frame by frame through the predictor."""
    with Source(str(videos[0]), "rgb") as rgb, Source(str(videos[1]), "thermal") as thermal:
        return [
            predictor(moment.rgb.image, moment.thermal.image, probabilities=True)
            for moment in islice(match(rgb, thermal, max_gap=1 / 9), count)
        ]


def maps_in(folder) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_overlay_and_maps(predictor, videos, tmp_path):
    summary = predict(predictor, videos, tmp_path / "o.mp4", maps=tmp_path / "maps")
    assert summary.frames == 8
    assert not summary.missing
    truth = expected(predictor, videos)
    maps = maps_in(tmp_path / "maps")
    assert len(maps) == 8
    for index, prediction in zip(maps, truth, strict=True):
        np.testing.assert_array_equal(index, prediction.index)
    times, frames = read_video(tmp_path / "o.mp4")
    assert times == pytest.approx([number / 25 for number in range(8)], abs=1e-4)
    rgb = read_video(videos[0])[1]
    for frame, image, prediction in zip(frames, rgb, truth, strict=True):
        picture = np.asarray(prediction.overlay(image))
        assert np.abs(frame.astype(int) - picture).mean() < 8, "but for what H.264 loses"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "o.mp4"], "no temporary file is left"


@pytest.mark.parametrize(("style", "width"), [("map", WIDTH), ("side-by-side", 3 * WIDTH)])
def test_styles(predictor, videos, tmp_path, style, width):
    predict(predictor, videos, tmp_path / "o.mkv", style=style)
    frame = read_video(tmp_path / "o.mkv")[1][0]
    assert frame.shape == (HEIGHT, width, 3)
    if style == "map":
        colors = expected(predictor, videos, 1)[0].color()
        assert np.abs(frame.astype(int) - np.asarray(colors)).mean() < 12


def test_smoothing_is_an_exponential_mean(predictor, videos, tmp_path):
    predict(predictor, videos, tmp_path / "o.mp4", smooth=0.6, maps=tmp_path / "maps")
    mean = None
    for index, prediction in zip(maps_in(tmp_path / "maps"), expected(predictor, videos), strict=True):
        now = prediction.probabilities
        mean = now if mean is None else 0.6 * mean + 0.4 * now
        assert (index == mean.argmax(axis=0)).mean() > 0.999


def test_batches_change_nothing(predictor, videos, tmp_path):
    predict(predictor, videos, tmp_path / "a.mp4", maps=tmp_path / "a")
    predict(predictor, videos, tmp_path / "b.mp4", maps=tmp_path / "b", batch_size=5)
    for one, other in zip(maps_in(tmp_path / "a"), maps_in(tmp_path / "b"), strict=True):
        assert (one == other).mean() > 0.999


def test_frames_without_a_partner(predictor, videos, tmp_path):
    """Thermal 0.3 s late: the first frames have none, and their thermal image is grey."""
    summary = predict(predictor, videos, tmp_path / "o.mp4", offset=0.3, max_gap=0.05, maps=tmp_path / "maps")
    assert summary.missing == {"thermal": {"without a frame near in time": 7}}
    first = read_video(videos[0])[1][0]
    grey = np.full((HEIGHT, WIDTH), PAD_THERMAL, dtype=np.float32)
    np.testing.assert_array_equal(maps_in(tmp_path / "maps")[0], predictor(first, grey).index)
    lines = [json.loads(line) for line in (tmp_path / "maps" / "frames.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(8))
    assert lines[0]["missing"] == {"thermal": "without a frame near in time"}
    assert (lines[0]["thermal_time"], lines[7]["thermal_time"]) == (None, 0.0)
    assert lines[7]["missing"] == {}
    predictor.missing = "error"
    with pytest.raises(InputError, match=r"rgb\.mp4: frame 0 \(0\.00 s\): .*without a frame near in time"):
        predict(predictor, videos, tmp_path / "p.mp4", offset=0.3, max_gap=0.05)
    assert not (tmp_path / "p.mp4").exists()


def test_one_camera_alone(predictor, videos, tmp_path):
    summary = predict(predictor, videos, tmp_path / "o.mp4", thermal=False)
    assert summary.missing == {"thermal": {"not given": 8}}
    thermal = Predictor(make_model("thermal"), device="cpu")
    assert predict_video(thermal, None, str(videos[1]), tmp_path / "t.mp4").frames == 4
    assert read_video(tmp_path / "t.mp4")[1][0].shape == (48, 72, 3)
    both = predict_video(thermal, str(videos[0]), str(videos[1]), tmp_path / "u.mp4")
    assert both.frames == 4, "a network of one modality does not open the other's video"


def test_a_covered_and_a_frozen_camera_are_told(predictor, tmp_path):
    rgb = write_video(tmp_path / "rgb.mp4", moving(blobs(1, 3), 32), 10)
    dark = write_video(
        tmp_path / "dark.mkv",
        [np.zeros((48, 72), np.uint8)] * 32,
        10,
        codec="ffv1",
        source="gray",
        pixels="gray",
    )
    still = write_video(
        tmp_path / "still.mkv", [blobs(2)] * 32, 10, codec="ffv1", source="gray", pixels="gray"
    )
    told = []
    summary = predict_video(predictor, str(rgb), str(dark), tmp_path / "a.mp4", warn=told.append)
    assert summary.missing == {"thermal": {"of one value": 32}}
    assert len(told) == 1
    assert "frame 0 (0.00 s): thermal is of one value" in told[0]
    summary = predict_video(predictor, str(rgb), str(still), tmp_path / "b.mp4", warn=told.append)
    assert summary.missing == {"thermal": {"frozen": 12}}
    assert "frame 20 (2.00 s): thermal is frozen" in told[1]


def test_a_video_that_is_cut_off_is_a_warning(predictor, tmp_path):
    path = write_video(tmp_path / "a.mkv", moving(blobs(1, 3), 30), codec="mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    warnings: list[str] = []
    summary = predict_video(predictor, str(path), None, tmp_path / "a.mp4", warn=warnings.append)
    assert 0 < summary.frames < 30
    assert [text for text in warnings if "a.mkv: ends after" in text and "of 1.20 s" in text]


def test_a_homography_and_tiles_go_along(predictor, videos, tmp_path):
    shift = np.array([[1, 0, 5.0], [0, 1, 3.0], [0, 0, 1]])
    matrix = shift @ resize_matrix((48, 72), (HEIGHT, WIDTH))
    predictor.homography = Homography(matrix, (48, 72), (HEIGHT, WIDTH))
    predictor.tiling = Tiling((64, 64), 32)
    predict(predictor, videos, tmp_path / "o.mp4", maps=tmp_path / "maps")
    np.testing.assert_array_equal(maps_in(tmp_path / "maps")[3], expected(predictor, videos, 4)[3].index)


def test_an_interrupt_leaves_a_whole_file(predictor, videos, tmp_path):
    def progress(done: int, total: int | None) -> None:
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    summary = predict_video(predictor, str(videos[0]), str(videos[1]), tmp_path / "o.mp4", progress=progress)
    assert summary.interrupted
    assert summary.frames == 5
    assert len(read_video(tmp_path / "o.mp4")[1]) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_a_fault_leaves_nothing(predictor, videos, tmp_path):
    with torch.no_grad():
        for parameter in predictor.model.parameters():
            parameter.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite"):
        predict(predictor, videos, tmp_path / "o.mp4")
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_video(predictor, tmp_path):
    """What Python and numpy hold at most: the same for a video four times as long."""
    predictor.size = (32, 32)
    peaks = []
    for count in (4, 4, 24):  # the first fills what is kept between runs
        rgb = write_video(tmp_path / f"{count}.mp4", moving(blobs(1, 3), count))
        tracemalloc.start()
        predict_video(predictor, str(rgb), None, tmp_path / "o.mp4")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 10 * HEIGHT * WIDTH * 3, "ten frames would be seen"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": 1.0}, "`smooth` 1.0: give a number from 0 to below 1"),
        ({"max_gap": -1}, "`max_gap` -1: give seconds"),
        ({"batch_size": 0}, "`batch_size` 0 is below 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        VideoOptions(**options)


def test_nothing_given(predictor, tmp_path):
    with pytest.raises(InputError, match="nothing to predict"):
        predict_video(predictor, None, None, tmp_path / "o.mp4")
