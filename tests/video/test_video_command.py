"""`efnet predict` on videos, as a user types it; and a live stream."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_helpers import HEIGHT, WIDTH, blobs, read_video

from efnet.alignment.homography import Homography
from efnet.cli.main import main
from efnet.core.errors import InputError
from efnet.inference.predictor import Predictor
from efnet.video.source import Reader, Source


@pytest.fixture
def command(checkpoint, videos, tmp_path):
    def run(*more: str, **replaced: object) -> int:
        options = {
            "checkpoint": checkpoint,
            "rgb": videos[0],
            "thermal": videos[1],
            "out": tmp_path / "o.mp4",
        }
        options |= {"device": "cpu"} | replaced
        return main(["predict", *(f"--{key}={value}" for key, value in options.items()), *more])

    return run


def test_a_pair_of_videos(command, tmp_path, capsys):
    assert command("--video-style=side-by-side", "--smooth=0.5", f"--maps={tmp_path}/maps") == 0
    captured = capsys.readouterr()
    assert re.search(r"predicted 8 frames in .* per second\): .*o\.mp4", captured.out)
    assert "frames" in captured.err
    assert len(read_video(tmp_path / "o.mp4")[1]) == 8
    assert len(list((tmp_path / "maps").glob("*.png"))) == 8


def test_nothing_is_replaced_unasked(command, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "maps" / "000099.png")
    maps = f"--maps={tmp_path}/maps"
    assert command(maps) == 2
    assert "holds maps already" in capsys.readouterr().err
    assert command(maps, "--overwrite") == 0
    assert not (tmp_path / "maps" / "000099.png").exists(), "a frame of the longer video before"
    assert command() == 2
    assert "o.mp4: is there already" in capsys.readouterr().err


def test_no_such_camera(command, capsys):
    assert command(thermal="none") == 0
    assert "8 with thermal not given" in capsys.readouterr().out


def test_homography_and_tiles(command, tmp_path, capsys):
    Homography.stretched((48, 72), (HEIGHT, WIDTH)).save(tmp_path / "h.json")
    assert command(f"--homography={tmp_path}/h.json", "--tile=64x64", "--overlap=16") == 0
    out = capsys.readouterr().out
    assert "in tiles of 64x64 that share 16 pixels" in out
    assert "its border continued outward" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "folder"}, r"--out folder: give a video file, \.mp4, \.mkv, \.mov"),
        ({"thermal": "folder"}, "--rgb is a video and the other input is not"),
        ({"rgbt": "drive.mp4"}, "there is no four-channel video"),
        ({"rgb": "absent.mp4"}, r"absent\.mp4: cannot be opened as video"),
        ({"smooth": 1}, r"--smooth 1\.0: give a number"),
        ({"video-style": "film"}, "--video-style film is unknown; choose overlay, map, side-by-side"),
        ({"clock": "wall"}, "--clock wall is unknown"),
        ({"homography": "none.json"}, r"none\.json: cannot be read"),
        ({"homography": "h.json", "thermal": "none"}, "--homography aligns two cameras"),
    ],
)
def test_bad_options(command, options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(**options) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err)
    assert "Traceback" not in captured.err
    assert not list(tmp_path.iterdir())


def test_the_homography_moves_thermal_images(checkpoint, tmp_path):
    rgb, thermal = blobs(1, 3), blobs(2, height=48, width=72)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(thermal).save(tmp_path / "thermal.png")
    matrix = np.array([[1.2, 0.05, 4.0], [-0.05, 1.3, 2.0], [0, 1e-4, 1]])
    homography = Homography(matrix, (48, 72), (HEIGHT, WIDTH))
    homography.save(tmp_path / "h.json")
    words = [f"--checkpoint={checkpoint}", f"--rgb={tmp_path}/rgb.png", f"--thermal={tmp_path}/thermal.png"]
    words += [f"--out={tmp_path}/out", "--save=index", f"--homography={tmp_path}/h.json", "--device=cpu"]
    assert main(["predict", *words]) == 0
    index = np.asarray(Image.open(tmp_path / "out" / "index" / "rgb.png"))
    warped = homography.warp(thermal.astype(np.float32) / 255, (HEIGHT, WIDTH))
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    np.testing.assert_array_equal(index, predictor(rgb, warped).index)
    assert (index != predictor(rgb, thermal).index).any()


SERVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from video_helpers import *
with av.open(sys.argv[2] + "?listen=1", "w", format="mpegts") as container:
    stream = container.add_stream("mpeg2video", rate=100)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    started = time.time()
    for number, image in enumerate(moving(blobs(1, 3), 200)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        container.mux(stream.encode(frame))
        time.sleep(max(0, started + number / 100 - time.time()))
    container.mux(stream.encode())
"""


def test_a_live_stream_drops_what_comes_too_fast():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(Path(__file__).parent), address])
    try:
        deadline = time.time() + 30
        while True:  # until it listens
            try:
                source = Source(address, "rgb")
                break
            except InputError:
                assert time.time() < deadline
                time.sleep(0.2)
        assert source.live
        assert source.expected is None
        reader = Reader(source, ahead=2)
        times = []
        for frame in reader:
            times.append(frame.time)
            time.sleep(0.1)
        reader.close()
    finally:
        server.kill()
        server.wait()
    assert reader.dropped > 0
    assert len(times) + reader.dropped > 100
    assert times == sorted(times)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0113_1714", "1230_1202"])
def test_real_pairs_with_the_weights_that_come_with_the_package(samples, tmp_path, capsys, name):
    """Whole recordings of two cameras: every colour frame finds its thermal frame."""
    given = [samples / "video" / camera / f"{name}.mp4" for camera in ("visible", "infrared")]
    if not all(path.is_file() for path in given):
        pytest.skip("no real pairs of videos")
    out, maps = tmp_path / "out.mp4", tmp_path / "maps"
    words = [
        "predict",
        "--rgb",
        str(given[0]),
        "--thermal",
        str(given[1]),
        "--out",
        str(out),
        "--maps",
        str(maps),
    ]
    assert main(words) == 0
    times, _ = read_video(given[0])
    assert len(read_video(out)[0]) == len(times) == len(list(maps.glob("*.png")))
    assert "damaged" not in capsys.readouterr().out
