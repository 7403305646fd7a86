"""Annotations to label maps with a `dataset.yaml`, and label maps or predictions to annotations."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.classes import IGNORE_INDEX, ClassSet, spread_colors
from efnet.core.errors import InputError, ManyInputsError
from efnet.core.files import write_image, write_text
from efnet.core.progress import Progress, no_progress
from efnet.core.safe_parse import parse_yaml
from efnet.data.annotations.coco import is_coco, read_coco, write_coco
from efnet.data.annotations.cvat import read_cvat, write_cvat
from efnet.data.annotations.label_studio import is_label_studio, read_label_studio
from efnet.data.annotations.labelme import is_labelme, read_labelme
from efnet.data.annotations.regions import (
    BACKGROUNDS,
    IGNORED,
    AnnotatedImage,
    Annotations,
    Region,
    Size,
    load_json,
)
from efnet.data.annotations.shapes import Exported, Shapes
from efnet.data.convert import Output, Tasks, write_description
from efnet.data.decode import page_at
from efnet.data.images import IMAGE_SUFFIXES, read_header
from efnet.data.labels import read_label
from efnet.data.layouts.folders import FILE_NAME, Description
from efnet.data.layouts.listing import ImageFolder, TripleFolders
from efnet.data.layouts.patterns import composed, is_pattern, natural_key

SKIP = "skip"
"""Target in a class map of regions that are not drawn."""
OTHERS = "*"
"""Name in a class map of all classes that it, and the data set, do not name."""

_FORMATS = "LabelMe, COCO, CVAT ('CVAT for images 1.1') or Label Studio ('JSON')"
_FOLDERS = (("rgb", "thermal"), ("rgbt",), ("images",), (".",))
"""Where images are looked for below the root, without a `dataset.yaml`."""


def read_annotations(path: Path) -> Annotations:
    """Read a file, or all JSON and XML files of a folder, in the order of their names.

    Raises:
        InputError: nothing there, unreadable, or of none of the known formats.
    """
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in (".json", ".xml"))
        if not files:
            raise InputError(f"{path}: holds no JSON or XML files; give files of {_FORMATS}")
    else:
        files = [path]
    found = Annotations()
    for file in files:
        part = _read(file)
        found.images.extend(part.images)
        found.labels.extend(label for label in part.labels if label not in found.labels)
        found.notes.extend(part.notes)
    return found


def _read(path: Path) -> Annotations:
    if not path.is_file():
        raise InputError(f"{path}: no such file; `annotations` takes a file, or a folder, of {_FORMATS}")
    if path.suffix.lower() == ".xml":
        return read_cvat(path)
    content = load_json(path)
    for recognise, read in (
        (is_labelme, read_labelme),
        (is_coco, read_coco),
        (is_label_studio, read_label_studio),
    ):
        if recognise(content):
            return read(path, content)
    keys = (
        ", ".join(map(str, list(content)[:6])) if isinstance(content, dict) else f"a {type(content).__name__}"
    )
    raise InputError(
        f"{path}: is not a file of {_FORMATS} (it holds {keys}); export the annotations as one of these"
    )


def read_class_map(text: str) -> dict[str, str]:
    """Read `lorry=car,sky=ignore`, or a YAML or JSON file of such names.

    A name stands for a class of the data set, `ignore` (value 255) or `skip` (not drawn); `*` stands for all
    classes that neither the map nor the data set names. Raises InputError for another form.
    """
    if text.lower().endswith((".yaml", ".yml", ".json")):
        try:
            values = parse_yaml(Path(text).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"`class_map` {text}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"`class_map` {text}: is not valid YAML ({error})") from error
        if not isinstance(values, dict) or not values:
            raise InputError(f"`class_map` {text}: write lines 'name in the annotations: name of the class'")
        return {str(key): str(value) for key, value in values.items()}
    found = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, equals, target = (part.strip() for part in word.partition("="))
        if not (name and equals and target):
            raise InputError(f"`class_map` {word}: write name=class, such as lorry=car,sky=ignore,line=skip")
        found[name] = target
    return found


@dataclass(frozen=True)
class LabelsWritten:
    """The result of `to_labels`."""

    count: int  # files written by this call
    classes: ClassSet  # of the label maps
    notes: tuple[str, ...]  # what a user should know


def to_labels(
    annotations: Path,
    root: Path,
    out: Path,
    classes: ClassSet | None = None,
    class_map: Mapping[str, str] | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> LabelsWritten:
    """Write a label map for each annotated image, and a `dataset.yaml` that names the images where they are.

    Later regions cover earlier ones. Pixels that no region covers are class 0.

    Args:
        annotations: file or folder of files of LabelMe, COCO, CVAT or Label Studio.
        root: folder of the images: with a `dataset.yaml`, with `rgb/` and `thermal/`, `rgbt/` or `images/`,
            or the images themselves.
        out: folder for `labels/`, `dataset.yaml` and lists of the splits that the files name. If they name
            none, but some images are not annotated, `train.txt` lists the others.
        classes: in the order of the label values; None: those of a `dataset.yaml` in `root`, else background
            and the names in the files.
        class_map: name in the annotations to name of the class; see `read_class_map`.
        overwrite: write into a folder that holds something else.
        progress: called with the images done and their total.

    Raises:
        InputError: nothing to read, unknown classes, or `out` is not empty.
        ManyInputsError: images that are missing or have another size, and regions without an area; the label
            maps of the others are written.
    """
    found, source = read_annotations(annotations), _Images.find(root)
    if classes is None and source.description is not None:
        classes = source.description.classes
    named = _Naming.choose(found, classes, class_map or {})
    settings = {"classes": list(named.classes.names), "class_map": dict(class_map or {})}
    tasks: Tasks = {}
    splits: dict[str, list[str]] = {}
    for image in found.images:
        stem = source.stem(image)
        # Of a missing image nothing is written: its name only has to differ from others.
        target = out / "labels" / f"{stem or image.names[0].replace('/', '_')}.png"
        task = partial(_write_label, image, source, stem, named, target)
        tasks[(target,)] = partial(_refuse_twice, image, stem) if (target,) in tasks else task
        splits.setdefault(image.split, []).append(stem or "")
    notes = list(found.notes)
    if spare := [stem for stem in source.folder.files if (out / "labels" / f"{stem}.png",) not in tasks]:
        listed = ", ".join(spare[:3]) + (", ..." if len(spare) > 3 else "")
        notes.append(
            f"{source.folder.path}: {len(spare)} images have no annotation, and no label map: {listed}"
        )
    with Output(out, "labels", annotations, overwrite, **settings) as output:
        if "" in splits:  # of images without annotation there would be no label: list the others
            everything = [stem for stems in splits.values() for stem in stems]
            has_lists = source.description is not None and bool(source.description.splits)
            splits = {"train": everything} if spare and not has_lists else {}
        lists = {split: f"{split}.txt" for split in splits}
        for split, name in lists.items():
            write_text(out / name, "\n".join(filter(None, splits[split])) + "\n")
        description = replace(source.described(out), classes=named.classes)
        write_description(
            out, replace(description, splits=lists) if lists else description, source.places(out)
        )
        return LabelsWritten(output.run(tasks, progress), named.classes, tuple(notes))


@dataclass(frozen=True)
class _Images:
    """The images that were annotated."""

    root: Path
    folder: ImageFolder
    names: dict[str, str]  # key of `dataset.yaml` to the folder below the root
    description: Description | None

    @classmethod
    def find(cls, root: Path) -> _Images:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give the folder of the annotated images as `root`")
        description = Description.read(root / FILE_NAME) if (root / FILE_NAME).is_file() else None
        given = {} if description is None else description.folders
        for keys in _FOLDERS:
            names = {key: given.get(key, key) for key in keys}
            folder = ImageFolder.read(root / names[keys[0]])
            if folder.files:
                stored = {"images": "rgbt", ".": "rgb"}.get(keys[0])
                return cls(root, folder, names if stored is None else {stored: keys[0]}, description)
        raise InputError(f"{root}: holds no images, nor rgb/, rgbt/ or images/; give their folder as `root`")

    def stem(self, image: AnnotatedImage) -> str | None:
        """Return the name of the annotated pair; None: its file is missing, or several have that name.

        As much of the path counts as the images have: of `set/day/1.png` first `set/day/1`, last `1`.
        """
        for name in image.names:
            path = PurePosixPath(composed(name.replace("\\", "/")))
            path = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
            for start in range(len(path.parts)):
                found = self._by_path.get("/".join(path.parts[start:]).casefold(), set())
                if found:
                    return next(iter(found)) if len(found) == 1 else None
        return None

    @cached_property
    def _by_path(self) -> dict[str, set[str]]:
        """Names of pairs by their own names, and by paths and names of their files without suffix."""
        whole: dict[str, set[str]] = defaultdict(set)
        short: dict[str, set[str]] = defaultdict(set)
        for name, file in self.folder.files.items():
            path = composed(file.relative_to(self.folder.path).with_suffix("").as_posix())
            whole[path.casefold()].add(name)
            short[PurePosixPath(path).name.casefold()].add(name)
        named: dict[str, set[str]] = {name.casefold(): {name} for name in self.folder.files}
        return {**named, **short, **whole}

    def read_size(self, stem: str) -> Size:
        """Return the height and width of an image; errors as `read_header`."""
        path = self.folder.find(stem)
        pages = {} if self.description is None else self.description.pages
        header = read_header(page_at(path, pages["rgb"]) or path if pages else path)
        return header.height, header.width

    def places(self, out: Path) -> dict[str, str]:
        """Return the folders as `dataset.yaml` in `out` names them."""
        return {key: _seen_from(out, self.root / name) for key, name in self.names.items()}

    def described(self, out: Path) -> Description:
        """Return the description of the data set as it reads from `out`."""
        if self.description is None:
            return Description(ClassSet.generic(2))
        given = self.description.splits
        splits = {split: _seen_from(out, self.root / where) for split, where in given.items()}
        return replace(self.description, splits=splits)


def _seen_from(folder: Path, path: Path) -> str:
    """Return a path relative to a folder, or as it is where none leads there (drives of Windows)."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return path.resolve().as_posix()


