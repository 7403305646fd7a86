"""`efnet explain`: what a network does with a pair, as a page of pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from efnet.cli.options import check_folder_writable
from efnet.cli.predict_inputs import check_given
from efnet.core.errors import InputError, ManyInputsError

if TYPE_CHECKING:
    from efnet.inference.inputs import InputPair
    from efnet.inference.journal import Journal
    from efnet.inference.predictor import Predictor

DESCRIPTION = (
    "Draw what a network does with a pair: clusters, importance, fusion and distances, on one page. A pair "
    "of files goes to the output folder itself, each of several pairs to a sub-folder. Takes an interrupted "
    "run up again where it stopped."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="run folder, checkpoint folder, or owner/name on the hub",
    )
    parser.add_argument("--rgb", type=str | None, default=None, help="colour images: file, folder or glob")
    parser.add_argument(
        "--thermal", type=str | None, default=None, help="thermal images: file, folder or glob"
    )
    parser.add_argument(
        "--rgbt",
        type=str | None,
        default=None,
        help="four-channel images, thermal last: file, folder or glob",
    )
    parser.add_argument("--out", type=str, required=True, help="output folder")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--precision", type=str, default="32", help="32 or bf16 (autocast)")
    parser.add_argument("--overwrite", action="store_true", help="redo what is there already")


def run(args: Namespace) -> int:
    """Explain; see `efnet explain --help`.

    Returns:
        0, or 2 if some pairs could not be read (all others were explained).

    Raises:
        InputError: nothing could be started: options, files or checkpoint are wrong.
    """
    from efnet.core.devices import check_precision
    from efnet.inference.inputs import find_pairs
    from efnet.inference.journal import Journal, fingerprint
    from efnet.inference.predictor import Predictor

    precision = check_precision(args.precision)
    check_folder_writable("--out", args.out)
    out = Path(args.out)
    pairs = find_pairs(args.rgb, args.thermal, args.rgbt, exclude=out)
    predictor = Predictor.from_pretrained(args.checkpoint, args.device, precision)
    check_given(args, predictor.modality)
    settings = {
        "command": "explain",
        "model": fingerprint(predictor.model),
        "precision": precision,
        "input_size": predictor.size,
        "thermal_scale": predictor.thermal_scale,
    }
    journal = Journal(out, settings, {"checkpoint": args.checkpoint}, args.overwrite)
    folders = _folders(args, pairs, journal)
    left = _left(pairs, folders, journal)
    with journal:
        faults = _explain_all(predictor, left, folders, journal)
    skipped = f", {len(pairs) - len(left)} finished before" if len(left) < len(pairs) else ""
    place = folders[pairs[0].name] if len(pairs) == 1 else out / "*"
    print(f"explained {len(left) - len(faults)} of {len(pairs)} pairs{skipped}: {place}/explain.html")
    if faults:
        error = ManyInputsError("some pairs were left out; mend them and run the same command again", faults)
        print(f"efnet: error: {error}", file=sys.stderr)
        return 2
    return 0


def _folders(args: Namespace, pairs: tuple[InputPair, ...], journal: Journal) -> dict[str, Path]:
    """Where each pair goes, by its name.

    Raises:
        InputError: the one folder of a single pair holds another pair's page.
    """
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


def _left(pairs: tuple[InputPair, ...], folders: dict[str, Path], journal: Journal) -> list[InputPair]:
    """The pairs without a page, or with one that is older than their images."""
    from efnet.explain.explain_page import FIGURES_FILE, PAGE_FILE

    files = (PAGE_FILE, FIGURES_FILE)
    unfinished = {pair.name for pair in journal.unfinished(pairs, ())}
    return [
        pair
        for pair in pairs
        if pair.name in unfinished or not all((folders[pair.name] / file).is_file() for file in files)
    ]


def _explain_all(
    predictor: Predictor, pairs: list[InputPair], folders: dict[str, Path], journal: Journal
) -> list[str]:
    """Explain and write `pairs`; returns a line for each that could not be read."""
    faults: list[str] = []
    with _progress() as progress:
        task = progress.add_task("explain", total=len(pairs))
        for done, pair in enumerate(pairs):
            try:
                fault = _explain(predictor, pair, folders[pair.name], journal)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped after {done} of {len(pairs)} pairs; run the same command again to go on"
                ) from None
            if fault:
                faults.append(fault)
            progress.update(task, advance=1)
    return faults


def _explain(predictor: Predictor, pair: InputPair, folder: Path, journal: Journal) -> str | None:
    """Explain and write one pair; returns what is wrong with its files."""
    import torch

    from efnet.explain import explain_prepared, write_explanation

    try:
        prepared = predictor.prepare(pair.rgb, pair.thermal)
    except InputError as error:
        files = [str(path) for path in (pair.rgb, pair.thermal) if path is not None]
        text = str(error)
        return text if any(file in text for file in files) else f"{' and '.join(files)}: {text}"
    try:
        explanation = explain_prepared(predictor, prepared)
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{pair.name} does not fit the memory of {predictor.device}; use --device cpu"
        ) from error
    write_explanation(folder, pair.name, explanation)
    journal.add(pair, prepared.size, explanation.prediction.shares())
    return None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
