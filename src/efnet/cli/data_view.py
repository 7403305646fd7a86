"""`efnet data view` and `info`: a data set on one page, and what the authors of a public one publish."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options, check_minima, split_words
from efnet.cli.data import LAYOUTS, ROOT
from efnet.cli.options import check_file_writable
from efnet.core.errors import InputError
from efnet.core.files import write_text
from efnet.core.progress import progress_bar
from efnet.data.layouts import find_layout
from efnet.data.layouts.facts import find_facts
from efnet.data.view import NEAR, look, render


class View:
    """`efnet data view`: one HTML page of a data set."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        add_options(
            parser,
            dataset=(str, LAYOUTS),
            root=ROOT,
            out=(Path, "the page to write, such as set.html"),
            split="only these splits, separated by commas",
            pairs=(12, "pairs of each split on the contact sheet"),
            near=(NEAR, "correlation from which pairs of two splits count as nearly the same, 0 to 1"),
            overwrite=(False, "replace the page if it is there"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Write the page; return 0, or 1 if some pairs could not be read (the page names them)."""
        check_minima(args, pairs=1)
        check_file_writable("--out", args.out)
        if args.out.exists() and not args.overwrite:
            raise InputError(f"--out {args.out}: is there already; choose another name, or use --overwrite")
        if not 0 < args.near <= 1:
            raise InputError(f"--near {args.near}: give a number above 0, at most 1")
        splits = split_words(args.split) if args.split else ()
        with progress_bar("reading pairs", rate=True) as bar:
            view = look(args.dataset, args.root, splits, per_split=args.pairs, near=args.near, progress=bar)
        write_text(args.out, render(view))
        total = sum(map(len, view.splits.values()))
        print(f"{total} pairs, {len(view.near)} near-duplicates across splits: {args.out}")
        if view.faults:
            print(f"{len(view.faults)} pairs could not be read; the first: {view.faults[0]}")
        return 1 if view.faults else 0


class Info:
    """`efnet data info`: facts about a public data set."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("name", type=str, help="mfnet, pst900, fmb, msrs, cart, sus, semanticrt or kaist")

    @staticmethod
    def run(args: Namespace) -> int:
        """Print what is published about the data set, and what is not certain; return 0."""
        facts, classes = find_facts(args.name), find_layout(args.name).class_set(Path())
        print(f"{args.name}: {facts.title}")
        print(f"home page  {facts.home}\nlicence    {facts.licence}\nsize       {facts.size}")
        counts = ", ".join(f"{split} {count}" for split, count in facts.pairs.items())
        print(f"splits     {counts or 'no official numbers are known'}")
        print("checksums  none are known; efnet data check compares the numbers of pairs")
        print(f"classes    {', '.join(f'{value} {name}' for value, name in enumerate(classes.names))}")
        print("layout")
        print("".join(f"  {line}\n" for line in facts.layout.splitlines()), end="")
        for line in facts.uncertain:
            print(f"not certain: {line}")
        print(f"use it with --dataset {args.name} --root DIR")
        return 0
