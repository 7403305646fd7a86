"""`efnet evaluate --corrupt`: the same split with what goes wrong with cameras, at five severities."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from efnet.cli.options import check_file_writable
from efnet.cli.reporting import progress_bar
from efnet.data.pairs import PairSet
from efnet.errors import InputError

if TYPE_CHECKING:
    from efnet.evaluation.protocols import Protocol
    from efnet.evaluation.robustness import Robustness
    from efnet.evaluation.robustness_journal import CountsJournal
    from efnet.group import Group
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
        from efnet.figure import check_plot

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
    from efnet.evaluation.robustness_journal import CountsJournal
    from efnet.prediction.journal import fingerprint as weights_of
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
    from efnet.evaluation.robustness_report import (
        build_robustness_report,
        robustness_lines,
        robustness_markdown,
        robustness_table,
    )
    from efnet.files import write_image, write_json, write_text

    report = build_robustness_report(robustness, circumstances)
    Console(width=None if sys.stdout.isatty() else 110).print(robustness_table(report))
    print("\n".join(robustness_lines(report)))
    if args.json:
        write_json(args.json, report)
    if args.markdown:
        write_text(args.markdown, robustness_markdown(report))
    if args.sheet:
        from efnet.data.sample import read_sample
        from efnet.evaluation.corruption_sheet import draw_corruptions

        sample = read_sample(pairset.pairs[0], pairset.classes, pairset.thermal_scale)
        drawn = draw_corruptions(sample, robustness.corruptions, robustness.severities, robustness.seed)
        write_image(args.sheet, drawn)
    if args.plot:
        from efnet.evaluation.robustness_plot import plot_robustness

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
