"""`efnet compare`: networks on the same images, with paired intervals and tests."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import (
    DEVICE,
    PRECISION,
    add_options,
    check_minima,
    check_outputs,
    dataset_option,
    say_written,
)
from efnet.cli.evaluate import decisive, input_size
from efnet.cli.options import check_folder_writable
from efnet.cli.score import add_resampling_arguments, read_resampling
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from efnet.data.pairs import PairSet
    from efnet.evaluation.comparison import Contender
    from efnet.evaluation.metrics import Tally
    from efnet.evaluation.protocols import Protocol

DESCRIPTION = (
    "Compare networks on the same images: the first with each of the others. Each is [NAME=]PATH, with "
    "commas between the runs of one network. A path is a report of --json, a run folder, a checkpoint, an "
    "exported file, or a folder of label maps. Without --root, runs need a stored evaluation."
)

STORED = "evaluation.json"
"""Evaluation that an experiment leaves in a run folder."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("runs", type=str, nargs="+", help="[NAME=]PATH[,PATH...], two or more")
    add_options(
        parser,
        dataset=f"data set of what has to be evaluated: {dataset_option()[1]}",
        root="its folder",
        split=("test", "its split"),
        protocol="how to score (default: the data set's own)",
        size="HxW that the networks see, or 'native' (default: what each was made for)",
        batch_size=(1, "pairs in one pass of a network"),
        workers=(2, "processes that read images"),
        device=DEVICE,
        precision=PRECISION,
        keep="folder for evaluations made now; the next comparison takes them from there",
        json="write the comparison to this file (fractions)",
        markdown="write it to this Markdown file",
        html="write it to this HTML file, with charts",
    )
    add_resampling_arguments(parser)


def run(args: Namespace) -> int:
    """Compare; return 0."""
    from efnet.core.files import write_json, write_text
    from efnet.evaluation import comparison as compared
    from efnet.evaluation.resampling import Resampling, group_pattern

    check_minima(args, batch_size=1, workers=0)
    input_size(args.size, None)
    check_outputs(args, "json", "markdown", "html")
    check_folder_writable("--keep", args.keep)
    named = _read_names(args.runs)
    Resampling(args.level, args.resamples, args.resample_seed)  # refuse wrong values before the long run
    if args.groups is not None and not Path(args.groups).is_file():
        group_pattern(args.groups)
    contenders = compared.align(_Reader(args).read(named))
    names = [entry.pair.name for entry in contenders[0].tallies[0].pairs]
    comparison = compared.compare(contenders, read_resampling(args, names))
    text = compared.markdown(comparison)
    print(text, end="")
    if args.json:
        write_json(args.json, comparison)
    if args.markdown:
        write_text(args.markdown, text)
    if args.html:
        write_text(args.html, compared.page(comparison))
    say_written(args, "json", "markdown", "html")
    return 0


def _read_names(words: list[str]) -> dict[str, list[str]]:
    """Return the paths of each network by its name: that given, else the last part of its first path."""
    if len(words) < 2:
        raise InputError("give two networks or more, such as: efnet compare runs/a runs/b")
    named: list[tuple[str | None, list[str]]] = []
    for word in words:
        name, equals, rest = word.partition("=")
        paths = [path for path in (rest if equals else word).split(",") if path]
        if not paths or (equals and not name):
            raise InputError(f"{word}: write NAME=PATH, or NAME=PATH,PATH for the runs of one network")
        named.append((name if equals else None, paths))
    short = [_short(paths[0]) for _, paths in named]
    often = Counter(short)
    labels = [
        name or (brief if often[brief] == 1 else paths[0])
        for (name, paths), brief in zip(named, short, strict=True)
    ]
    if len(set(labels)) < len(labels):
        raise InputError(f"two networks are called the same ({', '.join(labels)}); write NAME=PATH")
    return {label: paths for label, (_, paths) in zip(labels, named, strict=True)}


def _short(path: str) -> str:
    found = Path(path)
    return (found.stem if found.suffix == ".json" else found.name) or path


