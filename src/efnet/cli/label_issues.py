"""`efnet data issues`: pairs of a labelled split, ranked by how much a network doubts their labels."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import ROOT, add_options, check_minima, dataset_option
from efnet.cli.inference_options import InferenceOptions, add_inference_arguments, journal_settings
from efnet.cli.options import check_folder_writable
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from efnet.data.pairs import PairSet
    from efnet.evaluation.label_issues import LabelIssues
    from efnet.inference.predictor import Predictor
    from efnet.inference.preprocess import Prepared

DESCRIPTION = (
    "Rank the pairs of a labelled split by how much a network doubts their labels. Writes issues.json, "
    "pairs.csv, regions.csv and issues.html with pictures. Continues an interrupted run where it stopped."
)
_SHOWN = 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_inference_arguments(parser, missing="ignore")
    add_options(
        parser,
        dataset=dataset_option(),
        root=ROOT,
        split=("test", "train, val, test, ...; of pairs that the network was not trained on"),
        out=(str, "output folder"),
        border=(2, "pixels at borders between labels that do not count"),
        min_pixels=(20, "least size of a doubted region"),
        top=(20, "pairs with pictures on the page"),
        workers=(2, "processes that read images"),
        overwrite=(False, "begin anew"),
    )


def run(args: Namespace) -> int:
    """Rank, and print the most doubted pairs; return 0."""
    from efnet.data.layouts import open_split
    from efnet.evaluation import issues_sheet
    from efnet.evaluation.label_issues import find_issues, require_labels
    from efnet.evaluation.scoring import fit_split
    from efnet.training.run_folder import fingerprint as data_of

    check_minima(args, border=0, min_pixels=1, top=0, workers=0)
    options, out = InferenceOptions.read(args, "ignore"), Path(args.out)
    check_folder_writable("--out", out)
    pairset = open_split(args.dataset, Path(args.root), args.split)
    require_labels(pairset)
    predictor = options.load(args, args.device)
    pairset = fit_split(predictor, pairset)
    settings = {**journal_settings(predictor), **options.settings(), "data": data_of(split=pairset)}
    settings["thermal_scale"] = pairset.thermal_scale
    same = {"batch_size": args.batch_size, "workers": min(args.workers, len(pairset))}
    with progress_bar("examine", rate=True) as bar:
        sizes = {"border": args.border, "min_pixels": args.min_pixels, "overwrite": args.overwrite}
        issues = find_issues(predictor, pairset, out, settings, progress=bar, **sizes, **same)
    about = {"dataset": pairset.dataset, "split": pairset.split, "checkpoint": args.checkpoint}
    issues_sheet.write_tables(out, issues, {**about, "border": args.border, "min_pixels": args.min_pixels})
    cards = _cards(args, predictor, pairset, issues)
    title = f"Doubted labels: {pairset.dataset} {pairset.split}"
    issues_sheet.write_page(out, issues, title, cards)
    _print(issues)
    print(f"wrote {', '.join(str(out / name) for name in issues_sheet.FILES)}", file=sys.stderr)
    return 0


def _cards(args: Namespace, predictor: Predictor, pairset: PairSet, issues: LabelIssues) -> list[str]:
    """Return the cards of the most doubted pairs, predicted again: probabilities take much space."""
    from efnet.evaluation.issues_sheet import card
    from efnet.evaluation.label_issues import visit

    shown = [pair for pair in issues.pairs[: args.top] if pair.doubts]
    by_name = {pair.name: pair for pair in pairset.pairs}
    chosen = replace(pairset, pairs=tuple(by_name[pair.name] for pair in shown))
    cards: list[str] = []
    with progress_bar("draw") as bar:

        def keep(
            number: int, prepared: Prepared, label: NDArray[np.uint8], shares: NDArray[np.float32]
        ) -> None:
            cards.append(card(number + 1, shown[number], issues, prepared, label, shares))
            bar(number + 1, len(shown))

        visit(predictor, chosen, keep)
    return cards


def _print(issues: LabelIssues) -> None:
    """Print the first pairs of the ranking with their heaviest regions."""
    names = issues.classes.names
    doubtful = [pair for pair in issues.pairs if pair.doubts]
    for place, pair in enumerate(doubtful[:_SHOWN], start=1):
        first = pair.doubts[0]
        print(
            f"{place:3} {pair.name}: score {pair.score:.0f}; {first.pixels} pixels labelled "
            f"{names[first.label]} look like {names[first.likely]} ({first.p_likely:.2f})"
        )
    print(f"{len(doubtful)} of {len(issues.pairs)} pairs have doubted regions")