@dataclass(frozen=True)
class _Naming:
    """Classes, and the label value of each name in the annotations; None: not drawn."""

    classes: ClassSet
    values: dict[str, int | None]

    @classmethod
    def choose(cls, found: Annotations, classes: ClassSet | None, class_map: Mapping[str, str]) -> _Naming:
        used = list(dict.fromkeys(region.label for image in found.images for region in image.regions))
        declared = found.labels + sorted(name for name in used if name not in found.labels)
        known = set() if classes is None else set(classes.names)

        def target(name: str) -> str:
            if name in class_map:
                return class_map[name]
            is_known = name in known or (name.casefold() in (*IGNORED, *BACKGROUNDS))
            return name if is_known or OTHERS not in class_map else class_map[OTHERS]

        targets = {name: target(name) for name in declared}
        if classes is None:
            classes = _classes(list(dict.fromkeys(targets.values())))
        values: dict[str, int | None] = {}
        for name, word in targets.items():
            if word in classes.names:
                values[name] = classes.names.index(word)
            elif word.casefold() in IGNORED:
                values[name] = IGNORE_INDEX
            elif word == SKIP:
                values[name] = None
            elif word.casefold() in BACKGROUNDS:
                values[name] = 0
        unknown = [targets[name] for name in used if name not in values]
        if unknown:
            raise InputError(
                f"classes that the data set does not have: {', '.join(dict.fromkeys(unknown))}; it has "
                f"{', '.join(classes.names)}: name one for each with `class_map`, such as "
                f"{unknown[0]}={classes.names[-1]}, or {unknown[0]}=ignore"
            )
        return cls(classes, values)


