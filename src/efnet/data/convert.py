"""Data sets rewritten: four-channel files to separate folders and back, colour labels to indices.

An interrupted conversion resumes: files are written whole, and a marker in the output folder identifies it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from efnet.core.classes import ClassSet
from efnet.core.errors import InputError, ManyInputsError
from efnet.core.files import replacing, write_image, write_json, write_text
from efnet.core.journal import read_manifest
from efnet.data.false_color import PREFIX, is_palette
from efnet.data.images import open_image, read_raw_thermal, read_rgb, split_channels, thermal_values
from efnet.data.labels import read_label
from efnet.data.layouts import public
from efnet.data.layouts.folders import FILE_NAME, Description
from efnet.data.layouts.listing import ImageFolder, TripleFolders, read_list
from efnet.data.pairs import Pair
from efnet.data.sample import require_same_size, threaded
from efnet.data.verify import Progress

_MARKER = ".efnet-conversion.json"

Tasks = dict[tuple[Path, ...], Callable[[], None]]  # by the files that it writes, a function that writes them


def to_folders(root: Path, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
    """Rewrite four-channel pairs as `rgb/ thermal/ labels/`, losslessly; return how many images were written.

    Split lists and labels are copied and a `dataset.yaml` is written, so that the result reads both as
    `mfnet` (if it was MFNet) and as `folders`.

    Args:
        root: `images/` (MFNet) or the `rgbt/` folder of a `dataset.yaml`, with `labels/` and lists.
        out: folder to write.
        overwrite: write into a folder that holds something else.
        progress: called with the images done and their total.

    Raises:
        InputError: nothing to convert, or `out` is not empty.
        ManyInputsError: images that cannot be converted; the others are.
    """
    description = _description(root)
    names = {"rgbt": "images", "labels": "labels"} if description is None else description.folders
    triple = TripleFolders.read(root / names["rgbt"], None, root / names["labels"])
    source = triple.rgb
    _require_images(source, "four-channel images")

    def split(path: Path, stem: str, rgb_path: Path, thermal_path: Path) -> None:
        pair = triple.pair(stem) if description is None else description.parts(triple.pair(stem))
        if pair.thermal is None:
            rgb, thermal = split_channels(pair.rgb)
        else:
            rgb, thermal = read_rgb(pair.rgb), read_raw_thermal(pair.thermal)
            if thermal.dtype not in (np.uint8, np.uint16):
                fault = f"its thermal channel has {thermal.dtype} numbers, which a PNG cannot hold"
                raise InputError(f"{path}: {fault}; use the data set as it is, with 'channels'")
        write_image(rgb_path, Image.fromarray(rgb))
        write_image(thermal_path, Image.fromarray(thermal))

    tasks: Tasks = {
        outputs: partial(split, path, stem, *outputs)
        for stem, path in source.files.items()
        for outputs in [(out / "rgb" / f"{stem}.png", out / "thermal" / f"{stem}.png")]
    }
    with Output(out, "folders", root, overwrite) as output:
        _copy_lists(root, out, description, triple)
        _write_description(out, root, description, {"rgb": "rgb", "thermal": "thermal"})
        return output.run({**tasks, **_label_copies(triple.labels, out)}, progress)


def to_rgbt(root: Path, out: Path, *, overwrite: bool = False, progress: Progress | None = None) -> int:
    """Rewrite `rgb/ thermal/ labels/` as MFNet's four-channel PNGs in `images/`, losslessly.

    The folders at `root` are those that `dataset.yaml` names; labels and lists may be missing. Other
    arguments, and the number returned, as in `to_folders`.

    Raises:
        InputError: nothing to convert, or `out` is not empty.
        ManyInputsError: pairs without a partner, of unequal sizes, or with thermal of more than 8 bits.
    """
    description = _description(root)
    names = {"rgb": "rgb", "thermal": "thermal"} if description is None else description.folders
    labels = root / names.get("labels", "labels")
    triple = TripleFolders.read(root / names["rgb"], root / names["thermal"], labels)
    rgb, thermal = triple.rgb, triple.thermal or triple.rgb
    _require_images(rgb, "colour images")
    _require_images(thermal, "thermal images")

    scale = "auto" if description is None else description.thermal_scale

    def join(rgb_path: Path, thermal_path: Path, target: Path) -> None:
        color, image = read_rgb(rgb_path), open_image(thermal_path)
        heat, _ = thermal_values(image, scale)
        if heat.dtype != np.uint8 or image.white != 255:
            fault = f"is {image.header}, and a four-channel PNG has 8 bits"
            raise InputError(f"{thermal_path}: {fault}; keep separate folders")
        require_same_size("thermal image", thermal_path, heat.shape, rgb_path, color.shape)
        write_image(target, Image.fromarray(np.dstack([color, heat])))

    tasks: Tasks = {
        (target,): partial(join, pair.rgb, pair.thermal or thermal.find(stem), target)
        for stem in sorted({*rgb.files, *thermal.files})
        for found in [Pair(stem, rgb.find(stem), thermal.find(stem), None)]
        for pair in [found if description is None else description.parts(found)]
        for target in [out / "images" / f"{stem}.png"]
    }
    with Output(out, "rgbt", root, overwrite) as output:
        _copy_lists(root, out, description, triple)
        if description is not None:
            _write_description(out, root, description, {"rgbt": "images"})
        return output.run({**tasks, **_label_copies(triple.labels, out)}, progress)


def to_index(
    labels: Path, out: Path, classes: ClassSet, *, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Rewrite a folder of label maps, colour or index, as palette PNGs whose pixels are class indices.

    `classes` gives the palette to read the colours by, and to write. Other arguments, and the number
    returned, as in `to_folders`.

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

    tasks: Tasks = {
        (out / f"{stem}.png",): partial(index, path, out / f"{stem}.png")
        for stem, path in source.files.items()
    }
    with Output(out, "index", labels, overwrite) as output:
        return output.run(tasks, progress)


class Output:
    """The output folder: refused if it holds something else, marked while it is incomplete."""

    def __init__(self, out: Path, operation: str, source: Path, overwrite: bool, **settings: object) -> None:
        self.out = out
        self.marker = out / _MARKER
        self.overwrite = overwrite
        self.content = {"to": operation, "source": str(source.resolve()), **settings}
        if out.resolve() == source.resolve():
            raise InputError(f"{out}: is the folder that is read; choose another `out`")

    def __enter__(self) -> Output:
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; choose a folder as `out`")
        new = not self.overwrite and read_manifest(self.marker) != self.content
        if new and self.out.is_dir() and any(self.out.iterdir()):
            raise InputError(f"{self.out}: is not empty; choose another `out`, or give `overwrite`")
        write_json(self.marker, self.content)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.marker.unlink(missing_ok=True)

    def run(self, tasks: Tasks, progress: Progress | None) -> int:
        """Run the tasks whose files are missing, several at a time; return how many."""
        done = [not self.overwrite and all(path.exists() for path in outputs) for outputs in tasks]
        waiting = [task for task, there in zip(tasks.values(), done, strict=True) if not there]
        faults: list[str] = []
        for count, fault in enumerate(threaded(_outcome, waiting), start=1):
            faults += [fault] if fault else []
            if progress is not None:
                progress(len(tasks) - len(waiting) + count, len(tasks))
        if faults:
            raise ManyInputsError(f"{self.out}: {len(waiting) - len(faults)} files written, not all", faults)
        return len(waiting)


def _outcome(task: Callable[[], None]) -> str | None:
    """Run a task; return the message of its `InputError`, if it fails."""
    try:
        task()
    except InputError as error:
        return str(error)
    return None


def _description(root: Path) -> Description | None:
    """The `dataset.yaml` of the source, if there is one."""
    path = root / FILE_NAME
    return Description.read(path) if path.is_file() else None


def _require_images(folder: ImageFolder, what: str) -> None:
    if not folder.files:
        raise InputError(f"{folder.path}: holds no {what}; give the data set's folder as `root`")


def _label_copies(labels: ImageFolder, out: Path) -> Tasks:
    """Byte-for-byte copies of the labels, named as their pairs."""
    targets = {path: out / "labels" / f"{name}{path.suffix}" for name, path in labels.files.items()}
    return {(target,): partial(_copy, path, target) for path, target in targets.items()}


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except OSError as error:
            raise InputError(f"{source}: cannot be copied to {target} ({error.strerror})") from error


def _lists(root: Path, description: Description | None) -> dict[str, Path]:
    """Split lists by split: MFNet's names, and those that `dataset.yaml` gives."""
    texts = {path.stem.lower(): path for path in sorted(root.glob("*.txt"))}
    found = {split: path for split, path in texts.items() if split in public.LISTS}
    given = {} if description is None else description.splits
    return found | {split: root / name for split, name in given.items() if (root / name).is_file()}


