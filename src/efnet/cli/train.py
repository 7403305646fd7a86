"""`efnet train`: a recipe, a YAML file and options, in this order of precedence, to a run folder."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from jsonargparse import ArgumentParser, Namespace

from efnet.core.distributed import rank
from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_yaml
from efnet.training import TrainConfig, get_recipe, train
from efnet.training.logs import Reporter
from efnet.training.run_folder import RunFolder

DESCRIPTION = (
    "Train a network. Options may be given short (--epochs 60), or by their place in a configuration file "
    "(--schedule.epochs 60). A file given with --config overrides the recipe, options override the file. "
    "Ctrl-C saves; --resume goes on."
)

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
    "fusion": "network.fusion",
    "position": "network.position",
    "tau": "network.tau",
    "decoder": "network.decoder",
    "modality": "network.modality",
    "init": "network.init",
    "lr": "optimizer.lr",
    "weight-decay": "optimizer.weight_decay",
    "epochs": "schedule.epochs",
    "warmup-epochs": "schedule.warmup_epochs",
    "protocol": "validation.protocol",
    "val-every": "validation.every",
    "devices": "parallel.devices",
    "nodes": "parallel.nodes",
    "strategy": "parallel.strategy",
}
"""Short option: its place in the configuration."""

CHANGEABLE = (
    "schedule.epochs",
    "data.root",
    "data.workers",
    "data.cache",
    "data.batch_size",
    "data.accumulate",
    "device",
    "parallel",
    "optimizer.max_skipped",
    "validation.every",
    "validation.samples",
)
"""What may differ when a run goes on; of the batches only how they are parted."""


def prepare(words: list[str]) -> list[str]:
    """Write short options out, and put what they override before them.

    The order of precedence is that of the words: the recipe, or the run that goes on; then files; then
    options, wherever they stood.

    Raises:
        InputError: an unknown recipe, two that differ, or nothing to resume.
    """
    words = [_expand(word) for word in words]
    words = [_as_list(word, before) for word, before in zip(words, ["", *words], strict=False)]
    files, words = _take_files(words)
    out = _value_of(words, "--out")
    if "--resume" in words and out:
        folder = RunFolder(out)
        folder.require_resumable()
        _read_config(str(folder.config))
        return [f"--config={folder.config}", *files, *words]
    named = _value_of(words, "--recipe")
    listed = next((name for name in map(_recipe_of, reversed(files)) if name), None)
    if named and listed and named != listed:
        raise InputError(f"--recipe {named}, but the file given with --config says recipe: {listed}")
    recipe = get_recipe(named or listed or TrainConfig().recipe)
    return [*_differences(recipe), *files, *words]


def _take_files(words: list[str]) -> tuple[list[str], list[str]]:
    """The `--config` options, each as one word, and the other words."""
    files: list[str] = []
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            files.append(f"--config={next(remaining, '')}")
        else:
            (files if word.startswith("--config=") else others).append(word)
    return files, others


def _recipe_of(word: str) -> str | None:
    """The recipe that a `--config=FILE` names."""
    values = _read_config(word.partition("=")[2])
    return str(values["recipe"]) if "recipe" in values else None


def _read_config(name: str) -> dict[str, Any]:
    """What a configuration file holds: sections of options; those are checked when they are parsed.

    Raises:
        InputError: it cannot be read, is no YAML of plain values, or has no sections.
    """
    if not name:
        raise InputError("--config: give a YAML file")
    try:
        values = parse_yaml(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {name}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"--config {name}: is not valid YAML ({error}); correct it there") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {name}: holds no options; write them as 'schedule: {{epochs: 60}}'")
    if _names_class(values):
        raise InputError(f"--config {name}: class_path and init_args are not accepted; write plain values")
    for field in dataclasses.fields(TrainConfig):
        section = dataclasses.is_dataclass(getattr(TrainConfig(), field.name))
        if section and not isinstance(values.get(field.name, {}), dict):
            raise InputError(f"--config {name}: '{field.name}' is a section; write its options below it")
    return values


def _names_class(value: Any) -> bool:
    """Whether values name a class: jsonargparse would import its module before it refuses the class."""
    if isinstance(value, dict):
        return not {"class_path", "init_args"}.isdisjoint(value) or any(map(_names_class, value.values()))
    return isinstance(value, list) and any(map(_names_class, value))


def _expand(word: str) -> str:
    """`--lr` or `--lr=1` with the option's place written out."""
    match = re.fullmatch(r"--([a-z-]+)((=.*)?)", word, re.DOTALL)
    return f"--{SHORT[match[1]]}{match[2]}" if match and match[1] in SHORT else word


def _as_list(word: str, before: str) -> str:
    """Values as people write them, 480x640 or 0.3,0.7,1.0, as the lists that they stand for."""
    option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
    if word.startswith("--") and not equals:
        return word
    if option.removeprefix("--") not in ("data.size", "network.tau", "augment.scale", "data.thermal_scale"):
        return word
    separator = "x" if option == "--data.size" else ","
    number = r"-?\d[\d.e+-]*"
    if re.fullmatch(rf"{number}({separator}{number})+", value):
        value = f"[{value.replace(separator, ',')}]"
    return f"{option}={value}" if equals else value


def _value_of(words: list[str], option: str) -> str | None:
    """The value that the words give an option, the last one if several do."""
    value = None
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == option:
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


def _differences(recipe: TrainConfig) -> list[str]:
    """The recipe as options: what it changes of the defaults."""
    default, values = _flat(dataclasses.asdict(TrainConfig())), _flat(dataclasses.asdict(recipe))
    return [f"--{place}={json.dumps(value)}" for place, value in values.items() if value != default[place]]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser.epilog = "Short options: " + ", ".join(
        f"--{short} for --{place}" for short, place in SHORT.items()
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--config", action="config", help="YAML file of options by their place")
    parser.add_class_arguments(TrainConfig)


def run(args: Namespace) -> int:
    """Train, or go on training."""
    config = _config(args)
    if args.resume:
        _refuse_changes(RunFolder(args.out), config)
    summary = train(config, args.out, resume=args.resume, reporter=Reporter(quiet=args.quiet))
    if rank():
        return 0
    skipped = f", {summary.skipped} steps skipped" if summary.skipped else ""
    print(
        f"{summary.out}: best val mIoU {100 * summary.best_miou:.2f} in epoch {summary.best_epoch} of "
        f"{summary.epochs}, {summary.seconds / 60:.1f} min{skipped}"
    )
    return 0


def _config(args: Namespace) -> TrainConfig:
    """The configuration among the parsed options."""
    names = [field.name for field in dataclasses.fields(TrainConfig)]
    parser = ArgumentParser()
    parser.add_class_arguments(TrainConfig)
    values = parser.instantiate(parser.parse_object({name: args[name] for name in names}))
    return TrainConfig(**{name: values[name] for name in names})


def _refuse_changes(folder: RunFolder, config: TrainConfig) -> None:
    """A run that goes on keeps what decides its result."""
    # Options that came after the run began had their defaults.
    before = _flat(json.loads(json.dumps(dataclasses.asdict(TrainConfig()))))
    before |= _flat(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    now = _flat(json.loads(json.dumps(dataclasses.asdict(config))))
    changed = [
        place
        for place, value in now.items()
        if before.get(place) != value and not place.startswith(CHANGEABLE)
    ]
    if changed:
        listed = ", ".join(f"{place} was {before.get(place)}, now {now[place]}" for place in changed)
        raise InputError(f"{folder.path}: a run goes on as it began ({listed}); start a new one for a change")