def _classes(names: Sequence[str]) -> ClassSet:
    """Background and the named classes, in their order."""
    background = next((name for name in names if name.casefold() in BACKGROUNDS), BACKGROUNDS[0])
    special = (*BACKGROUNDS, *IGNORED, SKIP)
    chosen = (background, *(name for name in names if name.casefold() not in special))
    try:
        return ClassSet(chosen, tuple(spread_colors(len(chosen))))
    except ValueError as error:
        raise InputError(f"the annotations name no classes that can be used: {error}") from error


def _refuse_twice(image: AnnotatedImage, stem: str | None) -> None:
    where = f"{image.source}: {image.names[0]}"
    raise InputError(f"{where}: is annotated twice (as {stem or 'a missing image'}); keep one of them")


def _write_label(
    image: AnnotatedImage, source: _Images, stem: str | None, named: _Naming, target: Path
) -> None:
    where = f"{image.source}: {image.names[0]}"
    if stem is None:
        raise InputError(
            f"{where}: no such image in {source.folder.path}, or several; copy it there, or correct `root`"
        )
    path = source.folder.find(stem)
    size = source.read_size(stem)
    if image.size not in (None, size):
        assert image.size is not None
        stated = f"{image.size[1]}x{image.size[0]}"
        raise InputError(
            f"{where}: was annotated at {stated} (width x height), but {path} is {size[1]}x{size[0]}; "
            "annotate the image that is used, or scale it"
        )
    label = Image.fromarray(draw_label(image.regions, size, named.values, where)).convert("P")
    label.putpalette(named.classes.flat_palette())
    write_image(target, label)


