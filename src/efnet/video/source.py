"""Frames of videos, streams and cameras: read ahead, matched in time, and checked for a frozen camera."""

from __future__ import annotations

import itertools
import os
import re
import struct
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.data.images import grey_of_three
from efnet.inference.inputs import VIDEO_SUFFIXES
from efnet.inference.missing_cameras import Camera

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


Clock = Literal["start", "stamp"]
"""Whether times count from a source's first frame, or are the container's or device's own stamps."""

DEVICES = "/dev/video"

_TIMEOUTS = (20.0, 5.0)
"""Seconds to open a stream and to wait for its next packet; a file needs neither."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame."""

    time: float  # in seconds
    image: NDArray[Any]  # colour uint8 (H, W, 3), or raw thermal uint8 or uint16 (H, W)


def is_video(where: str | None) -> bool:
    """Return whether a text names a video file, a stream (`rtsp://...`) or a camera (`/dev/video0`)."""
    if where is None:
        return False
    return where.lower().endswith(VIDEO_SUFFIXES) or "://" in where or where.startswith(DEVICES)


class Source:
    """A video opened for reading; iterate it once, and close it.

    It is a file, a URL that FFmpeg opens, or a Video4Linux device. Thermal video may be grey in 8 to 16 bits,
    or colour whose channels are equal; with `colors` its frames are colour, (H, W, 3). Videos are turned
    upright by their metadata; cover pictures are left out. `size` is (H, W), `rate` the frames per second of
    the container or 25, `live` true for a stream without an end, and `damaged` the number of packets that
    could not be decoded. Once all frames are read, `cut_off` is the seconds read and the seconds that the
    file states, if it ends early.

    Raises:
        InputError: PyAV is not installed, nothing there, or no video in it.
    """

    def __init__(self, where: str, camera: Camera, clock: Clock = "start", colors: bool = False) -> None:
        self.where = where
        self.camera: Camera = camera
        self.clock: Clock = clock
        self.damaged = 0
        self.cut_off: tuple[float, float] | None = None
        self._colors = colors or camera == "rgb"
        self._container = _open(where)
        stream = next((entry for entry in self._container.streams.video if not _is_cover(entry)), None)
        if stream is None:
            self._container.close()
            raise InputError(f"{where}: holds no video stream")
        self._wide: tuple[int, int] | None = None  # (H, W) of frames that are plain numbers of 16 bits
        if stream.codec_context is None:
            codec, size = stored_codec(where)
            if codec not in _WIDE_GREYS:
                self._container.close()
                fault = f"FFmpeg has no decoder for its codec{f' {codec!r}' if codec else ''}"
                raise InputError(f"{where}: {fault}; export it in another, such as FFV1, which keeps 16 bits")
            self._wide = size
        else:
            stream.thread_type = "AUTO"
            size = (stream.codec_context.height, stream.codec_context.width)
        self.size: tuple[int, int] = size
        self._stream: VideoStream = stream
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        file = os.path.isfile(where)  # noqa: PTH113 - it may be a URL
        self.live = not file and self._seconds() is None
        self._frames = self._decoded()
        if file:  # the first frame shows how the video is turned
            first = next(self._frames, None)
            if first is not None:
                self._frames = itertools.chain([first], self._frames)
                self.size = (size[1], size[0]) if _quarters(first) % 2 else size

    @property
    def expected(self) -> int | None:
        """The approximate number of frames; None for a live source."""
        seconds = self._seconds()
        if self._stream.frames:
            return int(self._stream.frames)
        return None if seconds is None else max(1, round(seconds * self.rate))

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order of time; raise an `InputError` for thermal video in false colours."""
        first: float | None = None
        begin: float | None = None
        last = -1.0 / float(self.rate)
        for frame in self._frames:
            stamp = frame.time
            if stamp is not None and self.clock == "start":
                first = stamp if first is None else first
                stamp -= first
            # A frame without a stamp, or with one that goes back, follows the one before.
            last = stamp if stamp is not None and stamp > last else last + 1.0 / float(self.rate)
            begin = last if begin is None else begin
            yield Frame(last, self._pixels(frame))
        stated = None if self.live or self._container.streams.audio else self._seconds()
        if stated is not None and begin is not None:
            read = last - begin + 1.0 / float(self.rate)
            self.cut_off = (read, stated) if read < _WHOLE * stated - 2.0 / float(self.rate) else None

    def close(self) -> None:
        """Close the file or camera."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
                if self._wide is None:
                    yield from packet.decode()
                elif packet.size:
                    yield _wide_frame(packet, self._wide)
            except (av.FFmpegError, ValueError):
                self.damaged += 1

    def _pixels(self, frame: VideoFrame) -> NDArray[Any]:
        name = frame.format.name
        if self.camera == "thermal" and name.startswith("gray") and not name.startswith("grayf"):
            image: NDArray[Any] = np.rot90(frame.to_ndarray(), _quarters(frame))
            return np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="), copy=False))
        colors = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        colors = np.ascontiguousarray(np.rot90(colors, _quarters(frame)))
        if self._colors:
            return colors
        try:
            return grey_of_three(colors, self.where)
        except InputError as error:
            if not name.startswith(("rgb555", "rgb565")):
                raise
            fault = "declares its 16 bits per pixel to be colours (RGB555); if they are grey numbers"
            remedy = "export it with the code 'Y16 ', or as FFV1 in MKV"
            raise InputError(f"{self.where}: {fault}, {remedy}") from error

    def _seconds(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        return None if self._container.duration is None else self._container.duration / 1e6


_WHOLE = 0.9
"""Share of the stated seconds below which a file is cut off; containers state them only nearly."""

_WIDE_GREYS = ("Y10", "Y12", "Y14", "Y16")
"""Codes of AVI files that thermal cameras write: grey numbers of two bytes, the lower first."""


def stored_codec(where: str) -> tuple[str, tuple[int, int]]:
    """Return the code of a video's codec, and for an AVI its size (H, W); empty if neither is found."""
    try:
        with open(where, "rb") as file:
            head = file.read(_SEARCHED)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SEARCHED))
            content = head + file.read(_SEARCHED)
    except OSError:
        return "", (0, 0)
    place = head.find(b"strf", head.find(b"vids"))
    if head.startswith(b"RIFF") and 0 < place < len(head) - 28:
        width, height = struct.unpack_from("<2i", head, place + 12)
        return _word(head[place + 24 : place + 28]), (abs(height), width)
    # MP4 and MOV name it in the description of samples of a video track, Matroska as V_NAME.
    match = re.search(rb"vide.*?stsd.{12}(.{4})|(V_[A-Z0-9_/]{3,30})", content, re.DOTALL)
    return ("", (0, 0)) if match is None else (_word(match[1] or match[2]), (0, 0))


