"""Pictures written as H.264 video that every player shows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.errors import InputError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

CONTAINERS = (".mp4", ".mkv", ".mov")

_TICKS = 90000
"""Time stamps per second: a whole number of them fits a frame at every usual rate."""

_BT709 = 1


class VideoWriter:
    """H.264, yuv420p, BT.709, the index in front (`faststart`), frames at their own times.

    Sides are made even by repeating the last row or column, as yuv420p asks. Close it, after an interrupt
    too: until then the file cannot be played.

    Args:
        path: `.mp4`, `.mkv` or `.mov`.
        size: (H, W) of the pictures.
        rate: frames per second, for what players and encoders plan by.

    Raises:
        InputError: another suffix, or a file that cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        import av

        check_container("--out", path)
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
        """Append a picture.

        Args:
            picture: (H, W, 3); brought to the size of the first if a stream changed its own.
            time: seconds; a time not after the last one is moved there.
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


def check_container(option: str, path: Path) -> None:
    """Refuse a file name that is no video's.

    Raises:
        InputError: its suffix is not in `CONTAINERS`.
    """
    if path.suffix.lower() not in CONTAINERS:
        raise InputError(f"{option} {path}: give a video file, {', '.join(CONTAINERS)}")