def draw_label(
    regions: Sequence[Region], size: Size, values: Mapping[str, int | None], where: str
) -> NDArray[np.uint8]:
    """Return the label map (H, W) of regions, later ones above earlier ones, 0 where there is none.

    `values` has the label value of each name, None for regions that are left out. Raises InputError, which
    begins with `where`, for a region without an area.
    """
    index = np.zeros(size, dtype=np.uint8)
    for number, region in enumerate(regions, start=1):
        value = values[region.label]
        if value is None:
            continue
        try:
            index[region.draw(size)] = value
        except ValueError as error:
            remedy = f"correct it, or leave its class out with `class_map` {region.label}={SKIP}"
            raise InputError(f"{where}: region {number} ('{region.label}') {error}; {remedy}") from error
    return index


WRITERS: dict[str, Callable[[Path, Iterator[Exported], Shapes], None]] = {
    "coco": write_coco,
    "cvat": write_cvat,
}
"""Formats that label maps can be written to."""


def from_labels(
    labels: Path,
    out: Path,
    to: str,
    shapes: Shapes,
    images: Path | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> int:
    """Write a folder of label maps as one annotation file; return the number of images.

    Args:
        labels: folder of label maps, also in folders below it, or a pattern of their names.
        out: file to write.
        to: one of `WRITERS`.
        shapes: classes, and how areas are written.
        images: folder of the images, or a pattern, which gives the file names; None: those of the label maps.
        overwrite: replace the file.
        progress: called with the label maps done and their total.

    Raises:
        InputError: nothing to convert, or `out` exists.
        ManyInputsError: label maps without an image, of another size or unreadable; nothing is written.
    """
    if out.is_dir() or (out.exists() and not overwrite):
        raise InputError(f"{out}: exists; choose another file as `out`, or give `overwrite`")
    if not labels.is_dir() and not is_pattern(str(labels)):
        raise InputError(f"{labels}: no such folder; give the folder of the label maps as `root`")
    triple = None if images is None else TripleFolders.read(images, None, labels)
    folder = ImageFolder.read(labels) if triple is None else triple.labels
    found = sorted(folder.files.items(), key=lambda entry: natural_key(entry[0]))
    if not found:
        raise InputError(f"{labels}: holds no label maps; give their folder as `root`")
    faults: list[str] = []

    def exported() -> Iterator[Exported]:
        for number, (pair, path) in enumerate(found, start=1):
            try:
                name = path.relative_to(folder.path).as_posix()
                index = read_label(path, shapes.classes)
                if triple is not None:
                    name = _image_of(path, pair, triple.rgb, (index.shape[0], index.shape[1]))
                yield Exported(name, index)
            except InputError as error:
                faults.append(str(error))
            progress(number, len(found))
        if faults:
            raise ManyInputsError(f"{labels}: no annotations written", faults)

    WRITERS[to](out, exported(), shapes)
    return len(found)


def _image_of(path: Path, name: str, folder: ImageFolder, size: Size) -> str:
    """Return the path below the folder of the image of a label map, which has to have its size."""
    if name not in folder:
        raise InputError(f"{path}: has no image in {folder.path}; copy it there, or give the right folder")
    image = folder.find(name)
    header = read_header(image)
    if (header.height, header.width) != size:
        raise InputError(f"{path}: is {size[1]}x{size[0]}, but {image} {header.width}x{header.height} pixels")
    return image.relative_to(folder.path).as_posix()
