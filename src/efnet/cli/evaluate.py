"""`efnet evaluate`: score a checkpoint on a labelled split.

`efnet evaluate --corrupt`: the same split with what goes wrong with cameras, at five severities.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from efnet.cli.options import add_model_arguments, check_file_writable, check_folder_writable, parse_size
from efnet.cli.score import (
    add_data_arguments,
    add_output_arguments,
    open_scored_split,
    progress_bar,
    write_report,
)
from efnet.core.distributed import world_size
from efnet.core.errors import InputError
from efnet.data.pairs import Pair, PairSet

if TYPE_CHECKING:
    from efnet.core.distributed import Group
    from efnet.evaluation.protocols import Protocol
    from efnet.evaluation.robustness import CountsJournal, Robustness
    from efnet.models.base import SegmentationModel
if TYPE_CHECKING:
    import torch

    from efnet.core.devices import Precision
    from efnet.core.distributed import Group
    from efnet.evaluation.metrics import Keep, LabelMap, Tally
    from efnet.models.base import SegmentationModel


_DEFAULTS = {"severities": None, "corrupt_seed": 0, "limit": None, "plot": None, "journal": None}


def add_corrupt_arguments(parser: ArgumentParser) -> None:
    """Declare the options that go with `--corrupt`."""
    parser.add_argument(
        "--corrupt",
        type=str | None,
        default=None,
        help="also evaluate with faults of the cameras: all, or groups (rgb, thermal, between, missing) and "
        "names by commas; --json, --markdown and --sheet are then of these",
    )
    parser.add_argument(
        "--severities", type=str | None, default=None, help="of --corrupt, by commas (default: 1,2,3,4,5)"
    )
    parser.add_argument("--corrupt-seed", type=int, default=0, help="of what --corrupt draws")
    parser.add_argument(
        "--limit", type=int | None, default=None, help="--corrupt: this many pairs, for a first look"
    )
    parser.add_argument(
        "--plot", type=str | None, default=None, help="--corrupt: draw to this PNG or SVG (needs matplotlib)"
    )
    parser.add_argument(
        "--journal",
        type=str | None,
        default=None,
        help="--corrupt: keep counts in this file; after an interruption the same command goes on from it",
    )


def check_corrupt_options(args: Namespace) -> None:
    """Refuse wrong values of the options that go with `--corrupt`, and those options without it.

    Raises:
        InputError: naming the option.
    """
    if args.corrupt is None:
        for key, default in _DEFAULTS.items():
            if args[key] != default:
                raise InputError(f"--{key.replace('_', '-')} goes with --corrupt; give that too, or leave it")
        return
    from efnet.evaluation.corruptions.suite import choose

    choose(_words(args.corrupt))
    _severities(args)
    if args.save_predictions:
        raise InputError("--save-predictions does not go with --corrupt; evaluate once without it")
    if args.corrupt_seed < 0:
        raise InputError(f"--corrupt-seed {args.corrupt_seed} is below 0")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit {args.limit} is below 1")
    for option in ("plot", "journal"):
        check_file_writable(f"--{option}", args[option])
    if args.plot:
        from efnet.reporting.plots import check_plot

        check_plot(args.plot)


def run_corrupted(
    args: Namespace,
    model: SegmentationModel,
    pairset: PairSet,
    protocol: Protocol,
    circumstances: Mapping[str, Any],
    group: Group,
    options: Mapping[str, Any],
) -> int:
    """Evaluate with corruptions, print the table, and write what was asked for.

    Args:
        args: with the options of `efnet evaluate`.
        model: on its device.
        pairset: the split.
        protocol: how it is scored.
        circumstances: see `build_report`.
        group: the processes that share the work.
        options: keywords of `evaluate`: device, precision, batches, ...

    Returns:
        0.
    """
    from efnet.evaluation.corruptions.suite import choose
    from efnet.evaluation.robustness import evaluate_corrupted, spread

    names, severities = _words(args.corrupt), _severities(args)
    choose(names, model.modality)
    chosen = pairset if args.limit is None else spread(pairset, args.limit)
    if len(chosen) < len(pairset):
        circumstances = {**circumstances, "limit": {"pairs": len(chosen), "of": len(pairset)}}
    settings = {"corrupt": names, "severities": list(severities), "seed": args.corrupt_seed}
    journal = group.once(lambda: _journal(args, model, chosen, protocol, {**circumstances, **settings}))
    with progress_bar("evaluate with corruptions") as advance:
        robustness = evaluate_corrupted(
            model,
            chosen,
            protocol,
            corruptions=names,
            severities=severities,
            seed=args.corrupt_seed,
            progress=advance,
            journal=journal,
            group=group,
            **options,
        )
    if group.is_main:
        _write(args, chosen, robustness, circumstances)
    return 0


def _journal(
    args: Namespace,
    model: SegmentationModel,
    pairset: PairSet,
    protocol: Protocol,
    settings: Mapping[str, Any],
) -> CountsJournal | None:
    """The journal, bound to the weights, the files and the options; none if not asked for."""
    if args.journal is None:
        return None
    from efnet.evaluation.robustness import CountsJournal
    from efnet.inference.journal import fingerprint as weights_of
    from efnet.training.run_folder import fingerprint as data_of

    bound = {
        **settings,
        "protocol": protocol.to_dict(pairset.classes),
        "weights": weights_of(model),
        "data": data_of(test=pairset),
        "thermal_scale": pairset.thermal_scale,
    }
    journal = CountsJournal(args.journal, bound, len(pairset.classes))
    if journal.known:
        print(f"going on from {args.journal}: {len(journal.known)} pairs are done", file=sys.stderr)
    return journal


def _write(
    args: Namespace, pairset: PairSet, robustness: Robustness, circumstances: Mapping[str, Any]
) -> None:
    """Print the table and write the files."""
    from efnet.core.files import write_image, write_json, write_text
    from efnet.evaluation.robustness_report import (
        build_robustness_report,
        robustness_lines,
        robustness_markdown,
        robustness_table,
    )

    report = build_robustness_report(robustness, circumstances)
    Console(width=None if sys.stdout.isatty() else 110).print(robustness_table(report))
    print("\n".join(robustness_lines(report)))
    if args.json:
        write_json(args.json, report)
    if args.markdown:
        write_text(args.markdown, robustness_markdown(report))
    if args.sheet:
        from efnet.data.sample import read_sample
        from efnet.evaluation.sheet import draw_corruptions

        sample = read_sample(pairset.pairs[0], pairset.classes, pairset.thermal_scale)
        drawn = draw_corruptions(sample, robustness.corruptions, robustness.severities, robustness.seed)
        write_image(args.sheet, drawn)
    if args.plot:
        from efnet.evaluation.robustness_report import plot_robustness

        title = f"{Path(args.checkpoint).name}, {pairset.dataset} {pairset.split}, {len(pairset)} pairs"
        plot_robustness(args.plot, report, title)
    written = [path for path in (args.json, args.markdown, args.sheet, args.plot) if path]
    if written:
        print(f"wrote {', '.join(written)}", file=sys.stderr)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _severities(args: Namespace) -> tuple[int, ...]:
    """The severities asked for, all unless they are named.

    Raises:
        InputError: not numbers from 1 to 5.
    """
    from efnet.evaluation.corruptions.suite import SEVERITIES, check_severities

    if args.severities is None:
        return SEVERITIES
    words = _words(args.severities)
    if not all(word.isdecimal() and word.isascii() for word in words):
        raise InputError(f"--severities {args.severities}: give whole numbers from 1 to 5, such as 1,3,5")
    return check_severities([int(word) for word in words])


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
    from efnet.core.devices import pick_device
    from efnet.core.distributed import Group

    if world_size() == 1:
        return pick_device(device), Group.alone()
    from efnet.training.parallel import make_fabric

    fabric = make_fabric(device, precision)
    return fabric.device, Group(fabric.device)


def _print_standing(model: SegmentationModel, tally: Tally, circumstances: Mapping[str, Any]) -> None:
    """The figure among published ones, or in a line why it is not put there."""
    from efnet.evaluation.report import build_report
    from efnet.studies.leaderboard import CAVEAT, objection, standing, standing_table

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
    from efnet.models.base import MIN_SIZE

    try:
        return parse_size(text, MIN_SIZE)
    except InputError as error:
        raise InputError(f"{error}, or native") from None


def _check_options(args: Namespace) -> Precision:
    """Refuse wrong values before anything is loaded; returns the precision."""
    from efnet.core.devices import check_precision

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
    from efnet.core.files import write_image
    from efnet.inference.postprocess import index_image

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
