"""Short videos of moving blobs, and what is in a video."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

import efnet
from efnet.models.base import SegmentationModel

HEIGHT, WIDTH = 64, 96


def make_model(modality: str = "rgbt") -> SegmentationModel:
    """A small network with fixed weights."""
    torch.manual_seed(7)
    return efnet.create_model("efnet_tiny", num_classes=5, modality=modality)


def blobs(seed: int, channels: int | None = None, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth random blobs, uint8 (H, W) or (H, W, channels), that go on at their borders."""
    rng = np.random.default_rng(seed)
    shape = (4, 6) if channels is None else (4, 6, channels)
    small = np.tile(rng.integers(0, 256, shape, dtype=np.uint8), (2, 2) if channels is None else (2, 2, 1))
    large = Image.fromarray(small).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    return np.asarray(large)[:height, :width]


def moving(image: np.ndarray, count: int, step: int = 3) -> list[np.ndarray]:
    """The image, further right in every frame."""
    return [np.roll(image, step * number, axis=1) for number in range(count)]


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: float = 25,
    *,
    codec: str = "libx264",
    source: str = "rgb24",
    pixels: str = "yuv420p",
    times: list[float] | None = None,
) -> Path:
    """Write frames of the pixel format `source` as video of the format `pixels`."""
    frames = list(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if codec == "libx264":
            stream.options = {"crf": "4", "preset": "ultrafast"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_pair_of_videos(folder: Path, count: int = 8, thermal_rate: float = 9) -> tuple[Path, Path]:
    """A colour video at 25 frames per second and a thermal one, 16 bits, smaller, at another rate."""
    thermal = blobs(2, height=48, width=72).astype(np.uint16) * 20 + 7000
    thermal_count = round(count / 25 * thermal_rate) + 1
    return (
        write_video(folder / "rgb.mp4", moving(blobs(1, 3), count)),
        write_video(
            folder / "thermal.mkv",
            moving(thermal, thermal_count),
            thermal_rate,
            codec="ffv1",
            source="gray16le",
            pixels="gray16le",
        ),
    )


def read_video(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times and colour frames of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]
