"""A small network whose every part has a say, generated pairs as files, and a service in a process."""

from __future__ import annotations

import io
import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import efnet
from efnet.core.classes import ClassSet, spread_colors
from efnet.inference.predictor import Predictor
from efnet.models.base import SegmentationModel

NAMES = ("unlabeled", "car", "person", "bike", "curve")


def make_model(modality: str = "rgbt", size: tuple[int, int] | None = None) -> SegmentationModel:
    """One network in all tests. Its weights are moved: fresh ones give every picture the same class."""
    classes = ClassSet(NAMES, tuple(spread_colors(len(NAMES))))
    with torch.random.fork_rng():
        # In every process the same network: with another one a pixel may lie between two classes.
        torch.manual_seed(5)
        model = efnet.create_model("efnet_tiny", classes=classes, modality=modality)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.input = type(model.input)(size=size)
    return model


def make_predictor(modality: str = "rgbt", size: tuple[int, int] | None = None) -> Predictor:
    return Predictor(make_model(modality, size), device="cpu")


def make_pair(seed: int = 0, height: int = 48, width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Smooth blobs: rgb uint8 (H, W, 3), thermal uint8 (H, W)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC))
        for channel in range(4)
    ]
    return np.stack(smooth[:3], axis=-1), smooth[3]


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def files_of(seed: int = 0, **size: int) -> dict[str, bytes]:
    """A pair as the two files of a request."""
    rgb, thermal = make_pair(seed, **size)
    return {"rgb": encode(rgb), "thermal": encode(thermal)}


def index_of(answer: dict[str, Any]) -> np.ndarray:
    """The label map in an answer's runs."""
    flat = np.repeat(answer["runs"]["values"], answer["runs"]["lengths"])
    return flat.reshape(answer["size"]["height"], answer["size"]["width"]).astype(np.uint8)


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean()) if one.shape == other.shape else 0.0


def error_of(response: Any) -> tuple[int, str, str]:
    """Status, code and message; the body holds nothing else and no traceback."""
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"code", "message"}
    message = body["error"]["message"]
    assert message.endswith(".")
    assert "Traceback" not in message
    assert "\n" not in message
    return response.status_code, body["error"]["code"], message


class ServerProcess:
    """`efnet serve` as a user starts it, on a free port, and unable to write a single byte to any file."""

    def __init__(self, checkpoint: Path, *options: str) -> None:
        words = [sys.executable, "-m", "efnet", "serve", "--checkpoint", str(checkpoint), "--port", "0"]
        self.process = subprocess.Popen(
            [*words, "--device", "cpu", "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_forbid_files,
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        found = re.search(r"http://\S+/", first)
        if not found:
            raise RuntimeError(f"no server: {first}{self.process.communicate()[1]}")
        self.url = found[0]

    def end(self, sent: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; returns its exit status and what it wrote to stderr."""
        self.process.send_signal(sent)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def _forbid_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def metric(text: str, name: str) -> float:
    """The value of one sample of `/metrics`."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(json.loads(found[1]))
