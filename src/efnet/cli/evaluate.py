"""`efnet evaluate`: score a checkpoint or exported file on a labelled split.

`efnet evaluate --corrupt` scores the same split with faults of the cameras, at five severities.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from efnet.cli import score
from efnet.cli.arguments import add_options, check_minima, check_outputs, split_words
from efnet.cli.inference_options import InferenceOptions, MissingCount, add_inference_arguments
from efnet.cli.options import check_folder_writable, option_name, parse_size
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar
from efnet.data.pairs import Pair, PairSet

if TYPE_CHECKING:
    from PIL.Image import Image

    from efnet.core.distributed import Group
    from efnet.evaluation.metrics import Keep, LabelMap, Tally
    from efnet.evaluation.protocols import Protocol
    from efnet.evaluation.report import Report
    from efnet.evaluation.robustness import CountsJournal, Robustness
    from efnet.inference.predictor import Predictor

DESCRIPTION = "Score a checkpoint or exported file on a labelled split, under a named protocol."

_CORRUPT_DEFAULTS = {"severities": None, "corrupt_seed": 0, "limit": None, "plot": None, "journal": None}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    # Figures describe the images as they are, unless the user asks for replacements.
    add_inference_arguments(parser, missing="ignore")
    score.add_data_arguments(parser)
    score.add_output_arguments(parser)
    add_options(
        parser,
        save_predictions="write every prediction to this folder, as palette PNG at the scored size",
        tta=(False, "average over three scales and mirror images (six times the work)"),
        size="HxW that the network sees, or 'native' (default: what the model was made for)",
        workers=(2, "processes that read images"),
        reliability="report the calibration error, and draw the reliability diagram to this SVG",
        corrupt="also evaluate with faults of the cameras: all, or groups (rgb, thermal, between, missing) "
        "and names by commas; --json, --markdown and --sheet are then of these",
        severities="of --corrupt, by commas (default: 1,2,3,4,5)",
        corrupt_seed=(0, "of what --corrupt draws"),
        limit=(int | None, "--corrupt: this many pairs, for a first look"),
        plot="--corrupt: draw to this PNG or SVG (needs matplotlib)",
        journal="--corrupt: keep counts in this file; after an interruption the same command goes on from it",
    )


def run(args: Namespace) -> int:
    """Evaluate; return 0."""
    options = _check_options(args)
    pairset, protocol = score.open_scored_split(args)
    from efnet.data.verify import verify
    from efnet.evaluation.scoring import fit_split

    device, group = _place(args)
    predictor = options.load(args, device)
    predictor.size = input_size(args.size, predictor.size)
    pairset = fit_split(predictor, pairset)
    try:
        return _run(args, options, predictor, pairset, protocol, group)
    except InputError:
        verify(pairset)  # a damaged file stopped the run: report every damaged file
        raise


def _run(
    args: Namespace,
    options: InferenceOptions,
    predictor: Predictor,
    pairset: PairSet,
    protocol: Protocol,
    group: Group,
) -> int:
    """Evaluate on the pairs as they are, or with corruptions too."""
    from efnet.evaluation.calibration import Reliability
    from efnet.evaluation.evaluate import evaluate
    from efnet.evaluation.robustness import Robustness, spread
    from efnet.evaluation.scoring import describe

    circumstances = describe(predictor, pairset, args.checkpoint, args.tta, options.settings())
    if args.limit is not None and args.limit < len(pairset):
        circumstances["limit"] = {"pairs": args.limit, "of": len(pairset)}
        pairset = spread(pairset, args.limit)
    what = "evaluate" if args.corrupt is None else "evaluate with corruptions"
    reliability = Reliability() if args.reliability else None
    measured: Tally | Robustness
    with progress_bar(what, disable=not group.is_main) as bar:
        missing = MissingCount(predictor.spared, bar.print if group.is_main else lambda line: None)
        shared = {
            "batch_size": args.batch_size,
            "tta": args.tta,
            "workers": min(args.workers, len(pairset)),
            "missing": lambda pair, found: missing.add(pair.name, found),
            "progress": bar,
            "group": group,
        }
        if args.corrupt is None:
            measured = evaluate(
                predictor,
                pairset,
                protocol,
                keep=_writer(args, pairset),
                probe=reliability.probe(protocol) if reliability else None,
                boundaries=True,
                **shared,
            )
        else:
            measured = _measure_corrupted(args, predictor, pairset, protocol, circumstances, shared)
    counts = sum(group.gather(missing.counts), Counter())
    reliability = reliability.gathered(group) if reliability else None
    if not group.is_main:
        return 0
    for camera, count in counts.items():
        print(f"note: {count} images without a usable {camera} image", file=sys.stderr)
    if isinstance(measured, Robustness):
        _write(args, pairset, measured, circumstances)
        return 0

    def again(pairs: PairSet, keep: Keep) -> Tally:
        return evaluate(predictor, pairs, protocol, batch_size=args.batch_size, tta=args.tta, keep=keep)

    more = {"calibration": reliability.to_dict(predictor.temperature)} if reliability else {}
    if reliability:
        _draw_reliability(args, pairset, more["calibration"])
    report = score.write_report(args, pairset, measured, circumstances, again, more)
    _print_standing(predictor, report)
    return 0


def _draw_reliability(args: Namespace, pairset: PairSet, calibration: Mapping[str, Any]) -> None:
    from efnet.core.files import write_text
    from efnet.reporting.score_charts import chart_file, reliability_chart
    from efnet.reporting.tables import percent

    bins = [
        (each["confidence"] or 0.0, each["accuracy"] or 0.0, each["pixels"]) for each in calibration["bins"]
    ]
    name = f"{pairset.dataset} {pairset.split}, {len(pairset)} pairs: ECE {percent(calibration['ece'])} %"
    write_text(args.reliability, chart_file(reliability_chart(bins, name)))


def _check_options(args: Namespace) -> InferenceOptions:
    """Refuse wrong values before anything is loaded."""
    input_size(args.size, None)
    check_minima(args, workers=0)
    if args.size is not None and args.tile is not None:
        raise InputError("--tile cuts images at their own resolution; leave out --size")
    check_folder_writable("--save-predictions", args.save_predictions)
    check_outputs(args, "reliability")
    if args.reliability and Path(args.reliability).suffix.lower() != ".svg":
        raise InputError(f"--reliability {args.reliability}: give a file name that ends in .svg")
    if args.corrupt is not None:
        _check_corrupt_options(args)
    for key, default in _CORRUPT_DEFAULTS.items():
        if args.corrupt is None and args[key] != default:
            raise InputError(f"{option_name(key)} goes with --corrupt; give that too, or leave it")
    return InferenceOptions.read(args, "ignore")


def _check_corrupt_options(args: Namespace) -> None:
    """Refuse wrong values of the options that go with `--corrupt`."""
    from efnet.evaluation.corruptions.suite import choose
    from efnet.reporting.plots import check_plot

    choose(split_words(args.corrupt))
    _severities(args)
    for option in ("save_predictions", "reliability", "worst"):
        if args[option]:
            raise InputError(f"{option_name(option)} does not go with --corrupt; evaluate once without it")
    check_minima(args, corrupt_seed=0, limit=1)
    check_outputs(args, "plot", "journal")
    if args.plot:
        check_plot(args.plot)


def _measure_corrupted(
    args: Namespace,
    predictor: Predictor,
    pairset: PairSet,
    protocol: Protocol,
    circumstances: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> Robustness:
    """Evaluate with corruptions; `shared` are keywords of `evaluate`."""
    from efnet.evaluation.corruptions.suite import choose
    from efnet.evaluation.robustness import CountsJournal, evaluate_corrupted

    names, severities = split_words(args.corrupt), _severities(args)
    choose(names, predictor.modality)

    def open_journal() -> CountsJournal | None:
        """Return the journal, bound to the weights, the files and the options; None without `--journal`."""
        if args.journal is None:
            return None
        bound = {
            **circumstances,
            "corrupt": names,
            "severities": list(severities),
            "seed": args.corrupt_seed,
            **decisive(predictor, pairset, protocol),
        }
        journal = CountsJournal(args.journal, bound, len(pairset.classes))
        if journal.known:
            print(f"going on from {args.journal}: {len(journal.known)} pairs are done", file=sys.stderr)
        return journal

    return evaluate_corrupted(
        predictor,
        pairset,
        protocol,
        corruptions=names,
        severities=severities,
        seed=args.corrupt_seed,
        journal=shared["group"].once(open_journal),
        **{**shared, "workers": args.workers},
    )


def decisive(predictor: Predictor, pairset: PairSet, protocol: Protocol) -> dict[str, Any]:
    """Return what decides counts beside the circumstances: rules, weights, files and thermal range."""
    from efnet.inference.resume import fingerprint as weights_of
    from efnet.training.run_folder import fingerprint as data_of

    return {
        "protocol": protocol.to_dict(pairset.classes),
        "weights": weights_of(predictor.model),
        "data": data_of(test=pairset),
        "thermal_scale": pairset.thermal_scale,
    }


def _write(
    args: Namespace, pairset: PairSet, robustness: Robustness, circumstances: Mapping[str, Any]
) -> None:
    """Print the table of corruptions and write the files."""
    from efnet.evaluation import report as reports
    from efnet.evaluation.intervals import add_evidence

    def sheet() -> Image:
        from efnet.data.sample import read_sample
        from efnet.evaluation.sheet import draw_corruptions

        sample = read_sample(pairset.pairs[0], pairset.classes, pairset.thermal_scale, pairset.registered)
        return draw_corruptions(sample, robustness.corruptions, robustness.severities, robustness.seed)

    report = reports.build_robustness_report(robustness, circumstances)
    names = [entry.pair.name for entry in robustness.clean.pairs]
    add_evidence(report, robustness.clean, score.read_resampling(args, names))
    if args.plot:
        title = f"{Path(args.checkpoint).name}, {pairset.dataset} {pairset.split}, {len(pairset)} pairs"
        reports.plot_robustness(args.plot, report, title)
    table, lines = reports.robustness_table(report), reports.robustness_lines(report)
    score.write_outputs(args, report, table, lines, reports.robustness_markdown, sheet)


def _severities(args: Namespace) -> tuple[int, ...]:
    """Return the severities of `--severities`; all of them by default."""
    from efnet.evaluation.corruptions.suite import SEVERITIES, check_severities

    if args.severities is None:
        return SEVERITIES
    words = split_words(args.severities)
    if not all(word.isdecimal() and word.isascii() for word in words):
        raise InputError(f"--severities {args.severities}: give whole numbers from 1 to 5, such as 1,3,5")
    return check_severities([int(word) for word in words])


def _place(args: Namespace) -> tuple[str, Group]:
    """Return the device of this process, and the group of processes that share the split."""
    from efnet.core.distributed import Group, world_size

    if world_size() == 1:
        return args.device, Group.alone()
    from efnet.core.fabric import make_fabric

    fabric = make_fabric(args.device, args.precision)
    return str(fabric.device), Group(fabric.device)


def _print_standing(predictor: Predictor, report: Report) -> None:
    """Print the figure among published ones, or the reason why it is not comparable with them."""
    from efnet.studies.leaderboard import CAVEAT, objection, standing, standing_table

    reason = objection(report)
    if reason is not None:
        print(f"not among published results: {reason}")
        return
    # An exported file does not have the number.
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters()) or None
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(standing_table(standing(report), f"yours ({predictor.model.name})", parameters))
    print(CAVEAT)


def input_size(text: str | None, default: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the size that the network sees: `HxW`, `native` (every image's own: None), or the model's."""
    if text is None:
        return default
    if text == "native":
        return None
    from efnet.models.base import MIN_SIZE

    try:
        return parse_size(text, MIN_SIZE)
    except InputError as error:
        raise InputError(f"{error}, or native") from None


def _writer(args: Namespace, pairset: PairSet) -> Keep | None:
    """Return a function that writes each prediction; None without `--save-predictions`."""
    if not args.save_predictions:
        return None
    import numpy as np

    from efnet.core.files import write_image
    from efnet.inference.postprocess import Prediction

    folder = Path(args.save_predictions)

    def write(pair: Pair, prediction: LabelMap, _: LabelMap) -> None:
        picture = Prediction(prediction.astype(np.uint8), pairset.classes).indexed()
        write_image(folder / f"{pair.name}.png", picture)

    return write