def _copy_lists(root: Path, out: Path, description: Description | None, triple: TripleFolders) -> None:
    """Copy split lists; those beside a `dataset.yaml` with the names of pairs, since files are renamed."""
    known = triple.listed_names(root)
    for path in _lists(root, description).values():
        if description is None:
            _copy(path, out / path.relative_to(root))
        else:
            names = read_list(path, tuple(description.folders.values()), known)
            write_text(out / path.relative_to(root), "".join(f"{name}\n" for name in names))


def _write_description(
    out: Path, root: Path, description: Description | None, folders: dict[str, str]
) -> None:
    """Write `dataset.yaml`; without one at the source, the data set is MFNet."""
    if description is None:
        splits = {split: path.name for split, path in _lists(root, None).items()}
        description = Description(public.MFNET_CLASSES, splits, conditions={"day": "*D", "night": "*N"})
    if isinstance(description.thermal_scale, str):  # colours of a palette were written as grey
        description = replace(description, thermal_scale="auto")
    pages = {"rgb": 1, "thermal": 1, "labels": description.pages.get("labels", 1)}  # labels are copies
    description = replace(description, channels=None, pages={} if pages["labels"] == 1 else pages)
    write_description(out, description, folders)


def write_description(out: Path, description: Description, folders: dict[str, str]) -> None:
    """Write `dataset.yaml` to `out`, with the names of image folders that are given."""
    scale = description.thermal_scale
    values: dict[str, object] = {
        **description.classes.to_dict(),
        "conditions": dict(description.conditions),
        "splits": dict(description.splits),
        "thermal_scale": scale if isinstance(scale, str) else list(scale),
        **folders,
    }
    if description.classes.invented:
        del values["palette"]
    if is_palette(scale):
        values |= {"thermal_scale": "auto", "thermal_palette": str(scale).removeprefix(PREFIX)}
    if description.channels is not None and "rgbt" in folders:
        colors, heat = description.channels
        white = {} if colors.white is None else {"white": colors.white}
        values["channels"] = {"rgb": list(colors.numbers), "thermal": heat.numbers[0], **white}
    if description.pages:
        values["page"] = dict(description.pages)
    values = {key: value for key, value in values.items() if value != {}}
    write_text(out / FILE_NAME, yaml.safe_dump(values, sort_keys=False, default_flow_style=None))
