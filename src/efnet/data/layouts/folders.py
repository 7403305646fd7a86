"""Your own pairs: `rgb/ thermal/ labels/` matched by stem, and a `dataset.yaml` that names the classes.

Splits are those that `dataset.yaml` gives. Without `splits` there, these are tried in turn: folders
`train/ val/ test/` that hold the three folders, lists `train.txt val.txt test.txt` beside them, and else all
pairs are `trainval`. Without a validation split, `held_out` takes one out of train.

The keys of a `dataset.yaml`:

names: [background, person, car]      # value 0, 1, 2 of the labels
palette: [[0, 0, 0], [220, 20, 60], [0, 0, 142]]    # optional
splits: {train: train.txt, test: test.txt}          # optional: list files, or folders
thermal_scale: auto                   # optional: or [low, high], the raw range of 16-bit and float files
thermal_unit: centikelvin             # optional: or celsius, kelvin; then thermal_scale is in degrees Celsius
thermal_palette: inferno              # optional, for thermal images in false colours: a name, auto, or a file
conditions: {day: "*D", night: "*N"}  # optional: name patterns
rgb: rgb                              # optional: names of the folders, or patterns: "rgb/original_{id}.jpg"
thermal: thermal
labels: labels
rgbt: rgbt                            # files of four or more channels in place of rgb and thermal
channels: {rgb: [1, 2, 3], thermal: 5}              # optional: which channels of these, from 1; white: 1023
page: 2                               # optional: which page of TIFFs of several, or {rgb: 1, thermal: 2}
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from efnet.core.classes import ClassSet, spread_colors
from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_yaml
from efnet.data.bands import Bands
from efnet.data.decode import page_at
from efnet.data.false_color import palette_scale
from efnet.data.layouts import listing
from efnet.data.layouts.listing import ImageFolder, TripleFolders, find_file, read_list, split_off
from efnet.data.layouts.patterns import images_below, is_pattern, nearest, suggest
from efnet.data.pairs import FLIP_SUFFIX, Condition, Pair, PairSet, ThermalScale

FILE_NAME = "dataset.yaml"
_FOLDER_KEYS = ("rgb", "thermal", "labels", "rgbt")
_KEYS = (
    "names",
    "palette",
    "splits",
    "thermal_scale",
    "thermal_unit",
    "thermal_palette",
    "conditions",
    "channels",
    "page",
    *_FOLDER_KEYS,
)
_UNITS = {"celsius": (1.0, 0.0), "kelvin": (1.0, 273.15), "centikelvin": (100.0, 27315.0)}
"""Raw value of a temperature in degrees Celsius: factor and offset."""


@dataclass(frozen=True)
class Description:
    """The content of a `dataset.yaml`."""

    classes: ClassSet
    splits: dict[str, str] = field(default_factory=dict)  # list file or folder; empty: as the root shows
    thermal_scale: ThermalScale = "auto"  # in raw values; see `efnet.data.images.scale_thermal`
    conditions: dict[Condition, str] = field(default_factory=dict)  # day and night to a pattern of names
    # `rgb`, `thermal`, `labels`, `rgbt` to the folder's name
    folders: dict[str, str] = field(default_factory=lambda: {key: key for key in _FOLDER_KEYS})
    channels: tuple[Bands, Bands] | None = None  # colour and thermal channels of `rgbt`; None: 1 to 3, and 4
    pages: dict[str, int] = field(default_factory=dict)  # `rgb`, `thermal`, `labels` to the page of TIFFs

    @classmethod
    def read(cls, path: Path) -> Description:
        """Read a YAML file; an `InputError` if it is missing, not YAML, or has a wrong key or value."""
        try:
            values = parse_yaml(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: no such file; write one with 'names: [background, person, ...]', the classes in "
                "the order of the label values"
            ) from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(f"{path}: is not valid YAML ({error}); correct it there") from error
        if not isinstance(values, dict):
            raise InputError(f"{path}: holds no keys; write at least 'names: [background, person, ...]'")
        if "label" in values and "labels" not in values:
            values["labels"] = values.pop("label")
        for key in values:
            if key not in _KEYS:
                close = difflib.get_close_matches(str(key), _KEYS, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(_KEYS)}"
                raise InputError(f"{path}: unknown key '{key}'; {hint}")
        return cls(
            classes=_classes(values, path),
            splits=_strings(values, "splits", path),
            thermal_scale=_thermal_scale(values, path),
            conditions=_conditions(values, path),
            folders={key: _string(values.get(key, key), key, path) for key in _FOLDER_KEYS},
            channels=_channels(values.get("channels"), path),
            pages=_pages(values.get("page"), path),
        )

    def parts(self, pair: Pair) -> Pair:
        """Return a pair with the pages and channels of its files that are meant."""
        rgb, thermal, label = pair.rgb, pair.thermal, pair.label
        if self.pages:
            if thermal is None and self.pages.get("rgb") != self.pages.get("thermal"):
                thermal = rgb  # colour and thermal are pages of one file
            rgb = page_at(rgb, self.pages["rgb"]) or rgb
            thermal, label = page_at(thermal, self.pages["thermal"]), page_at(label, self.pages["labels"])
        if self.channels is not None and pair.thermal is None:
            rgb, thermal = (bands.of(rgb) for bands in self.channels)
        return replace(pair, rgb=rgb, thermal=thermal, label=label)

    def condition(self, name: str) -> Condition | None:
        """Return day or night, by the patterns; a mirrored copy has the condition of its original."""
        name = name.removesuffix(FLIP_SUFFIX)
        matching = (key for key, pattern in self.conditions.items() if fnmatch.fnmatchcase(name, pattern))
        return next(matching, None)


def _classes(values: dict[str, Any], path: Path) -> ClassSet:
    names = values.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise InputError(f"{path}: 'names' must be a list of class names, such as [background, person]")
    palette = values.get("palette")
    colors = spread_colors(len(names)) if palette is None else palette
    try:
        return ClassSet.from_dict({"names": names, "palette": colors, "invented": palette is None})
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: {error}; 'palette' has one [red, green, blue] per name") from error


def _channels(value: Any, path: Path) -> tuple[Bands, Bands] | None:
    """Colour and thermal channels."""
    if value is None:
        return None
    fault = f"{path}: 'channels' is such as {{rgb: [1, 2, 3], thermal: 4}}, counted from 1, not {value!r}"
    if not isinstance(value, dict) or not {"rgb", "thermal"} <= set(value) <= {"rgb", "thermal", "white"}:
        raise InputError(fault)
    colors, heat, white = value["rgb"], value["thermal"], value.get("white")
    colors = colors if isinstance(colors, list) else [colors]
    numbers = [*colors, heat, *([] if white is None else [white])]
    if len(colors) not in (1, 3) or any(type(number) is not int or number < 1 for number in numbers):
        raise InputError(fault)
    return Bands(tuple(colors), white), Bands((heat,))


def _pages(value: Any, path: Path) -> dict[str, int]:
    """The page of each kind of file; none without the key."""
    if value is None:
        return {}
    given = value if isinstance(value, dict) else dict.fromkeys(("rgb", "thermal", "labels"), value)
    wrong = set(given) - {"rgb", "thermal", "labels"}
    if wrong or any(type(page) is not int or page < 1 for page in given.values()):
        fault = f"'page' is a number from 1, or such as {{rgb: 1, thermal: 2}}, not {value!r}"
        raise InputError(f"{path}: {fault}")
    return {"rgb": 1, "thermal": 1, "labels": 1} | given


def _thermal_scale(values: dict[str, Any], path: Path) -> ThermalScale:
    """The colour map, or the range in raw values; it is given in these, or in degrees where their unit is."""
    value, unit = values.get("thermal_scale", "auto"), values.get("thermal_unit")
    if values.get("thermal_palette") is not None:
        if value != "auto" or unit is not None:
            fault = "'thermal_palette' is of images without raw values"
            raise InputError(f"{path}: {fault}; leave 'thermal_scale' and 'thermal_unit' out")
        try:
            return palette_scale(_string(values["thermal_palette"], "thermal_palette", path), path.parent)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if unit is not None and unit not in _UNITS:
        raise InputError(f"{path}: 'thermal_unit' is {', '.join(_UNITS)}, not {unit!r}")
    factor, offset = _UNITS[unit] if unit is not None else (1.0, 0.0)
    if value == "auto":
        return "auto"
    if isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value):
        low, high = (float(number) for number in value)
        if -math.inf < low < high < math.inf:
            return (low * factor + offset, high * factor + offset)
    raise InputError(f"{path}: 'thermal_scale' is 'auto' or [low, high] with low < high, not {value!r}")


def _string(value: Any, key: str, path: Path) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: '{key}' must be a name, not {value!r}")
    return value


def _strings(values: dict[str, Any], key: str, path: Path) -> dict[str, str]:
    mapping = values.get(key) or {}
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: '{key}' must be a mapping, such as {{train: train.txt}}")
    return {str(name): _string(value, f"{key}.{name}", path) for name, value in mapping.items()}


def _conditions(values: dict[str, Any], path: Path) -> dict[Condition, str]:
    patterns = _strings(values, "conditions", path)
    unknown = set(patterns) - set(get_args(Condition))
    if unknown:
        raise InputError(f"{path}: 'conditions' knows day and night, not {', '.join(sorted(unknown))}")
    return {condition: patterns[condition] for condition in get_args(Condition) if condition in patterns}


USUAL_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Folders:
    """The layout that a `dataset.yaml` describes."""

    path: Path | None = None  # of the YAML file; None: `dataset.yaml` under the root
    name: str = "folders"

    def describe(self, root: Path) -> Description:
        """Read the YAML file of the data set at `root`; errors as `Description.read`."""
        if self.path is None:
            listing.require_root(root)
        return Description.read(self.path or root / FILE_NAME)

    def class_set(self, root: Path) -> ClassSet:
        """Return the classes that the YAML file names."""
        return self.describe(root).classes

    def splits(self, root: Path) -> tuple[str, ...]:
        """Return the splits found under `root`, and `val` and `trainval` where they can be made."""
        return self._known(root, self.describe(root))

    def open(self, root: Path, split: str) -> PairSet:
        """Return the pairs of `split`; an `InputError` if YAML, image folders or split are wrong."""
        listing.require_root(root)
        description = self.describe(root)
        if not self._homes(root, description):
            raise _no_images(root, description)
        known = self._known(root, description)
        if split not in known:
            raise listing.unknown_split(split, known, root)
        pairs = tuple(map(description.parts, self._pairs(root, description, split)))
        scale = description.thermal_scale
        return PairSet(self.name, root, split, pairs, description.classes, "native", thermal_scale=scale)

    def image_folders(self, root: Path) -> tuple[Path, ...]:
        """Return the image folders present under `root`."""
        description = self.describe(root)
        folders = (triple_at(home, description) for home in self._homes(root, description))
        return tuple(path for triple in folders if triple is not None for path in triple.paths())

    def _sources(self, root: Path, description: Description) -> dict[str, Path]:
        """Split to the list file or folder it comes from."""
        if description.splits:
            return {split: root / where for split, where in description.splits.items()}
        found = {}
        for split in USUAL_SPLITS:
            folder = root / split
            source = folder if triple_at(folder, description) else find_file(root, f"{split}.txt")
            if source is not None:
                found[split] = source
        return found

    def _homes(self, root: Path, description: Description) -> tuple[Path, ...]:
        """Folders that hold `rgb/ thermal/` or `rgbt/`."""
        candidates = [root, *(path for path in self._sources(root, description).values() if path.is_dir())]
        return tuple(home for home in candidates if triple_at(home, description) is not None)

    def _known(self, root: Path, description: Description) -> tuple[str, ...]:
        sources = self._sources(root, description)
        if not sources:
            return ("train", "val", "trainval")
        made = {"val", "trainval"} if "train" in sources else set()
        order = [*USUAL_SPLITS, *sorted(set(sources) - set(USUAL_SPLITS)), "trainval"]
        return tuple(dict.fromkeys(split for split in order if split in sources or split in made))

    def _pairs(self, root: Path, description: Description, split: str) -> tuple[Pair, ...]:
        sources = self._sources(root, description)
        if not sources:
            everything = _from_folder(root, description)
        elif split in sources and (split != "train" or "val" in sources):
            return _from_source(root, sources[split], description)
        else:
            everything = _from_source(root, sources["train"], description)
            if split == "trainval" and "val" in sources:
                return everything + _from_source(root, sources["val"], description)
        return split_off(everything, split)


def _no_images(root: Path, description: Description) -> InputError:
    """The error for a root with none of the folders, or without a file that fits the patterns."""
    places = (description.folders[key] for key in _FOLDER_KEYS)
    rgb, thermal, _, rgbt = (place if is_pattern(place) else f"{place}/" for place in places)
    expected = [f"{rgb} and {thermal}", rgbt, "these under train/ val/ test/"]
    error = str(listing.wrong_folders(root, "folders", expected))
    there = [file.relative_to(root).as_posix() for file in images_below(root)]
    if there:
        near = [nearest([place], there)[1] for place in (rgb, thermal)]
        found = suggest(near[0], near[1]) if near[0] != near[1] else None
        error += f"; the nearest images are {' and '.join(dict.fromkeys(near))}: name yours in {FILE_NAME}"
        one, other = found or ("FOLDER/{id}.jpg", "FOLDER/{id}.png")
        error += f', such as rgb: "{one}" and thermal: "{other}"'
    return InputError(error)


def triple_at(home: Path, description: Description) -> TripleFolders | None:
    """The folders under `home`, or None if it has neither kind."""
    rgb, thermal, labels, rgbt = (home / description.folders[key] for key in _FOLDER_KEYS)
    if _is_there(rgbt):
        return TripleFolders.read(rgbt, None, labels).matched()
    if _is_there(rgb) or _is_there(thermal):
        return TripleFolders.read(rgb, thermal, labels).matched()
    return None


def _is_there(path: Path) -> bool:
    """Whether a folder exists, or a pattern fits a file."""
    return ImageFolder.read(path).exists if is_pattern(path.name) or not path.is_dir() else True


def _from_source(root: Path, source: Path, description: Description) -> tuple[Pair, ...]:
    """The pairs of a split's list or folder."""
    if source.is_dir():
        return _from_folder(source, description)
    if not source.is_file():
        raise InputError(f"{source}: no such list or folder; correct 'splits' in {FILE_NAME}")
    triple = triple_at(root, description)
    if triple is None:
        raise listing.wrong_folders(root, "folders", [f"{description.folders['rgb']}/ beside {source.name}"])
    return tuple(
        triple.pair(name, description.condition(name))
        for name in read_list(source, tuple(description.folders.values()), triple.listed_names(root))
    )


def _from_folder(home: Path, description: Description) -> tuple[Pair, ...]:
    """All pairs under `home`."""
    triple = triple_at(home, description)
    if triple is None:
        names = description.folders
        raise listing.wrong_folders(home, "folders", [f"{names['rgb']}/ and {names['thermal']}/"])
    return tuple(triple.pair(stem, description.condition(stem)) for stem in triple.stems())