_SEARCHED = 1 << 20


def _word(code: bytes) -> str:
    return code.decode("ascii", "replace").strip(" \0")


def _is_cover(stream: VideoStream) -> bool:
    """Whether a stream is a picture that goes with the file, which players show in lists."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def _quarters(frame: VideoFrame) -> int:
    """Quarter turns, against the clock, that bring a frame upright: phones store them beside the video."""
    return round(frame.rotation / 90) % 4


def _wide_frame(packet: Packet[Any], size: tuple[int, int]) -> VideoFrame:
    """Return the frame of a packet of plain numbers; a ValueError if it has too few."""
    from av.video.frame import VideoFrame

    content = np.frombuffer(bytes(packet), dtype="<u2")
    row = content.size // size[0] if content.size % size[0] == 0 else size[1]  # rows may be padded
    if row < size[1]:
        raise ValueError("is cut off")
    pixels = content[: size[0] * row].reshape(size[0], row)[:, : size[1]]
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="gray16le")
    frame.pts = packet.pts
    if packet.time_base is not None:
        frame.time_base = packet.time_base
    return frame


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

    A file waits for its reader. A live source does not: when it is ahead, its oldest frames are dropped, and
    counted as `dropped`. Closing the reader closes the source.
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
        """Wait for the next frame; raise an `InputError` of the source after the frames before it."""
        with self._change:
            while not self._frames and not self._finished:
                self._change.wait(0.2)  # Ctrl-C is handled between two waits
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
        except Exception as fault:  # raised again by `__next__`
            self._fault = fault
        finally:
            with self._change:
                self._finished = True
                self._change.notify_all()

    def _put(self, frame: Frame) -> bool:
        """Add a frame to the queue; return False if the reader was closed."""
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


@dataclass(frozen=True, eq=False)
class Moment:
    """The frames of both cameras at one time. The colour frame leads, or the thermal one without colour."""

    number: int  # of the leading frame, from 0
    time: float  # of the leading frame, in seconds
    rgb: Frame | None  # None without such a camera
    thermal: Frame | None  # the nearest in time; None without one within the bound or without such a camera


def match(
    rgb: Iterable[Frame] | None, thermal: Iterable[Frame] | None, offset: float = 0.0, max_gap: float = 0.1
) -> Iterator[Moment]:
    """Give every colour frame the thermal frame nearest in time.

    Frames come in the order of their times; thermal frames lead if `rgb` is None. A thermal frame may serve
    several colour frames (a slower camera) or none (a faster one). Only two thermal frames are held at once.
    `offset` seconds are added to thermal times. Beyond `max_gap` seconds a colour frame has no partner.
    """
    if rgb is None:
        for number, frame in enumerate(thermal or ()):
            yield Moment(number, frame.time, None, frame)
        return
    waiting = iter(thermal or ())
    before: Frame | None = None
    after = next(waiting, None)
    for number, frame in enumerate(rgb):
        while after is not None and after.time + offset <= frame.time:
            before, after = after, next(waiting, None)
        near = [other for other in (before, after) if other is not None]
        partner = min(near, key=lambda other: abs(other.time + offset - frame.time), default=None)
        # A thousandth more: time stamps are rounded to the containers' ticks.
        if partner is not None and abs(partner.time + offset - frame.time) > max_gap + 1e-3:
            partner = None
        yield Moment(number, frame.time, frame, partner)


FREEZE_SECONDS = 2.0
"""How long a picture stands still before it counts as frozen: thermal shutters take less than a second."""

STILL_STEPS = 0.5
"""Greatest mean difference of a still picture, in steps of 255 of its range; sensor noise alone is more."""

MOVED_STEPS = 2.0
"""Least mean difference of the other camera's picture meanwhile; else the scene itself may stand still."""

_EVERY = 4


class FrozenWatch:
    """Finds which of two cameras is frozen, from pictures that come in the order of their times."""

    def __init__(self) -> None:
        self._anchors: dict[Camera, tuple[float, dict[Camera, NDArray[np.float32]]]] = {}

    def update(self, time: float, images: dict[Camera, NDArray[Any]]) -> set[Camera]:
        """Return the cameras that are frozen at `time` in seconds.

        Images are colour uint8 (H, W, 3) and raw thermal (H, W); one camera alone never counts as frozen.
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
    """Return every fourth pixel of every fourth row, one channel, in steps of 255 of 8 bits or its range."""
    small = image[::_EVERY, ::_EVERY]
    if small.ndim == 3:
        small = small[..., 1]
    small = small.astype(np.float32)
    if image.dtype != np.uint8:
        low, high = np.percentile(small, (1, 99))
        small = small * np.float32(255 / max(float(high - low), 1.0))
    return small


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the mean absolute difference; infinite for different sizes."""
    return float(np.abs(one - other).mean()) if one.shape == other.shape else float("inf")
