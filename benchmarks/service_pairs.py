"""Pairs that can be told apart by their masks, and a small network that tells them apart."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import efnet
from efnet.inference.predictor import Predictor

SIZES = ((48, 64), (64, 48), (96, 128), (33, 71), (120, 160))


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair as the body of a request, and the mask that belongs to it, made without a service."""

    body: bytes
    index: NDArray[np.uint8]

    def likeness(self, index: NDArray[np.uint8]) -> float:
        """Share of pixels that a mask has in common with this pair's own."""
        return float((index == self.index).mean()) if index.shape == self.index.shape else 0.0


def save_network(folder: Path) -> None:
    """Write a small network; its weights are moved, since fresh ones give all pictures one class."""
    model = efnet.create_model("efnet_tiny", num_classes=9)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)


def make_pairs(folder: Path, count: int, boundary: str, unlike: float) -> list[Pair]:
    """Pairs of several sizes, no two of whose masks agree in more than `unlike` of their pixels."""
    predictor = Predictor.from_pretrained(folder, "cpu")
    pairs: list[Pair] = []
    seed = 0
    while len(pairs) < count:
        rgb, thermal = _blobs(seed, *SIZES[seed % len(SIZES)])
        pair = Pair(
            _body({"rgb": _png(rgb), "thermal": _png(thermal)}, boundary), predictor(rgb, thermal).index
        )
        seed += 1
        if all(other.likeness(pair.index) < unlike for other in pairs):
            pairs.append(pair)
        if seed > 20 * count + 100:
            raise SystemExit(f"the network tells only {len(pairs)} of {seed} pairs apart; ask for fewer")
    return pairs


def index_of_png(content: bytes) -> NDArray[np.uint8]:
    """The label map (H, W) of a palette PNG."""
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.uint8)


def _blobs(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
        for channel in range(4)
    ]
    return np.stack(smooth[:3], axis=-1), smooth[3]


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def _body(files: dict[str, bytes], boundary: str) -> bytes:
    body = b""
    for name, content in files.items():
        line = f'Content-Disposition: form-data; name="{name}"; filename="{name}.png"'
        body += f"--{boundary}\r\n{line}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()
