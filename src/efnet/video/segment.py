"""Two videos through one predictor, frame by frame, to one video; memory does not grow with their length."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.errors import InputError, one_of
from efnet.core.files import replacing, write_image
from efnet.data.false_color import is_palette
from efnet.inference.missing_cameras import NOT_GIVEN, Camera
from efnet.inference.postprocess import Prediction, thermal_pixels
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared, resize
from efnet.inference.stream import run_in_memory
from efnet.video.source import Clock, Frame, FrozenWatch, Moment, Reader, Source, match

if TYPE_CHECKING:
    from av.video.stream import VideoStream

VideoStyle = Literal["overlay", "map", "side-by-side"]
"""Class colours over the image; class colours alone; or image, thermal as the network saw it, and overlay."""


@dataclass(frozen=True)
class VideoOptions:
    """Options of matching, smoothing and drawing videos; a wrong value raises an `InputError`."""

    style: VideoStyle = "overlay"
    opacity: float = 0.5  # of the class colours in the overlay, 0..1
    smooth: float = 0.0  # weight of the past in the exponential mean of probabilities, 0 (none) to below 1
    offset: float = 0.0  # seconds added to thermal times
    max_gap: float | None = None  # greatest time difference of a pair, seconds; None: one thermal frame
    clock: Clock = "start"
    maps: Path | None = None  # folder for an index PNG of each frame (`000000.png`, ...); None: none
    batch_size: int = 1  # frames in one pass of the network

    def __post_init__(self) -> None:
        one_of(self.style, get_args(VideoStyle), f"`style` {self.style} is unknown; choose")
        one_of(self.clock, get_args(Clock), f"`clock` {self.clock} is unknown; choose")
        if not 0.0 <= self.smooth < 1.0:
            raise InputError(f"`smooth` {self.smooth}: give a number from 0 to below 1")
        if self.max_gap is not None and self.max_gap < 0:
            raise InputError(f"`max_gap` {self.max_gap}: give seconds, 0 or more")
        if self.batch_size < 1:
            raise InputError(f"`batch_size` {self.batch_size} is below 1")


@dataclass
class VideoSummary:
    """The outcome of a video."""

    frames: int = 0  # frames written
    seconds: float = 0.0  # time taken
    missing: dict[Camera, Counter[str]] = field(default_factory=dict)  # frames without content, by reason
    dropped: int = 0  # frames of live sources that the network was too slow for
    damaged: int = 0  # packets that could not be decoded
    interrupted: bool = False  # by Ctrl-C; the file is whole up to there

    def count(self, missing: Mapping[Camera, str]) -> list[Camera]:
        """Add a frame; return the cameras that show nothing for the first time."""
        self.frames += 1
        new = [
            camera for camera, reason in missing.items() if camera not in self.missing and reason != NOT_GIVEN
        ]
        for camera, reason in missing.items():
            self.missing.setdefault(camera, Counter())[reason.split(" (")[0]] += 1
        return new


Progress = Callable[[int, int | None], None]
Warn = Callable[[str], None]

RECORD = "frames.jsonl"
"""File beside the maps: a line for each frame, with its times and the cameras that showed nothing."""

_FORGET = 1.0
"""Seconds without a frame after which smoothing starts anew."""

_FRAMES_AHEAD = 2
"""Predicted frames that wait to be drawn and encoded."""

CONTAINERS = (".mp4", ".mkv", ".mov")

_TICKS = 90000
"""Time stamps per second: a whole number of them fits a frame at every usual rate."""

_BT709 = 1


class VideoWriter:
    """H.264, yuv420p, BT.709, the index in front (`faststart`), frames at their own times.

    Sides are made even by repeating the last row or column, as yuv420p asks. Close it, after an interrupt
    too: until then the file cannot be played. The rate is nominal, for players and encoders.

    Raises:
        InputError: another suffix, or a file that cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        import av

        check_container(path)
        self.path = path
        self.size = size
        self._last = -1
        try:
            self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
            stream: VideoStream = self._container.add_stream(
                "libx264", rate=rate, options={"crf": "20", "preset": "fast"}
            )
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{path}: video cannot be written there ({error})") from error
        stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.color_range = 1  # limited
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._stream = stream

    def add(self, picture: NDArray[np.uint8], time: float) -> None:
        """Append a picture (H, W, 3), resized to the first one's size, at a time in seconds.

        A time not after the last one is moved there.
        """
        import av

        if picture.shape[:2] != self.size:
            resized = Image.fromarray(picture).resize(self.size[::-1], Image.Resampling.BILINEAR)
            picture = np.asarray(resized)
        even = np.pad(picture, ((0, self.size[0] % 2), (0, self.size[1] % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        self._last = max(self._last + 1, round(time * _TICKS))
        frame.pts = self._last
        frame.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        self._container.mux(self._stream.encode())
        self._container.close()


def check_container(path: Path) -> None:
    """Raise an `InputError` for a suffix that is not in `CONTAINERS`."""
    if path.suffix.lower() not in CONTAINERS:
        raise InputError(f"`out` {path}: give a video file, {', '.join(CONTAINERS)}")


def predict_video(
    predictor: Predictor,
    rgb: str | None,
    thermal: str | None,
    out: Path,
    options: VideoOptions | None = None,
    progress: Progress = lambda done, total: None,
    warn: Warn = lambda line: None,
) -> VideoSummary:
    """Segment a video, or a pair of them, and write the result as one video.

    Args:
        predictor: with its tiling, homography and policy for dead cameras.
        rgb: colour video, URL or device; None for thermal alone.
        thermal: likewise; None for colour alone. A model of both sees grey in place of an absent one.
        out: `.mp4`, `.mkv` or `.mov`; written under a temporary name, and kept on Ctrl-C.
        options: matching, smoothing and drawing.
        progress: called with the frames done and about how many there are, None without end.
        warn: called once with a line on each camera that shows nothing.

    Raises:
        InputError: a source cannot be opened or holds no frame, or a frame cannot be predicted.
    """
    options = options or VideoOptions()
    check_container(out)
    with contextlib.ExitStack() as stack:
        readers: dict[Camera, Reader] = {}
        cameras: tuple[tuple[Camera, str | None], ...] = (("rgb", rgb), ("thermal", thermal))
        for camera, where in cameras:
            if where is not None and predictor.modality in ("rgbt", camera):
                readers[camera] = Reader(
                    Source(where, camera, options.clock, is_palette(predictor.thermal_scale))
                )
                stack.callback(readers[camera].close)
        if not readers:
            raise InputError("nothing to predict: give `rgb`, `thermal`, or both")
        return _Run(predictor, readers, out, options, progress, warn).run()


@dataclass(eq=False)
class _Run:
    """One video during its prediction."""

    predictor: Predictor
    readers: dict[Camera, Reader]
    out: Path
    options: VideoOptions
    progress: Progress
    warn: Warn

    def __post_init__(self) -> None:
        self.leader = next(iter(self.readers.values())).source
        self.summary = VideoSummary()
        self._watch = FrozenWatch()
        self._mean: NDArray[np.float32] | None = None
        self._time = -float("inf")
        self._record: TextIO | None = None

    def run(self) -> VideoSummary:
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            if self.options.maps is not None:
                self.options.maps.mkdir(parents=True, exist_ok=True)
                record = self.options.maps / RECORD
                self._record = stack.enter_context(record.open("w", encoding="utf-8"))
            self._write()
        self.summary.seconds = time.perf_counter() - started
        self.summary.dropped = sum(reader.dropped for reader in self.readers.values())
        self.summary.damaged = sum(reader.source.damaged for reader in self.readers.values())
        for reader in self.readers.values():
            if reader.source.cut_off is not None:
                read, stated = reader.source.cut_off
                fault = f"ends after {read:.2f} of {stated:.2f} s, so it is cut off or damaged"
                self.warn(f"{reader.source.where}: {fault}")
        return self.summary

    def _write(self) -> None:
        with replacing(self.out) as temporary:
            writer: VideoWriter | None = None

            def finish(moment: Moment, prepared: Prepared, prediction: Prediction) -> None:
                nonlocal writer
                picture = compose(prediction, prepared, self.options.style, self.options.opacity)
                if writer is None:
                    size = (picture.shape[0], picture.shape[1])
                    writer = VideoWriter(temporary, size, Fraction(self.leader.rate))
                writer.add(picture, moment.time)
                self._finish(moment, prepared, prediction)

            # One thread draws and encodes in the order of the frames, while the network runs on the next.
            pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="efnet-video")
            waiting: deque[Future[None]] = deque()
            try:
                for found in self._predictions():
                    waiting.append(pool.submit(finish, *found))
                    while len(waiting) > _FRAMES_AHEAD:
                        waiting.popleft().result()
                for done in waiting:
                    done.result()
            except KeyboardInterrupt:
                self.summary.interrupted = True
                pool.shutdown()  # what is predicted already is written
                if writer is None:
                    raise
            finally:
                pool.shutdown()
                if writer is not None:
                    writer.close()
            if writer is None:
                raise InputError(f"{self.leader.where}: holds no frame that can be decoded")

    def _finish(self, moment: Moment, prepared: Prepared, prediction: Prediction) -> None:
        if self.options.maps is not None:
            write_image(self.options.maps / f"{moment.number:06d}.png", prediction.indexed())
        if self._record is not None:
            line = {
                "frame": moment.number,
                "time": round(moment.time, 6),
                "thermal_time": None if moment.thermal is None else round(moment.thermal.time, 6),
                "missing": dict(prepared.missing),
            }
            self._record.write(json.dumps(line) + "\n")
        for camera in self.summary.count(prepared.missing):
            at = f"frame {moment.number} ({moment.time:.2f} s)"
            self.warn(f"{at}: {camera} is {prepared.missing[camera]}, here and in others like it")
        self.progress(self.summary.frames, self.leader.expected)

    def _predictions(self) -> Iterator[tuple[Moment, Prepared, Prediction]]:
        rgb, thermal = self.readers.get("rgb"), self.readers.get("thermal")
        max_gap = self.options.max_gap
        if max_gap is None:
            max_gap = 0.0 if thermal is None else 1.0 / float(thermal.source.rate)
        moments = match(rgb, thermal, self.options.offset, max_gap)
        smooth = self.options.smooth > 0
        while batch := list(islice(moments, self.options.batch_size)):
            prepared = [self._prepare(moment) for moment in batch]
            predictions = run_in_memory(self.predictor, prepared, smooth)
            for moment, pair, prediction in zip(batch, prepared, predictions, strict=True):
                yield moment, pair, self._smoothed(prediction, moment.time) if smooth else prediction

    def _prepare(self, moment: Moment) -> Prepared:
        """Return the pair of a moment, a missing or frozen camera replaced with grey."""
        frames: dict[Camera, Frame | None] = {"rgb": moment.rgb, "thermal": moment.thermal}
        images = {camera: frame.image for camera, frame in frames.items() if frame is not None}
        absent: dict[Camera, str] = {}
        if self.predictor.modality == "rgbt":
            unmatched = "without a frame near in time"
            for camera in (camera for camera in frames if camera not in images):
                absent[camera] = unmatched if camera in self.readers else NOT_GIVEN
            if self.predictor.missing != "ignore":
                absent |= dict.fromkeys(self._watch.update(moment.time, images), "frozen")
        try:
            return self.predictor.prepare(images.get("rgb"), images.get("thermal"), absent)
        except InputError as error:
            raise InputError(
                f"{self.leader.where}: frame {moment.number} ({moment.time:.2f} s): {error}"
            ) from error

    def _smoothed(self, prediction: Prediction, at: float) -> Prediction:
        """Return the prediction from the exponential mean of the frames' probabilities."""
        now = prediction.probabilities
        assert now is not None
        if self._mean is None or self._mean.shape != now.shape or at - self._time > _FORGET:
            self._mean = now
        else:
            self._mean = self._mean + np.float32(1 - self.options.smooth) * (now - self._mean)
        self._time = at
        index = self._mean.argmax(axis=0).astype(np.uint8)
        return Prediction(index=index, classes=prediction.classes, probabilities=self._mean)


def compose(
    prediction: Prediction, prepared: Prepared, style: VideoStyle, opacity: float
) -> NDArray[np.uint8]:
    """Draw the prediction of a pair, uint8 (H, W, 3), or (H, 2W or 3W, 3) side by side."""
    if style == "map":
        return prediction.classes.colorize(prediction.index)
    overlay = np.asarray(prediction.overlay(prepared.original, opacity))
    if style == "overlay":
        return overlay
    panels = [prepared.original, overlay]
    if prepared.rgb is not None and prepared.thermal is not None:
        panels.insert(1, thermal_pixels(resize(prepared.thermal, prepared.size)))
    return np.concatenate(panels, axis=1)