class _Reader:
    """Reads stored counts, and evaluates or scores what has none."""

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._opened: tuple[PairSet, Protocol] | None = None

    def read(self, named: dict[str, list[str]]) -> list[Contender]:
        """Return the networks; their reports are read before anything is evaluated."""
        from efnet.evaluation.comparison import Contender

        paths = [path for group in named.values() for path in group]
        tallies: dict[str, Tally] = {}
        for path in sorted(dict.fromkeys(paths), key=lambda path: self._stored(path) is None):
            tallies[path] = self._tally(path)
        return [
            Contender(name, tuple(tallies[path] for path in group), tuple(group))
            for name, group in named.items()
        ]

    def _stored(self, path: str) -> Path | None:
        """Return the report that a path names or holds; None: it has to be evaluated."""
        found = Path(path)
        if found.suffix == ".json":
            return found
        inside = found / STORED
        return inside if self._args.root is None and inside.is_file() else None

    def _tally(self, path: str) -> Tally:
        from efnet.data.images import IMAGE_SUFFIXES
        from efnet.evaluation.intervals import read_report, read_tally

        stored = self._stored(path)
        if stored is not None:
            return read_tally(read_report(stored), str(stored))
        pairset, protocol = self._open(path)
        folder = Path(path)
        maps = folder.is_dir() and not (folder / "config.json").is_file() and not (folder / "best").is_dir()
        if maps and any(each.suffix.lower() in IMAGE_SUFFIXES for each in folder.iterdir()):
            from efnet.evaluation.score import score_predictions

            with progress_bar(f"score {folder.name}") as advance:
                tally, found = score_predictions(folder, pairset, protocol, advance, boundaries=True)
            for note in found:
                print(f"note: {path}: {note}", file=sys.stderr)
            return tally
        return self._evaluate(path, pairset, protocol)

    def _open(self, path: str) -> tuple[PairSet, Protocol]:
        """Open the split, once."""
        from efnet.data.verify import verify
        from efnet.evaluation.protocols import open_with_protocol

        if self._opened is None:
            args = self._args
            if args.root is None or args.dataset is None:
                raise InputError(
                    f"{path}: has no stored evaluation; give --dataset and --root to evaluate it, or a "
                    "report of efnet evaluate --json"
                )
            self._opened = open_with_protocol(args.dataset, args.root, args.split, args.protocol)
            verify(self._opened[0], headers_only=True)
        return self._opened

    def _evaluate(self, path: str, pairset: PairSet, protocol: Protocol) -> Tally:
        """Evaluate a checkpoint, or take its counts from the folder of `--keep`."""
        from efnet.core.files import write_json
        from efnet.evaluation.evaluate import evaluate
        from efnet.evaluation.intervals import add_evidence, read_report, read_tally
        from efnet.evaluation.report import build_report
        from efnet.evaluation.resampling import Resampling
        from efnet.evaluation.scoring import describe, fit_split
        from efnet.inference.predictor import Predictor

        args = self._args
        predictor = Predictor.from_pretrained(path, args.device, args.precision)
        pairset = fit_split(predictor, pairset)
        predictor.size = input_size(args.size, predictor.size)
        circumstances = describe(predictor, pairset, path, tta=False, settings={})
        kept = None
        if args.keep:
            bound = {**circumstances, **decisive(predictor, pairset, protocol), "checkpoint": None}
            key = hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:12]
            kept = Path(args.keep) / f"{_short(path)}-{key}.json"
            if kept.is_file():
                print(f"{path}: takes the evaluation of {kept}", file=sys.stderr)
                return read_tally(read_report(kept), str(kept))
        with progress_bar(f"evaluate {_short(path)}") as bar:
            tally = evaluate(
                predictor,
                pairset,
                protocol,
                batch_size=args.batch_size,
                workers=min(args.workers, len(pairset)),
                progress=bar,
                boundaries=True,
            )
        if kept is not None:
            report = build_report(tally, circumstances)
            write_json(kept, add_evidence(report, tally, Resampling()))
        return tally
