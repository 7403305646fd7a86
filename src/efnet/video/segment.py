"""A camera that goes on sending one and the same picture.

Two videos through one predictor, frame by frame, to one video; memory does not grow with their length.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.core.files import replacing, write_image
from efnet.inference.missing_cameras import NOT_GIVEN, Camera
from efnet.inference.postprocess import Prediction
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import Prepared
from efnet.inference.stream import run_in_memory
from efnet.video.matching import Moment, match
from efnet.video.options import VideoOptions, VideoSummary, compose
from efnet.video.source import Reader, Source
from efnet.video.writer import VideoWriter, check_container

FREEZE_SECONDS = 2.0
"""How long a picture stands still before it counts as frozen: thermal shutters take less than a second."""

STILL_STEPS = 0.5
"""Greatest mean difference of a still picture, in steps of 255 of its range; sensor noise alone is more."""

MOVED_STEPS = 2.0
"""Least mean difference of the other camera's picture meanwhile; else the scene itself may stand still."""

_EVERY = 4


class FrozenWatch:
    """Tells which of two cameras is frozen, from pictures that come in the order of their times."""

    def __init__(self) -> None:
        self._anchors: dict[Camera, tuple[float, dict[Camera, NDArray[np.float32]]]] = {}

    def update(self, time: float, images: dict[Camera, NDArray[Any]]) -> set[Camera]:
        """The cameras that are frozen at `time`.

        Args:
            time: in seconds.
            images: colour uint8 (H, W, 3), raw thermal (H, W); one camera alone is never called frozen.
        """
        if len(images) < 2:
            self._anchors.clear()
            return set()
        now = {camera: _sketch(image) for camera, image in images.items()}
        frozen: set[Camera] = set()
        for camera in now:
            other: Camera = "thermal" if camera == "rgb" else "rgb"
            since, first = self._anchors.get(camera, (time, now))
            if _difference(first[camera], now[camera]) > STILL_STEPS:
                since, first = time, now
            self._anchors[camera] = (since, first)
            moved = _difference(first[other], now[other]) > MOVED_STEPS
            if time - since >= FREEZE_SECONDS and moved:
                frozen.add(camera)
        return frozen


def _sketch(image: NDArray[Any]) -> NDArray[np.float32]:
    """Every fourth pixel of every fourth row, one channel, in steps of 255 of 8 bits or of its own range."""
    small = image[::_EVERY, ::_EVERY]
    if small.ndim == 3:
        small = small[..., 1]
    small = small.astype(np.float32)
    if image.dtype != np.uint8:
        low, high = np.percentile(small, (1, 99))
        small = small * np.float32(255 / max(float(high - low), 1.0))
    return small


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean absolute difference; endless where the sizes differ."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else float("inf")


Progress = Callable[[int, int | None], None]
"""Called with the frames done and about how many there are; None: without end."""

Tell = Callable[[str], None]
"""Called with a line for the user."""

RECORD = "frames.jsonl"
"""File beside the maps: a line for each frame, with its times and the cameras that showed nothing."""

_FORGET = 1.0
"""Seconds without a frame after which smoothing starts anew."""


