"""Options declared as tables, and the entries that several commands share."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import check_file_writable, option_name
from efnet.core.errors import InputError
from efnet.core.shipped import DEFAULT_WEIGHTS

if TYPE_CHECKING:
    from efnet.inference.inputs import InputPair
    from efnet.inference.predictor import Predictor

CHECKPOINT = (str, "run folder, checkpoint folder, or owner/name on the hub")
_ITS_DEFAULT = "by default the weights that come with efnet, for streets in MFNet's classes"
NETWORK = (DEFAULT_WEIGHTS, f"{CHECKPOINT[1]}; {_ITS_DEFAULT}")
ANY_NETWORK = (
    DEFAULT_WEIGHTS,
    f"run folder, checkpoint folder, file of efnet export, or owner/name on the hub; {_ITS_DEFAULT}",
)
"""Checkpoints of commands that work without training, and where exported files serve too."""

ROOT = (str, "the data set's folder")

DEVICE = ("auto", "auto, cpu, cuda or cuda:1")
PRECISION = ("32", "32 or bf16 (autocast)")
PALETTE = (
    "thermal images in false colours: auto, a colour map (inferno, iron, rainbow, white-hot, ...), or a file "
    "with the camera's colour bar"
)

MATCH: tuple[list[str], str] = (
    [],
    "how names make pairs, below the folders --rgb and --thermal: rgb=original_{id}.jpg "
    "thermal=heat_{id}.jpg; {id} is what both share, {any} may differ",
)


def add_options(parser: ArgumentParser, **options: str | tuple[Any, str]) -> None:
    """Declare options: parameter name to (type or default, help).

    A type (`Path`) declares a required option; `int | None` declares one that may be left out, as a help
    text alone does for `str | None`. A `Literal` has its first word as default. A default gives its type;
    the default False makes a flag, a list takes several values.
    """
    for name, entry in options.items():
        given, text = (str | None, entry) if isinstance(entry, str) else entry
        if given is False:
            parser.add_argument(option_name(name), action="store_true", help=text)
        elif isinstance(given, type):
            parser.add_argument(option_name(name), type=given, required=True, help=text)
        elif isinstance(given, UnionType):
            parser.add_argument(option_name(name), type=given, default=None, help=text)
        elif get_origin(given) is Literal:
            parser.add_argument(option_name(name), type=given, default=get_args(given)[0], help=text)
        elif isinstance(given, list):
            kind = type(given[0]) if given else str
            parser.add_argument(option_name(name), type=kind, nargs="+", default=given, help=text)
        else:
            parser.add_argument(option_name(name), type=type(given), default=given, help=text)


def dataset_option() -> tuple[type, str]:
    """Return the option that names a data set: `add_options(parser, dataset=dataset_option())`."""
    from efnet.data.layouts import layout_names

    return str, f"{', '.join(layout_names())}, or the path of a dataset.yaml"


def apply_match(args: Namespace) -> None:
    """Put the patterns of `--match` behind the folders they belong to; an `InputError` for a wrong one."""
    from efnet.data.layouts.patterns import ID, is_pattern

    for entry in (part for word in args.match for part in word.split(",") if part):
        camera, pattern = (part.strip("\"' ") for part in (*re.split("[=:]", entry, maxsplit=1), "")[:2])
        if camera not in ("rgb", "thermal", "rgbt") or not is_pattern(pattern):
            raise InputError(f"--match {entry}: give rgb=NAME_{ID}.jpg and thermal=NAME_{ID}.jpg")
        if args.get(camera) in (None, "none"):
            raise InputError(f"--match {entry}: give the folder of these images too, --{camera} DIR")
        if not Path(args[camera]).expanduser().is_dir():
            raise InputError(f"--match {entry}: --{camera} {args[camera]} is not a folder; give one")
        args[camera] = str(Path(args[camera]) / pattern)


def say_default(checkpoint: str, predictor: Predictor) -> None:
    """Print what the weights were trained on, if they are those that come with the package."""
    if checkpoint == DEFAULT_WEIGHTS and not Path(checkpoint).exists():
        seen = predictor.model.training_summary
        pairs = f"{seen['train_pairs']} pairs of {seen['dataset']}"
        print(f"weights {checkpoint}, trained on {pairs}; --checkpoint takes your own", flush=True)


def check_minima(args: Namespace, **minima: int) -> None:
    """Raise an `InputError` for a number below its minimum; None passes."""
    for name, minimum in minima.items():
        if args[name] is not None and args[name] < minimum:
            raise InputError(f"{option_name(name)} {args[name]}: give {minimum} or more")


def check_outputs(args: Namespace, *options: str) -> None:
    """Raise an `InputError` if a file that one of the options names could not be written at the end."""
    for option in options:
        check_file_writable(option_name(option), args[option])


def say_written(args: Namespace, *options: str) -> None:
    """Print the files that the options name, where they are given, on stderr."""
    if written := [path for option in options if (path := args.get(option))]:
        print(f"wrote {', '.join(written)}", file=sys.stderr)


def split_words(text: str) -> list[str]:
    """Return the words that commas separate, each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


