"""What reads files, each with a small file that it can read: for the fuzzers of this folder."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser
from PIL import Image
from safetensors.torch import save

from efnet.alignment.homography import Homography
from efnet.cli.train import add_arguments, parse
from efnet.core.errors import InputError
from efnet.core.journal import read_journal
from efnet.data.archive import scan_tar
from efnet.data.images import read_rgb, read_thermal
from efnet.data.labels import read_label
from efnet.data.layouts.folders import Description
from efnet.data.layouts.listing import read_list
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.inference.resume import kept_record
from efnet.models.base import read_config
from efnet.models.weights import read_state_dict
from efnet.training.state import Progress, load_state

Reader = Callable[[Path], object]


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16)).save(buffer, kind)
    return buffer.getvalue()


def torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def tar_file() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("00001D.rgb.png", "00001D.thermal.png", f"{'é' * 60}.label.png"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


def homography() -> bytes:
    return json.dumps(Homography.stretched((48, 64), (48, 64)).to_dict()).encode()


def learner() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.AdamW(model.parameters())


def state_body() -> bytes:
    model, optimizer = learner()
    progress = vars(Progress(epoch=1))
    return torch_file(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress}
    )


def read_state(path: Path) -> object:
    """The state of a run with this body; its checksum is right, else no damage would come any further."""
    body = path.read_bytes()
    state = path.with_name("state.pt")
    state.write_bytes(b"efnet state 1\n" + hashlib.sha256(body).digest() + body)
    return load_state(state, *learner())


@cache
def training_parser() -> ArgumentParser:
    """The parser of `efnet train`, built once because that takes longer than to read a file."""
    parser = ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser


def read_training(path: Path) -> object:
    """A configuration as `efnet train --config` takes it; the command line words the last error so."""
    try:
        return parse(training_parser(), ["--config", str(path), "--out", "run"])
    except ArgumentError as error:
        raise InputError(f"{path}: {error}") from error


CONFIG = (
    b"data: {dataset: mfnet, size: [64, 96]}\noptimizer: {lr: 2.0e-4}\nschedule: {epochs: 3}\ndevice: cpu\n"
)
DATASET = b"names: [background, person]\npalette: [[0, 0, 0], [1, 2, 3]]\nsplits: {train: a.txt}\n"
JOURNAL = b'{"settings": {}}\n{"name": "a", "files": [], "stamps": []}\n'
IMAGES = {f"{kind.lower()} as {name}": (picture(kind), f"x.{kind.lower()}", read)
          for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")
          for name, read in (("colour", read_rgb), ("thermal", read_thermal),
                             ("label", lambda path: read_label(path, MFNET_CLASSES)))}  # fmt: skip
READERS: dict[str, tuple[bytes, str, Reader]] = {
    **IMAGES,
    "torch weights": (torch_file({"state_dict": {"a": torch.ones(3)}}), "x.pth", read_state_dict),
    "safetensors": (save({"a": torch.ones(3)}), "x.safetensors", read_state_dict),
    "config.json": (b'{"architecture": "efnet"}', "config.json", lambda path: read_config(path.parent)),
    "homography": (homography(), "x.json", Homography.load),
    "dataset.yaml": (DATASET, "dataset.yaml", Description.read),
    "split list": (b"00001D\n00002N.png\n", "x.txt", read_list),
    "journal": (JOURNAL, "x.jsonl", lambda path: read_journal(path, kept_record)),
    "state of a run": (state_body(), "x.body", read_state),
    "training configuration": (CONFIG, "x.yaml", read_training),
    "tar": (tar_file(), "x.tar", scan_tar),
}
"""By name: a file's content, its name, and what reads it."""


def read_damaged(path: Path, content: bytes, read: Reader) -> None:
    """A result, or an error of ours that names the file; anything else is a fault of the reader."""
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        assert str(path.parent) in str(error), "the file is named"  # noqa: PT017
