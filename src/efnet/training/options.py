"""The options of a run by their short names, as the command line and Python callers give them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_yaml
from efnet.models.config import NetworkOptions
from efnet.training.config import TrainConfig, flatten, get_recipe, read_config, to_values
from efnet.training.run_folder import RunFolder

SHORT = {
    "dataset": "data.dataset",
    "root": "data.root",
    "size": "data.size",
    "batch-size": "data.batch_size",
    "accumulate": "data.accumulate",
    "workers": "data.workers",
    "cache": "data.cache",
    "thermal-scale": "data.thermal_scale",
    "val-split": "data.val_split",
    "train-split": "data.train_split",
    "model": "network.name",
    **{name: f"network.{name}" for name in NetworkOptions.names()},
    "init": "network.init",
    "lr": "optimizer.lr",
    "weight-decay": "optimizer.weight_decay",
    "epochs": "schedule.epochs",
    "warmup-epochs": "schedule.warmup_epochs",
    "teacher": "teach.teacher",
    "unlabelled": "teach.unlabelled",
    "protocol": "validation.protocol",
    "val-every": "validation.every",
    "early-stopping": "validation.early_stopping",
    "tracker": "track.trackers",
    "devices": "parallel.devices",
    "nodes": "parallel.nodes",
    "strategy": "parallel.strategy",
}
"""Short option: its place in the configuration. From Python its dashes are underscores."""

CHANGEABLE = (
    "schedule.epochs",
    "data.root",
    "data.workers",
    "data.cache",
    "data.batch_size",
    "data.accumulate",
    "device",
    "parallel",
    "track",
    "optimizer.max_skipped",
    "validation.every",
    "validation.samples",
    "validation.early_stopping",
)
"""Options that may change when a run is resumed. A batch keeps its size; only its passes may change."""

_PLACES = flatten(to_values(TrainConfig()))


def make_config(base: TrainConfig, options: Mapping[str, Any], source: str = "the options") -> TrainConfig:
    """Return a configuration with some of its values changed.

    Args:
        base: the configuration to start from.
        options: values by short name (`lr`, `batch_size`), by place (`optimizer.clip`), or whole sections, as
            a dataclass (`loss=LossConfig(dice=1)`) or as a mapping of some of its values.
        source: named in errors.

    Raises:
        InputError: an unknown name, or a value of a wrong type or out of its range.
    """
    values = to_values(base)
    for name, value in options.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        for place, plain in _places(name, value):
            section, _, key = place.rpartition(".")
            if isinstance(plain, str) and (listed := as_list(place, plain)) != plain:
                plain = parse_yaml(listed)
            (values[section] if section else values)[key] = _plain(plain)
    check_network(base, values["network"]["name"], source)
    return read_config(values, source)


def check_network(base: TrainConfig, name: object, source: str) -> None:
    """Raise InputError if the authors' recipe of one network is given to another one."""
    if base.recipe == "authors" and name != base.network.name:
        raise InputError(
            f"{source}: `model` {name}, but the configuration is the authors' recipe of {base.network.name}; "
            f"take that of {name} if there is one, or another recipe"
        )


def place_of(name: str) -> str:
    """Return the place of an option given by its short name or by its place; an `InputError` if unknown."""
    place = SHORT.get(name.replace("_", "-")) or SHORT.get(name) or name
    if place not in _PLACES:
        known = [*(short.replace("-", "_") for short in SHORT), *_PLACES]
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean `{near[0]}`?" if near else "; the page on training lists them"
        raise InputError(f"there is no option '{name}'{hint}")
    return place


def _places(name: str, value: Any) -> list[tuple[str, Any]]:
    """Split a section into the places of its values."""
    if isinstance(value, Mapping) and any(place.startswith(f"{name}.") for place in _PLACES):
        return [(place_of(f"{name}.{key}"), inner) for key, inner in value.items()]
    return [(place_of(name), value)]


def as_list(place: str, text: str) -> str:
    """Return the list of YAML that a text such as 480x640, 0.3,0.7,1 or csv,wandb means at a place.

    Other texts, and those of other places, are returned as they are.
    """
    part, separator = r"-?\d[\d.e+-]*", ","
    if place == "track.trackers":
        part = r"(?!null\b)\w+"
    elif place == "data.size":
        separator = "x"
    elif place not in ("network.tau", "augment.scale", "data.thermal_scale", "loss.class_weights"):
        return text
    repeated = "*" if place == "track.trackers" else "+"  # one number is not a list
    is_list = re.fullmatch(rf"{part}({separator}{part}){repeated}", text)
    return f"[{text.replace(separator, ',')}]" if is_list else text


def _plain(value: Any) -> Any:
    """Return a value as YAML would hold it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):  # a number drawn from an array
        return value.item()
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def start_config(recipe: str | None, options: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a new run; errors as `make_config`, or an unknown recipe."""
    section = options.get("network")
    inner = section.get("name") if isinstance(section, Mapping) else getattr(section, "name", None)
    network = options.get("model", options.get("network.name", inner))  # recipe `authors` depends on it
    return make_config(get_recipe(recipe or TrainConfig().recipe, network), options)


def resumed_config(out: str | Path, options: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a run that is resumed, with what may change; an `InputError` else."""
    folder = RunFolder(out)
    folder.require_resumable()
    try:
        values = parse_yaml(folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder.config}: cannot be read ({error}); restore it, or start anew") from error
    return keep_settings(folder, make_config(read_config(values, str(folder.config)), options))


def keep_settings(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    """Return the configuration of a resumed run: a batch size `auto` is the one that was found before.

    Raises InputError if an option differs that must not change.
    """
    if config.data.batch_size == "auto":
        found = parse_yaml(folder.config.read_text(encoding="utf-8"))["data"]["batch_size"]
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=found))
    changes = folder.describe_changes(config, CHANGEABLE)
    if changes:
        raise InputError(
            f"{folder.path}: a run goes on as it began ({changes}); start a new one for a change"
        )
    return config
