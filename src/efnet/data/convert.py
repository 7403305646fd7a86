"""Data sets rewritten: four-channel files to separate folders and back, colour labels to indices.

A conversion that was interrupted goes on where it stopped when it is started again: files are written
whole or not at all, and a marker in the output folder tells that they are this conversion's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.core.files import replacing, write_image, write_json, write_text
from efnet.data.images import read_label, read_raw_thermal, read_rgb, split_channels
from efnet.data.layouts import public
from efnet.data.layouts.folders import FILE_NAME, Description
from efnet.data.layouts.listing import ImageFolder
from efnet.data.verify import Progress

_MARKER = ".efnet-conversion.json"


@dataclass(frozen=True)
class Task:
    """One file's conversion.

    Attributes:
        outputs: what it writes; all there: it is done.
        run: does it.
    """

    outputs: tuple[Path, ...]
    run: Callable[[], None]


def to_folders(root: Path, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
    """Rewrite four-channel pairs as `rgb/ thermal/ labels/`, losslessly.

    Split lists and labels are copied and a `dataset.yaml` is written, so that the result reads both as
    `mfnet` (if it was MFNet) and as `folders`.

    Args:
        root: `images/` (MFNet) or the `rgbt/` folder of a `dataset.yaml`, with `labels/` and lists.
        out: folder to write.
        overwrite: write into a folder that holds something else.
        progress: told how many images are done, of how many.

    Returns:
        number of images written now (0: all were there already).

    Raises:
        InputError: nothing to convert, or `out` is not empty.
        ManyInputsError: images that cannot be converted; the others are.
    """
    description = _description(root)
    source = ImageFolder.read(root / ("images" if description is None else description.folders["rgbt"]))
    _require_images(source, "four-channel images")

    def part(path: Path) -> None:
        rgb, thermal = split_channels(path)
        write_image(out / "rgb" / f"{path.stem}.png", Image.fromarray(rgb))
        write_image(out / "thermal" / f"{path.stem}.png", Image.fromarray(thermal))

    tasks = [
        Task((out / "rgb" / f"{stem}.png", out / "thermal" / f"{stem}.png"), lambda path=path: part(path))  # type: ignore[misc]
        for stem, path in source.files.items()
    ]
    tasks += _copies(_labels(root, description), out / "labels")
    with _Output(out, "folders", root, overwrite) as output:
        _copy_lists(root, out, description)
        _write_description(out, root, description, {"rgb": "rgb", "thermal": "thermal"})
        return output.run(tasks, progress)


def to_rgbt(root: Path, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
    """Rewrite `rgb/ thermal/ labels/` as MFNet's four-channel PNGs in `images/`, losslessly.

    Args:
        root: folder with `rgb/ thermal/`, as `dataset.yaml` names them, and perhaps `labels/` and lists.
        out: folder to write.
        overwrite: write into a folder that holds something else.
        progress: told how many images are done, of how many.

    Returns:
        number of images written now.

    Raises:
        InputError: nothing to convert, or `out` is not empty.
        ManyInputsError: pairs without a partner, of unequal sizes, or with thermal of more than 8 bits.
    """
    description = _description(root)
    names = {"rgb": "rgb", "thermal": "thermal"} if description is None else description.folders
    rgb, thermal = ImageFolder.read(root / names["rgb"]), ImageFolder.read(root / names["thermal"])
    _require_images(rgb, "colour images")
    _require_images(thermal, "thermal images")

    def join(stem: str, target: Path) -> None:
        write_image(target, _joined(rgb.find(stem), thermal.find(stem)))

    targets = {stem: out / "images" / f"{stem}.png" for stem in sorted({*rgb.files, *thermal.files})}
    tasks = [
        Task((target,), lambda stem=stem, target=target: join(stem, target))  # type: ignore[misc]
        for stem, target in targets.items()
    ]
    tasks += _copies(_labels(root, description), out / "labels")
    with _Output(out, "rgbt", root, overwrite) as output:
        _copy_lists(root, out, description)
        if description is not None:
            _write_description(out, root, description, {"rgbt": "images"})
        return output.run(tasks, progress)


def to_index(
    labels: Path, out: Path, classes: ClassSet, *, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Rewrite label maps, colour or index, as palette PNGs whose pixels are class indices.

    Args:
        labels: folder of label maps.
        out: folder to write.
        classes: palette to read the colours by, and to write.
        overwrite: write into a folder that holds something else.
        progress: told how many labels are done, of how many.

    Returns:
        number of labels written now.

    Raises:
        InputError: no labels, or `out` is not empty.
        ManyInputsError: labels with colours outside the palette; the others are written.
    """
    source = ImageFolder.read(labels)
    _require_images(source, "label maps")

    def index(path: Path, target: Path) -> None:
        image = Image.fromarray(read_label(path, classes)).convert("P")
        image.putpalette(classes.flat_palette())
        write_image(target, image)

    tasks = [
        Task((out / f"{stem}.png",), lambda path=path, stem=stem: index(path, out / f"{stem}.png"))  # type: ignore[misc]
        for stem, path in source.files.items()
    ]
    with _Output(out, "index", labels, overwrite) as output:
        return output.run(tasks, progress)


