"""`efnet train`: train from a recipe, YAML files and options; each overrides the one before."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jsonargparse
from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options
from efnet.cli.options import take_values
from efnet.core.distributed import rank
from efnet.core.errors import InputError
from efnet.core.safe_parse import read_yaml
from efnet.training import Interrupted, RunSummary, TrainConfig, get_recipe, train
from efnet.training.config import flatten, from_parsed
from efnet.training.logs import Reporter
from efnet.training.options import SHORT, as_list, check_network, keep_settings
from efnet.training.run_folder import RunFolder

DESCRIPTION = (
    "Train a network. Options may be given short (--epochs 60), or by their place in a configuration file "
    "(--schedule.epochs 60). A file given with --config overrides the recipe, options override the file. "
    "Ctrl-C saves; --resume goes on."
)


def parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    """Parse the options over the recipe, or over the run that is resumed, and make the configuration."""
    words = [_expand(word) for word in words]
    words = [_as_list(word, before) for word, before in zip(words, ["", *words], strict=False)]
    files, words = take_values(words, "--config")
    out, named = (next(reversed(take_values(words, option)[0]), None) for option in ("--out", "--recipe"))
    if "--resume" in words and out:
        folder = RunFolder(out)
        folder.require_resumable()
        _read_config(str(folder.config))
        files = [str(folder.config), *files]
    else:
        configs = [_read_config(file) for file in reversed(files)]
        listed = next((str(config["recipe"]) for config in configs if config.get("recipe")), None)
        networks = [(config.get("network") or {}).get("name") for config in configs]
        given = [*reversed(take_values(words, "--network.name")[0]), *filter(None, networks)]
        if named and listed and named != listed:
            raise InputError(f"--recipe {named}, but the file given with --config says recipe: {listed}")
        recipe = get_recipe(named or listed or TrainConfig().recipe, next(iter(given), None))
        for config, name in zip(configs, networks, strict=True):
            if name and config.get("recipe") == "authors":
                check_network(get_recipe("authors", name), recipe.network.name, "--config")
        parser.set_defaults(flatten(dataclasses.asdict(recipe)))
    # Files come first wherever the user put them, so that options override them.
    configured = [f"--config={file}" for file in files]
    try:
        args: Namespace = parser.instantiate(parser.parse_args([*configured, *words]))
    except InputError as error:
        if files and _fault(parser, [*configured, "--out=run"]) == str(error):  # no option's
            raise InputError(f"{', '.join(files)}: {error}") from error
        raise
    return args


def _fault(parser: ArgumentParser, words: list[str]) -> str | None:
    """Describe what is wrong with the values of words that can be parsed; None if nothing is."""
    try:
        parser.instantiate(parser.parse_args(words))
    except InputError as error:
        return str(error)
    return None


def _read_config(name: str) -> dict[str, Any]:
    """Read the sections of a configuration file; their options are checked when they are parsed."""
    if not name:
        raise InputError("--config: give a YAML file")
    values = read_yaml(name, "schedule: {epochs: 60}", f"--config {name}")
    if _names_class(values):
        raise InputError(f"--config {name}: class_path and init_args are not accepted; write plain values")
    for field in dataclasses.fields(TrainConfig):
        section = dataclasses.is_dataclass(getattr(TrainConfig(), field.name))
        if section and not isinstance(values.get(field.name, {}), dict):
            raise InputError(f"--config {name}: '{field.name}' is a section; write its options below it")
    return values


def _names_class(value: Any) -> bool:
    """Return whether values name a class: jsonargparse would import its module before refusing it."""
    if isinstance(value, dict):
        return not {"class_path", "init_args"}.isdisjoint(value) or any(map(_names_class, value.values()))
    return isinstance(value, list) and any(map(_names_class, value))


def _expand(word: str) -> str:
    """Replace a short option, such as `--lr` in `--lr=1`, with its place in the configuration."""
    match = re.fullmatch(r"--([a-z-]+)((=.*)?)", word, re.DOTALL)
    return f"--{SHORT[match[1]]}{match[2]}" if match and match[1] in SHORT else word


def _as_list(word: str, before: str) -> str:
    """Replace values such as 480x640 or 0.3,0.7,1.0 with the lists that they mean."""
    option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
    if word.startswith("--") and not equals:
        return word
    value = as_list(option.removeprefix("--"), value)
    return f"{option}={value}" if equals else value


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        out=(str, "folder of the run"),
        resume=(False, "go on with the run in --out"),
        quiet=(False, "no progress"),
    )
    add_config_arguments(parser)


def add_config_arguments(parser: ArgumentParser) -> None:
    """Declare the options of a configuration, which other commands that train share; `parse` reads them."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    short = (f"--{option} for --{place}" for option, place in SHORT.items())
    parser.epilog = f"Short options: {', '.join(short)}"
    parser.add_argument("--config", action="config", help="YAML file of options by their place")
    parser.add_class_arguments(TrainConfig)


def run(args: Namespace) -> int:
    """Train, or continue a run; return 0."""
    config = from_parsed(args)
    if args.resume:
        config = keep_settings(RunFolder(args.out), config)
    try:
        summary = train(config, args.out, resume=args.resume, reporter=Reporter(quiet=args.quiet))
    except Interrupted as interrupt:
        remedy = f"with: efnet train --out {args.out} --resume"
        raise Interrupted(str(interrupt).replace("with `resume`", remedy)) from None
    if rank():
        return 0
    print(_describe(summary))
    return 0


def _describe(summary: RunSummary) -> str:
    skipped = f", {summary.skipped} steps skipped" if summary.skipped else ""
    stopped = f", ended early: {summary.stopped}" if summary.stopped else ""
    return (
        f"{summary.out}: best val mIoU {100 * summary.best_miou:.2f} in epoch {summary.best_epoch} of "
        f"{summary.epochs}, {summary.seconds / 60:.1f} min{skipped}{stopped}"
    )