def predict_video(
    predictor: Predictor,
    rgb: str | None,
    thermal: str | None,
    out: Path,
    options: VideoOptions | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> VideoSummary:
    """Segment a video, or a pair of them, and write the result as one video.

    Args:
        predictor: the model, with its tiling, homography and policy for dead cameras.
        rgb: colour video, URL or device; None for thermal alone.
        thermal: likewise; None for colour alone. A model of both sees grey in the place of an absent one.
        out: `.mp4`, `.mkv` or `.mov`; written under a temporary name, and kept on Ctrl-C.
        options: see there.
        progress: told how far it is, after every frame.
        tell: told once of each camera that shows nothing.

    Returns:
        the summary; on Ctrl-C, up to there.

    Raises:
        InputError: a source cannot be opened or holds no frame, or a frame cannot be predicted.
    """
    options = options or VideoOptions()
    check_container("--out", out)
    with contextlib.ExitStack() as stack:
        readers: dict[Camera, Reader] = {}
        cameras: tuple[tuple[Camera, str | None], ...] = (("rgb", rgb), ("thermal", thermal))
        for camera, where in cameras:
            if where is not None and predictor.modality in ("rgbt", camera):
                readers[camera] = Reader(Source(where, camera, options.clock))
                stack.callback(readers[camera].close)
        if not readers:
            raise InputError("nothing to predict: give --rgb, --thermal, or both")
        return _Run(predictor, readers, out, options, progress, tell).run()


class _Run:
    """One video on its way."""

    def __init__(
        self,
        predictor: Predictor,
        readers: dict[Camera, Reader],
        out: Path,
        options: VideoOptions,
        progress: Progress | None,
        tell: Tell | None,
    ) -> None:
        self.predictor = predictor
        self.readers = readers
        self.out = out
        self.options = options
        self.progress = progress
        self.tell = tell
        self.leader = next(iter(readers.values())).source
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
        return self.summary

    def _write(self) -> None:
        with replacing(self.out) as temporary:
            writer: VideoWriter | None = None
            try:
                for moment, prepared, prediction in self._predictions():
                    picture = compose(prediction, prepared, self.options.style, self.options.opacity)
                    if writer is None:
                        size = (picture.shape[0], picture.shape[1])
                        writer = VideoWriter(temporary, size, Fraction(self.leader.rate))
                    writer.add(picture, moment.time)
                    self._finish(moment, prepared, prediction)
            except KeyboardInterrupt:
                self.summary.interrupted = True
                if writer is None:
                    raise
            finally:
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
        new = self.summary.count(dict(prepared.missing))
        if self.tell is not None:
            for camera in new:
                reason = prepared.missing[camera]
                self.tell(
                    f"warning: frame {moment.number} ({moment.time:.2f} s): {camera} is {reason}, here and "
                    "in others like it (--missing error stops at them)"
                )
        if self.progress is not None:
            self.progress(self.summary.frames, self.leader.expected)

    def _predictions(self) -> Iterator[tuple[Moment, Prepared, Prediction]]:
        moments = match(
            self.readers.get("rgb"), self.readers.get("thermal"), self.options.offset, self._max_gap()
        )
        smooth = self.options.smooth > 0
        while batch := list(islice(moments, self.options.batch_size)):
            prepared = [self._prepare(moment) for moment in batch]
            predictions = run_in_memory(self.predictor, prepared, smooth)
            for moment, pair, prediction in zip(batch, prepared, predictions, strict=True):
                yield moment, pair, self._smoothed(prediction, moment.time) if smooth else prediction

    def _max_gap(self) -> float:
        if self.options.max_gap is not None or "thermal" not in self.readers:
            return self.options.max_gap or 0.0
        return 1.0 / float(self.readers["thermal"].source.rate)

    def _prepare(self, moment: Moment) -> Prepared:
        """The pair of a moment, a missing or frozen camera replaced by grey."""
        images: dict[Camera, NDArray[Any]] = {}
        if moment.rgb is not None:
            images["rgb"] = moment.rgb.image
        if moment.thermal is not None:
            images["thermal"] = moment.thermal.image
        absent: dict[Camera, str] = {}
        if self.predictor.modality == "rgbt":
            for camera in ("rgb", "thermal"):
                if camera not in images:
                    unmatched = camera in self.readers
                    absent[camera] = "without a frame near in time" if unmatched else NOT_GIVEN
            if self.predictor.missing != "ignore":
                absent |= dict.fromkeys(self._watch.update(moment.time, images), "frozen")
        try:
            return self.predictor.prepare(images.get("rgb"), images.get("thermal"), absent)
        except InputError as error:
            raise InputError(
                f"{self.leader.where}: frame {moment.number} ({moment.time:.2f} s): {error}"
            ) from error

    def _smoothed(self, prediction: Prediction, at: float) -> Prediction:
        """The prediction from the exponential mean of the frames' probabilities."""
        now = prediction.probabilities
        assert now is not None
        if self._mean is None or self._mean.shape != now.shape or at - self._time > _FORGET:
            self._mean = now
        else:
            self._mean = self._mean + np.float32(1 - self.options.smooth) * (now - self._mean)
        self._time = at
        index = self._mean.argmax(axis=0).astype(np.uint8)
        return Prediction(index=index, classes=prediction.classes, probabilities=self._mean)
