"""Small valid inputs, made once; every case gets a copy to spoil."""

from __future__ import annotations

import contextlib
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from fault_pictures import colours, encoded, four_channels, heat, labels
from fault_weights import malicious_zip

from efnet.alignment.homography import Homography
from efnet.cli.main import main
from efnet.data.layouts.public import MFNET_CLASSES
from efnet.models.base import SegmentationModel
from efnet.models.config import BackboneConfig, EFNetConfig
from efnet.models.efnet import EFNet

NAMES = ("00001D", "00002N", "00003D", "00004N")
SIZE = (48, 64)


def small_model(modality: str = "rgbt", classes: int = 9) -> SegmentationModel:
    """EFNet with every part, in 56,000 parameters."""
    torch.manual_seed(5)
    backbone = BackboneConfig((1, 1, 1, 1), (8, 16, 24, 32), (1, 1, 1, 1), (2, 2, 2, 2))
    config = EFNetConfig(backbone, classes, modality=modality)  # type: ignore[arg-type]
    return EFNet(config, "efnet_tiny", MFNET_CLASSES if classes == 9 else None)


def make_world(home: Path) -> None:
    """model/ other/ rgb/ thermal/ mfnet/ own/ maps/ and single files."""
    model = small_model()
    model.input = type(model.input)(size=SIZE)
    model.save_pretrained(home / "model")
    small_model(classes=5).save_pretrained(home / "other")
    for number, stem in enumerate(("a", "b")):
        save(home / "rgb" / f"{stem}.png", encoded(colours(number)))
        save(home / "thermal" / f"{stem}.png", encoded(heat(number)))
    save(home / "rgbt.png", four_channels())
    Homography.stretched(SIZE, SIZE).save(home / "homography.json")
    make_mfnet(home / "mfnet")
    make_own(home / "own")
    for number, name in enumerate(NAMES[2:]):
        save(home / "maps" / f"{name}.png", encoded(labels(number, 9)))


def make_mfnet(root: Path) -> None:
    for number, name in enumerate(NAMES):
        save(root / "images" / f"{name}.png", four_channels(number))
        save(root / "labels" / f"{name}.png", encoded(labels(number, 9)))
    for split, names in {"train": NAMES[:2], "val": NAMES[2:3], "test": NAMES[2:]}.items():
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")


def make_own(root: Path) -> None:
    for number, name in enumerate(("x1", "x2", "x3")):
        for part, image in (
            ("rgb", colours(number)),
            ("thermal", heat(number)),
            ("labels", labels(number, 3)),
        ):
            save(root / part / f"{name}.png", encoded(image))
    (root / "dataset.yaml").write_text("names: [background, person, car]\n")


def save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_run(home: Path) -> None:
    """run/: one epoch of training, to be resumed."""
    line = "train --dataset mfnet --root mfnet --model mfnet --out run --epochs 1 --size 32x32"
    with contextlib.chdir(home):
        assert main([*line.split(), "--workers", "0", "--quiet", "--device", "cpu"]) == 0


def make_experiments(home: Path) -> None:
    """exp/: a plan and a finished run of table VI's first row, its report damaged by the cases."""
    folder = home / "exp"
    folder.mkdir()
    (folder / "experiment.json").write_text('{"budget": "tiny", "generated": true}')


def make_videos(home: Path) -> None:
    """rgb.mp4 and thermal.mp4: four frames each."""
    import av

    for name, image in (("rgb", colours(1)), ("thermal", np.repeat(heat(1)[..., None], 3, axis=2))):
        with av.open(str(home / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
            for step in range(4):
                moved = np.ascontiguousarray(np.roll(image, step, axis=1))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
            container.mux(stream.encode())


def make_program(home: Path) -> None:
    """program.pt2: a program of torch.export that is not ours."""
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, home / "program.pt2")


def malicious_program(home: Path) -> None:
    """program.pt2: its inputs for trial are a pickle that makes the canary."""
    source = (home / "program.pt2").read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(source)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            pickled = entry.filename.endswith(".pt")
            new.writestr(entry, malicious_zip() if pickled else old.read(entry))
    (home / "program.pt2").write_bytes(buffer.getvalue())


EXTRAS = {
    "run": (make_run, ("run",)),
    "experiments": (make_experiments, ("exp",)),
    "videos": (make_videos, ("rgb.mp4", "thermal.mp4")),
    "program": (make_program, ("program.pt2",)),
}
"""Inputs that only some cases need: what makes them, and what they are."""


class World:
    """Templates, and copies of them.

    Args:
        home: where templates are kept.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._made: set[str] = set()
        make_world(home)
        self._plain = [path.name for path in home.iterdir()]

    def copy(self, target: Path, extras: tuple[str, ...]) -> None:
        names = list(self._plain)
        for extra in extras:
            make, made = EXTRAS[extra]
            if extra not in self._made:
                make(self.home)
                self._made.add(extra)
            names += made
        for name in names:
            if (self.home / name).is_dir():
                shutil.copytree(self.home / name, target / name)
            else:
                shutil.copy(self.home / name, target / name)


def snapshot(home: Path) -> dict[str, bytes | str | None]:
    """Every file and folder below, with content; of links where they lead."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found
