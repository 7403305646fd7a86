"""`efnet explain`: what a network does with a pair, as a page of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import CHECKPOINT, DEVICE, MATCH, PALETTE, PRECISION, add_options, apply_match
from efnet.cli.inference_options import check_given, journal_settings, print_faults
from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from efnet.inference.inputs import InputPair
    from efnet.inference.predictor import Predictor
    from efnet.inference.resume import PredictionJournal

DESCRIPTION = (
    "Draw what a network does with a pair: clusters, importance, fusion and distances, on one page. A pair "
    "of files goes to the output folder itself, each of several pairs to a sub-folder. Continues an "
    "interrupted run where it stopped."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=CHECKPOINT,
        rgb="colour images: file, folder or glob",
        thermal="thermal images: file, folder or glob",
        rgbt="four-channel images, thermal last: file, folder or glob",
        match=MATCH,
        out=(str, "output folder"),
        device=DEVICE,
        precision=PRECISION,
        thermal_palette=PALETTE,
        overwrite=(False, "redo finished pairs"),
    )


def run(args: Namespace) -> int:
    """Explain every pair; return 0, or 2 if some could not be read (all others were explained)."""
    from efnet.core.devices import check_precision
    from efnet.explain.html_report import FIGURES_FILE, PAGE_FILE
    from efnet.inference.inputs import find_pairs
    from efnet.inference.predictor import Predictor
    from efnet.inference.resume import PredictionJournal

    precision = check_precision(args.precision)
    check_folder_writable("--out", args.out)
    out = Path(args.out)
    apply_match(args)
    pairs = find_pairs(args.rgb, args.thermal, args.rgbt, exclude=out)
    predictor = Predictor.from_pretrained(args.checkpoint, args.device, precision)
    if args.thermal_palette is not None:
        predictor.use_palette(args.thermal_palette)
    check_given(args, predictor.modality)
    settings = {"command": "explain", **journal_settings(predictor)}
    journal = PredictionJournal(out, settings, {"checkpoint": args.checkpoint}, args.overwrite)
    folders = _folders(args, pairs, journal)
    unfinished = {pair.name for pair in journal.unfinished(pairs, ())}
    left = [
        pair
        for pair in pairs
        if pair.name in unfinished
        or not all((folders[pair.name] / file).is_file() for file in (PAGE_FILE, FIGURES_FILE))
    ]
    with journal:
        faults = _explain_all(predictor, left, folders, journal)
    skipped = f", {len(pairs) - len(left)} finished before" if len(left) < len(pairs) else ""
    place = folders[pairs[0].name] if len(pairs) == 1 else out / "*"
    print(f"explained {len(left) - len(faults)} of {len(pairs)} pairs{skipped}: {place}/explain.html")
    print_faults("pairs", faults)
    return 2 if faults else 0


def _folders(args: Namespace, pairs: tuple[InputPair, ...], journal: PredictionJournal) -> dict[str, Path]:
    """Return the folder of each pair; refuse a single folder that holds the page of another pair."""
    given = [args[option] for option in ("rgb", "thermal", "rgbt") if args[option] is not None]
    if not all(Path(value).expanduser().is_file() for value in given):
        return {pair.name: journal.folder / pair.name for pair in pairs}
    others = [] if args.overwrite else sorted(set(journal.records) - {pairs[0].name})
    if others:
        raise InputError(
            f"{journal.folder} holds the page of {others[0]}; choose another --out, or replace it with "
            "--overwrite"
        )
    return {pairs[0].name: journal.folder}


def _explain_all(
    predictor: Predictor, pairs: list[InputPair], folders: dict[str, Path], journal: PredictionJournal
) -> list[str]:
    """Explain and write `pairs`; return a line for each that could not be read."""
    import torch

    from efnet.explain import explain_prepared, write_explanation

    faults: list[str] = []
    done = 0
    with progress_bar("explain", rate=True) as bar:
        try:
            for done, pair in enumerate(pairs):
                try:
                    prepared = predictor.prepare(pair.rgb, pair.thermal)
                except InputError as error:
                    faults.append(pair.blame(error))
                else:
                    explanation = explain_prepared(predictor, prepared)
                    write_explanation(folders[pair.name], pair.name, explanation)
                    journal.add(pair, prepared.size, explanation.prediction.shares())
                bar(done + 1, len(pairs))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped after {done} of {len(pairs)} pairs; run the same command again to go on"
            ) from None
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{pairs[done].name} does not fit the memory of {predictor.device}; use --device cpu"
            ) from error
    return faults