class _Output:
    """The output folder: refused if it holds something else, marked while it is incomplete."""

    def __init__(self, out: Path, operation: str, source: Path, overwrite: bool) -> None:
        self.out = out
        self.marker = out / _MARKER
        self.overwrite = overwrite
        self.content = {"to": operation, "source": str(source.resolve())}
        if out.resolve() == source.resolve():
            raise InputError(f"{out}: is the folder that is read; choose another --out")

    def __enter__(self) -> _Output:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; choose a folder as --out")
        if self.out.is_dir() and any(self.out.iterdir()) and not self.overwrite and not self._resumes():
            raise InputError(f"{self.out}: is not empty; choose another --out, or give --overwrite")
        write_json(self.marker, self.content)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.marker.unlink(missing_ok=True)

    def _resumes(self) -> bool:
        try:
            return bool(json.loads(self.marker.read_text(encoding="utf-8")) == self.content)
        except (OSError, ValueError):
            return False

    def run(self, tasks: Sequence[Task], progress: Progress | None) -> int:
        """Run what is not done yet, several at a time."""
        waiting = [
            task for task in tasks if self.overwrite or not all(path.exists() for path in task.outputs)
        ]
        faults: list[str] = []
        pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
        try:
            for count, fault in enumerate(pool.map(_outcome, waiting), start=1):
                faults += [fault] if fault else []
                if progress is not None:
                    progress(len(tasks) - len(waiting) + count, len(tasks))
        finally:
            pool.shutdown(cancel_futures=True)
        if faults:
            raise ManyInputsError(f"{self.out}: {len(waiting) - len(faults)} files written, not all", faults)
        return len(waiting)


def _outcome(task: Task) -> str | None:
    """Run a task; the message of its `InputError`, if it fails."""
    try:
        task.run()
    except InputError as error:
        return str(error)
    return None


def _joined(rgb_path: Path, thermal_path: Path) -> Image.Image:
    """Colour and thermal as one RGBA image."""
    rgb, thermal = read_rgb(rgb_path), read_raw_thermal(thermal_path)
    if thermal.dtype != np.uint8:
        raise InputError(
            f"{thermal_path}: has more than 8 bits, too many for a four-channel PNG; keep separate folders"
        )
    if thermal.shape != rgb.shape[:2]:
        raise InputError(
            f"{thermal_path}: is {thermal.shape[1]}x{thermal.shape[0]}, but {rgb_path} is "
            f"{rgb.shape[1]}x{rgb.shape[0]}; register the pair and save both at one size"
        )
    return Image.fromarray(np.dstack([rgb, thermal]))


def _description(root: Path) -> Description | None:
    """What `dataset.yaml` says, if there is one."""
    path = root / FILE_NAME
    return Description.read(path) if path.is_file() else None


def _labels(root: Path, description: Description | None) -> ImageFolder:
    return ImageFolder.read(root / ("labels" if description is None else description.folders["labels"]))


def _require_images(folder: ImageFolder, what: str) -> None:
    if not folder.files:
        raise InputError(f"{folder.path}: holds no {what}; give the data set's folder with --root")


def _copies(source: ImageFolder, target: Path) -> list[Task]:
    """Byte-for-byte copies of a folder's images."""
    return [
        Task((target / path.name,), lambda path=path: _copy(path, target / path.name))  # type: ignore[misc]
        for path in source.files.values()
    ]


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except OSError as error:
            raise InputError(f"{source}: cannot be copied to {target} ({error.strerror})") from error


def _lists(root: Path, description: Description | None) -> dict[str, Path]:
    """Split lists by split: MFNet's names, and those that `dataset.yaml` gives."""
    found = {
        path.stem.lower(): path for path in sorted(root.glob("*.txt")) if path.stem.lower() in public.LISTS
    }
    given = {} if description is None else description.splits
    return found | {split: root / name for split, name in given.items() if (root / name).is_file()}


def _copy_lists(root: Path, out: Path, description: Description | None) -> None:
    for path in _lists(root, description).values():
        _copy(path, out / path.relative_to(root))


def _write_description(
    out: Path, root: Path, description: Description | None, folders: dict[str, str]
) -> None:
    """Write `dataset.yaml`; without one at the source, the data set is MFNet."""
    classes = public.MFNET_CLASSES if description is None else description.classes
    values: dict[str, object] = dict(classes.to_dict())
    if description is None:
        values["conditions"] = {"day": "*D", "night": "*N"}
        values["splits"] = {split: path.name for split, path in _lists(root, None).items()}
    else:
        values["conditions"] = dict(description.conditions)
        values["splits"] = dict(description.splits)
        scale = description.thermal_scale
        values["thermal_scale"] = scale if isinstance(scale, str) else list(scale)
    values |= folders
    values = {key: value for key, value in values.items() if value not in ({}, None)}
    write_text(out / FILE_NAME, yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
