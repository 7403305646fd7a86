"""Videos read as what they are, and written so that players show them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from video_helpers import HEIGHT, WIDTH, blobs, moving, read_video, write_video

from efnet.core.errors import InputError
from efnet.data.false_color import ColorMap, _maps
from efnet.data.images import places
from efnet.video.segment import VideoOptions, VideoWriter
from efnet.video.source import Reader, Source, is_video


def decode_maps() -> dict[str, ColorMap]:
    return {each.name: each for variants in _maps().values() for each in variants}


def frames_of(path, camera, clock="start"):
    with Source(str(path), camera, clock) as source:
        return list(source)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("a.mp4", True),
        ("A.MKV", True),
        ("rtsp://10.0.0.5/stream", True),
        ("/dev/video0", True),
        ("frames", False),
        ("frames/*.png", False),
        ("none", False),
        (None, False),
    ],
)
def test_what_counts_as_video(where, expected):
    assert is_video(where) is expected


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.ts", "libx264", "yuv420p"), ("a.h264", "libx264", "yuv420p"), ("a.3gp", "libx264", "yuv420p"),
        ("a.flv", "libx264", "yuv420p"), ("a.MTS", "libx264", "yuv420p"),
        ("a.y4m", "wrapped_avframe", "yuv420p"),
    ],
)  # fmt: skip
def test_containers(tmp_path, name, codec, pixels):
    images = moving(np.dstack([blobs(1)] * 3), 3)
    path = write_video(tmp_path / name, images, codec=codec, pixels=pixels)
    assert is_video(str(path))
    frames = frames_of(path, "rgb")
    assert [frame.image.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 3


def raw_avi(path, frames, code):
    """An AVI of numbers of 16 bits with the code of its codec, which FFmpeg does not know."""
    write_video(path, frames, 9, codec="rawvideo", source="gray16le", pixels="gray16le")
    content = bytearray(path.read_bytes())
    for place in (content.find(b"strf") + 24, content.find(b"vids") + 4):
        content[place : place + 4] = code
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("code", [b"Y16 ", b"Y14\0"])
@pytest.mark.parametrize("width", [WIDTH, WIDTH - 1])
def test_an_avi_of_16_bits_keeps_14_bit_thermal(tmp_path, code, width):
    image = blobs(3, width=width).astype(np.uint16) * 60 + 1000
    images = [image + number for number in range(4)]
    path = raw_avi(tmp_path / "a.avi", images, code)
    with Source(str(path), "thermal") as source:
        frames = list(source)
        assert (source.size, source.damaged) == ((HEIGHT, width), 0)
    for frame, expected in zip(frames, images, strict=True):
        np.testing.assert_array_equal(frame.image, expected)
    assert [round(frame.time * 9) for frame in frames] == [0, 1, 2, 3]


def test_a_cut_off_frame_of_16_bits_counts_as_damaged(tmp_path):
    path = raw_avi(tmp_path / "a.avi", [blobs(3).astype(np.uint16)] * 3, b"Y16 ")
    content = bytearray(path.read_bytes())
    place = content.find(b"strf") + 16
    content[place : place + 4] = (2 * HEIGHT + 1).to_bytes(4, "little")  # taller than its frames
    path.write_bytes(content)
    with Source(str(path), "thermal") as source:
        assert not list(source)
        assert source.damaged == 3


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_video_that_ends_early_is_known(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", moving(blobs(1, 3), 30), codec="mpeg4")
    with Source(str(path), "rgb") as source:
        assert len(list(source)) == 30
        assert source.cut_off is None
    if suffix == ".mp4":
        return  # its index is at the end: cut off, it cannot be opened
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with Source(str(path), "rgb") as source:
        count = len(list(source))
        assert 0 < count < 30
        assert source.cut_off == pytest.approx((count / 25, 30 / 25), abs=0.05)


def test_grey_numbers_that_an_avi_declares_to_be_colours_are_named(tmp_path):
    images = [np.dstack([blobs(0)] * 3)] * 2
    path = write_video(tmp_path / "a.avi", images, codec="rawvideo", pixels="rgb555le")
    content = blobs(3).astype(np.uint16).astype("<u2").tobytes()
    stored = bytearray(path.read_bytes())
    start = 0
    for _ in images:
        start = stored.index(len(content).to_bytes(4, "little"), stored.index(b"movi") + start) + 4
        stored[start : start + len(content)] = content
        start -= stored.index(b"movi")
    path.write_bytes(stored)
    with (
        Source(str(path), "thermal") as source,
        pytest.raises(InputError, match=r"a\.avi: declares its 16 bits per pixel to be colours \(RGB555\)"),
    ):
        list(source)


def test_codecs_without_a_decoder_are_named(tmp_path):
    images = [blobs(0).astype(np.uint16)] * 2
    path = raw_avi(tmp_path / "a.avi", images, b"QQ16")
    with pytest.raises(InputError, match=r"a\.avi: FFmpeg has no decoder for its codec 'QQ16'; export it"):
        Source(str(path), "thermal")
    path = write_video(tmp_path / "b.mp4", [np.dstack([blobs(0)] * 3)] * 2)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"))
    with pytest.raises(InputError, match=r"b\.mp4: FFmpeg has no decoder for its codec 'zzz1'; export it"):
        Source(str(path), "rgb")


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_ffv1_keeps_every_bit_in_each_container(tmp_path, suffix):
    images = moving(blobs(4).astype(np.uint16) * 257, 3)
    path = write_video(tmp_path / f"a{suffix}", images, codec="ffv1", source="gray16le", pixels="gray16le")
    for frame, expected in zip(frames_of(path, "thermal"), images, strict=True):
        np.testing.assert_array_equal(frame.image, expected)


@pytest.mark.parametrize("degrees", [-90, 90, 180, 0])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_videos_are_turned_upright(tmp_path, degrees, suffix):
    """Phones store a quarter turn beside the video: -90 degrees is a quarter clockwise."""
    image = blobs(5, 3)
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {"crf": "4"}
        stream.set_display_rotation(degrees)
        for frame in [av.VideoFrame.from_ndarray(image, format="rgb24")] * 2:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    expected = np.rot90(image, {-90: 3, 90: 1, 180: 2, 0: 0}[degrees])
    with Source(str(path), "rgb") as source:
        frames = list(source)
        assert source.size == expected.shape[:2]
    assert len(frames) == 2
    assert np.abs(frames[0].image.astype(int) - expected).mean() < 6


def test_a_cover_picture_is_not_the_video(tmp_path):
    video, path = moving(np.dstack([blobs(1)] * 3), 3), tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode())
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    with Source(str(path), "rgb") as source:
        assert source.size == (HEIGHT, WIDTH)
        assert len(list(source)) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_frame_rate_keeps_its_times(tmp_path, suffix):
    times = [0.0, 0.04, 0.2, 0.21, 1.0]
    images = moving(np.dstack([blobs(1)] * 3), len(times))
    path = write_video(tmp_path / f"a{suffix}", images, times=times)
    assert [frame.time for frame in frames_of(path, "rgb")] == pytest.approx(times, abs=2e-3)


class TestThermal:
    @pytest.mark.parametrize(
        ("pixels", "bits"), [("gray", 8), ("gray10le", 10), ("gray12le", 12), ("gray16le", 16)]
    )
    def test_grey_codecs_keep_every_bit(self, tmp_path, pixels, bits):
        dtype = np.uint8 if bits == 8 else np.uint16
        images = [
            np.random.default_rng(seed).integers(0, 1 << bits, (HEIGHT, WIDTH)).astype(dtype)
            for seed in range(3)
        ]
        path = write_video(tmp_path / "t.mkv", images, codec="ffv1", source=pixels, pixels=pixels)
        for frame, image in zip(frames_of(path, "thermal"), images, strict=True):
            assert frame.image.dtype == dtype
            np.testing.assert_array_equal(frame.image, image)

    def test_grey_stored_as_colour(self, tmp_path):
        image = blobs(2)
        path = write_video(tmp_path / "t.mp4", [image] * 3, source="gray")
        [frame, *_] = frames_of(path, "thermal")
        assert frame.image.shape == image.shape
        assert np.abs(frame.image.astype(int) - image).mean() < 2

    def test_false_colours_are_refused(self, tmp_path):
        path = write_video(tmp_path / "t.mp4", moving(blobs(1, 3), 3))
        with pytest.raises(InputError, match=r"t\.mp4: its three channels differ"):
            frames_of(path, "thermal")

    def test_false_colours_with_a_palette(self, tmp_path):
        """As for images: the reader keeps the colours, and the map gives their places."""
        heat = blobs(2)
        iron = decode_maps()["iron"]
        path = write_video(tmp_path / "t.mp4", [np.rint(iron.colors)[heat].astype(np.uint8)] * 2)
        with Source(str(path), "thermal", colors=True) as source:
            [frame, *_] = list(source)
        found = places(frame.image, "palette:iron", str(path)).values
        assert np.percentile(np.abs(found.astype(int) - heat), 90) <= 12


class TestTimes:
    def test_a_steady_rate(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", moving(blobs(1, 3), 5), Fraction(30000, 1001))
        with Source(str(path), "rgb") as source:
            assert source.rate == Fraction(30000, 1001)
            assert source.expected == 5
            assert source.size == (HEIGHT, WIDTH)
            assert not source.live
            assert [frame.time for frame in source] == pytest.approx(
                [n * 1.001 / 30 for n in range(5)], abs=1e-4
            )

    def test_the_two_clocks(self, tmp_path):
        stamps = [2.0, 2.1, 2.4, 2.45]
        path = write_video(tmp_path / "v.mkv", moving(blobs(1, 3), 4), 10, times=stamps)
        assert [frame.time for frame in frames_of(path, "rgb", "stamp")] == pytest.approx(stamps)
        assert [frame.time for frame in frames_of(path, "rgb")] == pytest.approx([0, 0.1, 0.4, 0.45])
        with pytest.raises(InputError, match="`clock` wall is unknown; choose start or stamp"):
            VideoOptions(clock="wall")


class TestFaults:
    def test_absent_file(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.mp4: cannot be opened as video"):
            Source(str(tmp_path / "none.mp4"), "rgb")

    def test_no_video_at_all(self, tmp_path):
        (tmp_path / "text.mp4").write_text("not a video")
        with pytest.raises(InputError, match=r"text\.mp4: cannot be opened as video"):
            Source(str(tmp_path / "text.mp4"), "rgb")

    def test_sound_alone(self, tmp_path):
        with av.open(str(tmp_path / "sound.mkv"), "w") as container:
            stream = container.add_stream("pcm_s16le", rate=8000)
            stream.layout = "mono"
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            sound.rate = 8000
            container.mux(stream.encode(sound))
            container.mux(stream.encode())
        with pytest.raises(InputError, match="holds no video stream"):
            Source(str(tmp_path / "sound.mkv"), "rgb")

    def test_a_cut_file_ends_early(self, tmp_path):
        path = write_video(tmp_path / "v.mkv", moving(blobs(1, 3), 30))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        assert 5 < len(frames_of(path, "rgb")) < 30


class TestReader:
    def test_all_frames_in_order(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", moving(blobs(1, 3), 20))
        reader = Reader(Source(str(path), "rgb"), ahead=2)
        assert [round(frame.time * 25) for frame in reader] == list(range(20))
        assert reader.dropped == 0
        reader.close()

    def test_closing_early_does_not_wait(self, tmp_path):
        reader = Reader(Source(str(write_video(tmp_path / "v.mp4", moving(blobs(1, 3), 20))), "rgb"), ahead=2)
        next(reader)
        reader.close()
        assert not reader._thread.is_alive()

    def test_faults_reach_whoever_reads(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", moving(blobs(1, 3), 3))
        reader = Reader(Source(str(path), "thermal"))
        with pytest.raises(InputError, match="three channels differ"):
            next(reader)
        reader.close()


class TestWriter:
    def test_what_players_need(self, tmp_path):
        path = tmp_path / "v.mp4"
        writer = VideoWriter(path, (33, 51), Fraction(25))
        for number, image in enumerate(moving(blobs(1, 3, 33, 51), 6)):
            writer.add(image, number / 25)
        writer.close()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height) == (52, 34)
            assert stream.average_rate == 25
        content = path.read_bytes()
        assert 0 < content.index(b"moov") < content.index(b"mdat"), "the index comes first"

    def test_colours_and_times_come_back(self, tmp_path):
        image = blobs(1, 3)
        writer = VideoWriter(tmp_path / "v.mp4", image.shape[:2], Fraction(25))
        for time in (0, 0.04, 0.2, 0.2, 0.6):
            writer.add(image, time)
        writer.close()
        times, frames = read_video(tmp_path / "v.mp4")
        assert times == pytest.approx([0, 0.04, 0.2, 0.2, 0.6], abs=1e-4)
        assert times[2] < times[3], "no two frames at one time"
        assert np.abs(frames[2].astype(int) - image).mean() < 6

    def test_a_stream_that_changes_its_size(self, tmp_path):
        writer = VideoWriter(tmp_path / "v.mp4", (64, 96), Fraction(25))
        writer.add(blobs(1, 3), 0)
        writer.add(blobs(1, 3, 32, 48), 0.04)
        writer.close()
        assert [frame.shape for frame in read_video(tmp_path / "v.mp4")[1]] == [(64, 96, 3)] * 2

    def test_other_suffixes(self, tmp_path):
        with pytest.raises(InputError, match=r"`out` .*v\.gif: give a video file, \.mp4, \.mkv, \.mov"):
            VideoWriter(tmp_path / "v.gif", (64, 96), Fraction(25))
