"""Frames of a video file, a network stream or a camera, each with its time.

A source read ahead in a thread, so that decoding and the network work at the same time.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError, one_of
from efnet.data.images import grey_of_three
from efnet.inference.inputs import VIDEO_SUFFIXES
from efnet.inference.missing_cameras import Camera

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


Clock = Literal["start", "stamp"]
"""Whether times count from a source's first frame, or are the container's or device's own stamps."""

DEVICES = "/dev/video"

_TIMEOUTS = (20.0, 5.0)
"""Seconds to open a stream and to wait for its next packet; a file needs neither."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        time: in seconds.
        image: colour uint8 (H, W, 3), or raw thermal uint8 or uint16 (H, W).
    """

    time: float
    image: NDArray[Any]


def is_video(where: str | None) -> bool:
    """Whether an option names a video file, a stream (`rtsp://...`) or a camera (`/dev/video0`)."""
    if where is None:
        return False
    return where.lower().endswith(VIDEO_SUFFIXES) or "://" in where or where.startswith(DEVICES)


def check_clock(clock: str) -> Clock:
    """The clock of that name.

    Raises:
        InputError: there is none.
    """
    known: tuple[Clock, ...] = get_args(Clock)
    return one_of(clock, known, f"--clock {clock} is unknown; choose")


class Source:
    """A video opened for reading; iterate it once, and close it.

    Thermal video is read as what it is: grey in 8 to 16 bits as stored, or colour that is grey in truth.

    Args:
        where: a file, a URL that FFmpeg opens, or a Video4Linux device.
        camera: what it shows.
        clock: see `Clock`.

    Attributes:
        size: (H, W).
        rate: frames per second, as the container says; 25 where it does not.
        live: whether frames come when they come: a stream without an end.
        damaged: packets that could not be decoded so far.

    Raises:
        InputError: PyAV is not installed, nothing there, or no video in it.
    """

    def __init__(self, where: str, camera: Camera, clock: Clock = "start") -> None:
        self.where = where
        self.camera: Camera = camera
        self.clock: Clock = clock
        self.damaged = 0
        self._container = _open(where)
        stream = next(iter(self._container.streams.video), None)
        if stream is None:
            self._container.close()
            raise InputError(f"{where}: holds no video stream")
        stream.thread_type = "AUTO"
        self._stream: VideoStream = stream
        self.size = (stream.codec_context.height, stream.codec_context.width)
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.live = not os.path.isfile(where) and self._seconds() is None  # noqa: PTH113 - a URL is no path

    @property
    def expected(self) -> int | None:
        """About how many frames it has; None for a live one."""
        seconds = self._seconds()
        if self._stream.frames:
            return int(self._stream.frames)
        return None if seconds is None else max(1, round(seconds * self.rate))

    def __iter__(self) -> Iterator[Frame]:
        """The frames in the order of their times.

        Raises:
            InputError: a thermal video in false colours.
        """
        first: float | None = None
        last = -1.0 / float(self.rate)
        for frame in self._decoded():
            stamp = frame.time
            if stamp is not None and self.clock == "start":
                first = stamp if first is None else first
                stamp -= first
            # Without a stamp, or with one that goes back: a frame after the one before.
            last = stamp if stamp is not None and stamp > last else last + 1.0 / float(self.rate)
            yield Frame(last, self._pixels(frame))

    def close(self) -> None:
        """Let the file or camera go."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decoded(self) -> Iterator[VideoFrame]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.EOFError):
                return
            except av.FFmpegError:  # a damaged file or a lost stream ends here
                self.damaged += 1
                return
            try:
                yield from packet.decode()
            except av.FFmpegError:
                self.damaged += 1

    def _pixels(self, frame: VideoFrame) -> NDArray[Any]:
        name = frame.format.name
        if self.camera == "thermal" and name.startswith("gray") and not name.startswith("grayf"):
            image: NDArray[Any] = frame.to_ndarray()
            return image.astype(image.dtype.newbyteorder("="), copy=False)
        colors = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        return colors if self.camera == "rgb" else grey_of_three(colors, self.where)

    def _seconds(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / 1e6


def _open(where: str) -> InputContainer:
    try:
        import av
    except ImportError as error:
        raise InputError('video needs PyAV, which is not installed: pip install "efnet[video]"') from error
    device = where.startswith(DEVICES)
    try:
        if device or "://" in where:
            return av.open(where, format="v4l2" if device else None, timeout=_TIMEOUTS)
        return av.open(where)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{where}: cannot be opened as video ({reason}); check the file or address"
        ) from error


class Reader(Iterator[Frame]):
    """Frames of a source, a few of them decoded ahead; memory does not grow with the video.

    A file waits for its reader. A live source does not: when it is ahead, its oldest frames are dropped.

    Args:
        source: closed when the reader is.
        ahead: frames kept ready.

    Attributes:
        dropped: frames of a live source that came too fast.
    """

    def __init__(self, source: Source, ahead: int = 4) -> None:
        self.source = source
        self.dropped = 0
        self._ahead = ahead
        self._frames: deque[Frame] = deque()
        self._change = threading.Condition()
        self._finished = False
        self._stopped = False
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="efnet-video", daemon=True)
        self._thread.start()

    def __next__(self) -> Frame:
        """The next frame; waits for it.

        Raises:
            InputError: what the source raised, after the frames before it.
        """
        with self._change:
            while not self._frames and not self._finished:
                self._change.wait(0.2)  # not for ever: Ctrl-C is heard between two waits
            if self._frames:
                self._change.notify_all()
                return self._frames.popleft()
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        raise StopIteration

    def close(self) -> None:
        """Stop reading and close the source."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        # A live source that hangs is left to its thread, which ends with the process.
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self.source.close()

    def _read(self) -> None:
        try:
            for frame in self.source:
                if not self._put(frame):
                    return
        except Exception as fault:  # handed to whoever asks for the next frame
            self._fault = fault
        finally:
            with self._change:
                self._finished = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Make a frame ready; False: nobody wants any more."""
        with self._change:
            while len(self._frames) >= self._ahead and not self._stopped:
                if self.source.live:
                    self._frames.popleft()
                    self.dropped += 1
                else:
                    self._change.wait()
            self._frames.append(frame)
            self._change.notify_all()
            return not self._stopped
