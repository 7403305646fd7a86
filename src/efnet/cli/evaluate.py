"""`efnet evaluate`: score a checkpoint on a labelled split."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from efnet.cli.evaluate_corrupt import add_corrupt_arguments, check_corrupt_options, run_corrupted
from efnet.cli.options import add_model_arguments, check_folder_writable, parse_size
from efnet.cli.reporting import (
    add_data_arguments,
    add_output_arguments,
    open_scored_split,
    progress_bar,
    write_report,
)
from efnet.data.pairs import Pair, PairSet
from efnet.errors import InputError
from efnet.ranks import world_size

if TYPE_CHECKING:
    import torch

    from efnet.devices import Precision
    from efnet.evaluation.confusion import LabelMap
    from efnet.evaluation.tally import Keep, Tally
    from efnet.group import Group
    from efnet.models.base import SegmentationModel

Measured = TypeVar("Measured")

DESCRIPTION = "Score a checkpoint on a labelled split, under a named protocol."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_model_arguments(parser)
    add_data_arguments(parser)
    add_output_arguments(parser)
    parser.add_argument(
        "--save-predictions",
        type=str | None,
        default=None,
        help="write every prediction to this folder, as palette PNG at the scored size",
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over three scales and mirror images (six times the work)"
    )
    parser.add_argument(
        "--size",
        type=str | None,
        default=None,
        help="HxW that the network sees, or 'native' (default: what the model was made for)",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    add_corrupt_arguments(parser)


def run(args: Namespace) -> int:
    """Evaluate; see `efnet evaluate --help`.

    Returns:
        0.

    Raises:
        InputError: the options, the checkpoint or the data are wrong.
    """
    precision = _check_options(args)
    pairset, protocol = open_scored_split(args)
    from efnet.evaluation.evaluate import TTA, check_classes, evaluate
    from efnet.models.checkpoint import load_checkpoint

    device, group = _place(args.device, precision)
    model = load_checkpoint(args.checkpoint)
    check_classes(model.classes, pairset)
    size = input_size(args.size, model.input.size)
    pairset = replace(pairset, thermal_scale=model.input.thermal_scale)
    model = model.to(device)
    options: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "batch_size": args.batch_size,
        "tta": args.tta,
        "input_size": size,
    }

    def measure(pairs: PairSet, keep: Keep | None, **further: Any) -> Tally:
        workers = min(args.workers, len(pairs))
        return evaluate(model, pairs, protocol, workers=workers, keep=keep, **further, **options)

    circumstances = {
        "dataset": pairset.dataset,
        "split": pairset.split,
        "checkpoint": args.checkpoint,
        **_describe(model),
        "input_size": list(size) if size else None,
        "tta": TTA if args.tta else None,
        "precision": precision,
    }
    if args.corrupt is not None:
        return _naming_all_faults(
            pairset,
            lambda: run_corrupted(
                args, model, pairset, protocol, circumstances, group, {**options, "workers": args.workers}
            ),
        )
    with progress_bar("evaluate") as advance:
        keep = _writer(args, pairset)
        tally = _naming_all_faults(pairset, lambda: measure(pairset, keep, progress=advance, group=group))
    if not group.is_main:
        return 0
    write_report(args, pairset, tally, circumstances, again=measure)
    _print_standing(model, tally, circumstances)
    return 0


def _place(device: str, precision: Precision) -> tuple[torch.device, Group]:
    """Where this process computes, and with which others it shares the split."""
    from efnet.devices import pick_device
    from efnet.group import Group

    if world_size() == 1:
        return pick_device(device), Group.alone()
    from efnet.training.fabric import make_fabric

    fabric = make_fabric(device, precision)
    return fabric.device, Group(fabric.device)


def _print_standing(model: SegmentationModel, tally: Tally, circumstances: Mapping[str, Any]) -> None:
    """The figure among published ones, or in a line why it is not put there."""
    from efnet.evaluation.report import build_report
    from efnet.published.standing import CAVEAT, objection, standing, standing_table

    report = build_report(tally, circumstances)
    reason = objection(report)
    if reason is not None:
        print(f"not among published results: {reason}")
        return
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(standing_table(standing(report), f"yours ({model.name})", parameters))
    print(CAVEAT)


def input_size(text: str | None, default: tuple[int, int] | None) -> tuple[int, int] | None:
    """The size that the network sees: `HxW`, `native` (every image's own: None), or the model's.

    Raises:
        InputError: not a size, or a side below 32 pixels.
    """
    if text is None:
        return default
    if text == "native":
        return None
    from efnet.models.validation import MIN_SIZE

    try:
        return parse_size(text, MIN_SIZE)
    except InputError as error:
        raise InputError(f"{error}, or native") from None


def _check_options(args: Namespace) -> Precision:
    """Refuse wrong values before anything is loaded; returns the precision."""
    from efnet.devices import check_precision

    input_size(args.size, None)
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size} is below 1")
    if args.workers < 0:
        raise InputError(f"--workers {args.workers} is below 0")
    check_folder_writable("--save-predictions", args.save_predictions)
    check_corrupt_options(args)
    return check_precision(args.precision)


def _describe(model: SegmentationModel) -> dict[str, Any]:
    """What a report says of the model; `selected_on` is the split on which its checkpoint was chosen."""
    return {
        "model": model.name,
        "modality": model.modality,
        "selected_on": model.training_summary.get("selected_on"),
    }


def _writer(args: Namespace, pairset: PairSet) -> Keep | None:
    """Writes predictions as they come, if asked to."""
    if not args.save_predictions:
        return None
    from efnet.files import write_image
    from efnet.prediction.render import index_image

    folder = Path(args.save_predictions)

    def write(pair: Pair, prediction: LabelMap, _: LabelMap) -> None:
        write_image(folder / f"{pair.name}.png", index_image(prediction, pairset.classes))

    return write


def _naming_all_faults(pairset: PairSet, measure: Callable[[], Measured]) -> Measured:
    """Measure; where a damaged file stops that, look through the whole split and name all that are."""
    from efnet.data.verify import verify

    verify(pairset, headers_only=True)  # what is missing shows before the long run
    try:
        return measure()
    except InputError:
        verify(pairset)
        raise