CHECKS = ("check_rgb", "check_thermal", "check_rgbt")
"""Options that name images."""


def add_check_arguments(parser: ArgumentParser) -> None:
    """Declare the options that name the pairs, and how many of them to use."""
    add_options(
        parser,
        check_rgb="compare on these colour images",
        check_thermal="and these thermal images",
        check_rgbt="or these four-channel images, thermal last",
        check_pairs=(20, "at most so many of them"),
    )


CALIBRATIONS = ("calibrate_rgb", "calibrate_thermal", "calibrate_rgbt", "calibrate_dataset")
"""Options that name images which measure the ranges of int8."""


def add_calibration_arguments(parser: ArgumentParser) -> None:
    """Declare the options that name the pairs for int8, and how many of them to use."""
    add_options(
        parser,
        calibrate_rgb="int8: measure ranges of activations on these colour images",
        calibrate_thermal="and these thermal images",
        calibrate_rgbt="or these four-channel images, thermal last",
        calibrate_dataset="or on a data set of this name or YAML file (labels are not read)",
        calibrate_root="the data set's folder",
        calibrate_split=("train", "its split"),
        calibrate_pairs=(32, "at most so many of them"),
    )


def find_check_pairs(args: Namespace) -> tuple[InputPair, ...]:
    """Find the pairs to compare on, spread over all that exist; none if no option names images."""
    return _spread(_find(args, "check"), args.check_pairs)


def find_calibration_pairs(args: Namespace) -> tuple[InputPair, ...]:
    """Find the pairs that measure the ranges of int8, likewise."""
    from efnet.data.layouts import open_split
    from efnet.inference.inputs import InputPair

    if (args.calibrate_dataset is None) != (args.calibrate_root is None):
        raise InputError("`calibrate_dataset` and `calibrate_root` belong together; give both")
    found = _find(args, "calibrate")
    if args.calibrate_dataset is not None:
        if found:
            raise InputError("`calibrate_dataset` already names pairs; leave out the other images")
        try:
            split = open_split(args.calibrate_dataset, args.calibrate_root, args.calibrate_split)
        except InputError as error:
            names = ("dataset", "root", "split")
            raise error.renamed({name: f"calibrate_{name}" for name in names}) from None
        found = tuple(InputPair(pair.name, pair.rgb, pair.thermal) for pair in split.pairs if not pair.flip)
    return _spread(found, args.calibrate_pairs)


def _find(args: Namespace, purpose: str) -> tuple[InputPair, ...]:
    from efnet.inference.inputs import find_pairs

    names = {name: f"{purpose}_{name}" for name in ("rgb", "thermal", "rgbt")}
    if all(args[name] is None for name in names.values()):
        return ()
    try:
        return find_pairs(*(args[name] for name in names.values()))
    except InputError as error:
        raise error.renamed(names) from None


def _spread(found: tuple[InputPair, ...], count: int) -> tuple[InputPair, ...]:
    return found[:: max(1, -(-len(found) // count))]


def words_of(args: Namespace, names: tuple[str, ...]) -> list[str]:
    """Return options as they were given, for another command that has them."""
    given = [name for name in names if args[name] is not None]
    return [word for name in given for word in (option_name(name), str(args[name]))]


def check_words(args: Namespace) -> list[str]:
    """Return the options of `add_check_arguments` for another command."""
    return words_of(args, (*CHECKS, "check_pairs"))


def calibration_words(args: Namespace) -> list[str]:
    """Return the options of `add_calibration_arguments` for another command."""
    return words_of(args, (*CALIBRATIONS, "calibrate_root", "calibrate_split", "calibrate_pairs"))
