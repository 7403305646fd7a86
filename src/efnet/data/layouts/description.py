"""What a `dataset.yaml` says of a data set of your own.

names: [background, person, car]      # value 0, 1, 2 of the labels
palette: [[0, 0, 0], [220, 20, 60], [0, 0, 142]]    # optional
splits: {train: train.txt, test: test.txt}          # optional: list files, or folders
thermal_scale: auto                   # optional: or [low, high], the raw range of 16-bit files
conditions: {day: "*D", night: "*N"}  # optional: name patterns
rgb: rgb                              # optional: names of the folders
thermal: thermal
labels: labels
rgbt: rgbt                            # four-channel files in place of rgb and thermal
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from efnet.classes import ClassSet, spread_colors
from efnet.data.pairs import FLIP_SUFFIX, Condition, ThermalScale
from efnet.errors import InputError
from efnet.texts import parse_yaml

FILE_NAME = "dataset.yaml"
_FOLDER_KEYS = ("rgb", "thermal", "labels", "rgbt")
_KEYS = ("names", "palette", "splits", "thermal_scale", "conditions", *_FOLDER_KEYS)


@dataclass(frozen=True)
class Description:
    """What a `dataset.yaml` says.

    Attributes:
        classes: names and palette.
        splits: split to the list file or folder that holds it; empty: by what lies under the root.
        thermal_scale: see `images.scale_thermal`.
        conditions: day and night to a pattern of names.
        folders: `rgb`, `thermal`, `labels`, `rgbt` to the folder's name.
    """

    classes: ClassSet
    splits: dict[str, str] = field(default_factory=dict)
    thermal_scale: ThermalScale = "auto"
    conditions: dict[Condition, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=lambda: {key: key for key in _FOLDER_KEYS})

    @classmethod
    def read(cls, path: Path) -> Description:
        """Read a YAML file.

        Raises:
            InputError: missing, no YAML, an unknown key, or a value of the wrong kind.
        """
        values = _read_yaml(path)
        for key in values:
            if key not in _KEYS:
                close = difflib.get_close_matches(str(key), _KEYS, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(_KEYS)}"
                raise InputError(f"{path}: unknown key '{key}'; {hint}")
        return cls(
            classes=_classes(values, path),
            splits=_strings(values, "splits", path),
            thermal_scale=_thermal_scale(values.get("thermal_scale", "auto"), path),
            conditions=_conditions(values, path),
            folders={key: _string(values.get(key, key), key, path) for key in _FOLDER_KEYS},
        )

    def condition(self, name: str) -> Condition | None:
        """Day or night, by the patterns; a mirrored copy is what its original is."""
        name = name.removesuffix(FLIP_SUFFIX)
        matching = (key for key, pattern in self.conditions.items() if fnmatch.fnmatchcase(name, pattern))
        return next(matching, None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; write one with 'names: [background, person, ...]', the classes in the "
            "order of the label values"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not valid YAML ({error}); correct it there") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no keys; write at least 'names: [background, person, ...]'")
    return values


def _classes(values: dict[str, Any], path: Path) -> ClassSet:
    names = values.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise InputError(f"{path}: 'names' must be a list of class names, such as [background, person]")
    palette = values.get("palette")
    if palette is None:
        palette = [list(color) for color in spread_colors(len(names))]
    try:
        return ClassSet.from_dict({"names": names, "palette": palette})
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: {error}; 'palette' has one [red, green, blue] per name") from error


def _thermal_scale(value: Any, path: Path) -> ThermalScale:
    if value == "auto":
        return "auto"
    if isinstance(value, list) and len(value) == 2 and all(type(number) in (int, float) for number in value):
        low, high = (float(number) for number in value)
        if -math.inf < low < high < math.inf:
            return (low, high)
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
