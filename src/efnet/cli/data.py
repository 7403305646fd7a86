"""`efnet data check`, `view`, `info`, `convert`, `pack` and `synthesize`: data sets on disk and generated."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal, get_args

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from efnet.cli.arguments import add_options, check_minima, dataset_option, split_words
from efnet.cli.options import check_file_writable, check_folder_writable, parse_size
from efnet.core.classes import IGNORE_INDEX, ClassSet
from efnet.core.errors import InputError
from efnet.core.files import write_json, write_text
from efnet.core.journal import read_journal
from efnet.core.progress import progress_bar
from efnet.data.annotations.label_maps import from_labels, read_class_map, to_labels
from efnet.data.annotations.shapes import Shapes
from efnet.data.check import DatasetReport, check
from efnet.data.convert import to_folders, to_index, to_rgbt
from efnet.data.layouts import find_layout, open_split
from efnet.data.layouts.facts import all_facts, find_facts
from efnet.data.layouts.folders import FILE_NAME, Description
from efnet.data.layouts.patterns import is_pattern
from efnet.data.pack import MEGABYTE, pack
from efnet.data.view import NEAR, look, render
from efnet.scenes import SceneLayout, write_dataset

DATASET = dataset_option()
ROOT = (Path, "the data set's folder")


class Check:
    """`efnet data check`: what a data set holds, and what is wrong with it."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        add_options(
            parser,
            dataset=DATASET,
            root=ROOT,
            split="look at this split alone",
            json=(Path | None, "write the report to this file as well"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Check the data set and print what it holds; return 0, or 1 if there are problems."""
        check_file_writable("--json", args.json)
        with progress_bar("reading pairs") as bar:
            report = check(args.dataset, args.root, [args.split] if args.split else (), progress=bar)
        print_report(report)
        if args.json is not None:
            write_json(args.json, report.to_dict())
        return 1 if report.problems else 0


class View:
    """`efnet data view`: one HTML page of a data set."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        add_options(
            parser,
            dataset=DATASET,
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
        parser.add_argument("name", type=str, help=", ".join(all_facts()))

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


class Convert:
    """`efnet data convert`: other folders, label maps, and the files of annotation tools."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--to",
            type=Literal["folders", "rgbt", "index", "coco", "cvat"],
            required=True,
            help="folders: four-channel files to rgb/ thermal/ labels/; rgbt: back to four-channel files; "
            "index: a folder of colour labels, or --annotations, to palette PNGs of class indices; coco, "
            "cvat: label maps or predictions to a file for annotation tools",
        )
        add_options(
            parser,
            root=(Path, "the data set's folder; for index, coco and cvat also a folder of label maps"),
            out=(Path, "the folder to write; for coco and cvat, the file"),
            dataset=f"whose classes: {DATASET[1]} (for index without --annotations: mfnet)",
            annotations=(Path | None, "for index: file or folder of LabelMe, COCO, CVAT or Label Studio"),
            class_map="for --annotations: name=class,sky=ignore,line=skip,*=background, or a YAML file",
            images=(
                Path | None,
                "for coco and cvat: the images' folder, for their file names",
            ),
            shapes=(Literal["polygons", "masks"], "for coco and cvat: polygons, or masks, which are exact"),
            tolerance=(1.0, "how far polygons may lie from the border, in pixels"),
            min_pixels=(1, "for coco and cvat: leave out smaller areas"),
            overwrite=(False, "write into a folder that is not empty, or replace the file"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Convert, and print how many files were written; return 0."""
        if args.annotations is not None and args.to != "index":
            raise InputError(f"--annotations are read with --to index, not --to {args.to}")
        if args.class_map is not None and args.annotations is None:
            raise InputError("--class-map renames classes of --annotations: give these too")
        if args.images is not None and args.to not in ("coco", "cvat"):
            raise InputError("--images names the images of --to coco and --to cvat")
        with progress_bar("converting") as progress:
            if args.to in ("coco", "cvat"):
                labels, images, shapes = _exported(args)
                same = {"overwrite": args.overwrite, "progress": progress}
                count = from_labels(labels, args.out, args.to, shapes, images, **same)
                print(f"{count} images written to {args.out}")
                return 0
            if args.to == "index" and args.annotations is not None:
                named = None if args.dataset is None else find_layout(args.dataset).class_set(args.root)
                class_map = read_class_map(args.class_map or "")
                same = {"overwrite": args.overwrite, "progress": progress}
                result = to_labels(args.annotations, args.root, args.out, named, class_map, **same)
                for note in result.notes:
                    print(f"note: {note}", file=sys.stderr)
                print(f"classes: {', '.join(result.classes.names)}")
                written = result.count
            elif args.to == "index":
                classes = find_layout(args.dataset or "mfnet").class_set(args.root)
                written = to_index(args.root, args.out, classes, overwrite=args.overwrite, progress=progress)
            else:
                convert = to_folders if args.to == "folders" else to_rgbt
                written = convert(args.root, args.out, overwrite=args.overwrite, progress=progress)
        print(f"{written} files written to {args.out}")
        return 0


def _exported(args: Namespace) -> tuple[Path, Path | None, Shapes]:
    """Return the folders of label maps and images that the options name, and how areas are written."""
    from efnet.inference.resume import journals_in

    check_minima(args, min_pixels=1)
    labels, images, classes = args.root, args.images, None
    if args.dataset is not None:
        classes = find_layout(args.dataset).class_set(args.root)
    if journals := journals_in(args.root):
        head, _ = read_journal(journals[-1], lambda _: None)
        labels = args.root / "index"
        if classes is None and head is not None and "classes" in head:
            classes = ClassSet.from_dict(head["classes"])
    elif (args.root / FILE_NAME).is_file():
        description = Description.read(args.root / FILE_NAME)
        labels, colors = (args.root / description.folders[key] for key in ("labels", "rgb"))
        images = images or (colors if colors.is_dir() or is_pattern(str(colors)) else None)
        classes = classes or description.classes
    elif (args.root / "labels").is_dir():
        labels = args.root / "labels"
    if classes is None:
        raise InputError(f"{args.root}: does not name its classes; name their data set with --dataset")
    same = {"tolerance": args.tolerance, "min_pixels": args.min_pixels}
    return labels, images, Shapes(classes, exact=args.shapes == "masks", **same)


class Pack:
    """`efnet data pack`: a data set as a few large tar files in the place of many small ones."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        add_options(
            parser,
            dataset=DATASET,
            root=ROOT,
            split=(str, "which split; several separated by commas, such as train,val"),
            out=(Path, "the folder to write"),
            shard_size=(256, "megabytes (millions of bytes) after which a tar is full"),
            overwrite=(False, "replace what is there of these splits"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Pack, and print what was written; return 0."""
        check_minima(args, shard_size=1)
        splits = split_words(args.split)
        if not splits:
            raise InputError("--split is empty; name at least one, such as train,val")
        check_folder_writable("--out", args.out)
        pairsets = [open_split(args.dataset, args.root, split) for split in splits]
        for pairset in pairsets:
            with progress_bar(f"packing {pairset.split}") as bar:
                size = args.shard_size * MEGABYTE
                packed = pack(pairset, args.out, shard_size=size, overwrite=args.overwrite, progress=bar)
            print(
                f"{pairset.split}: {len(pairset)} pairs, {packed.files} files in {packed.tars} tars, "
                f"{packed.size / MEGABYTE:.1f} MB: {packed.index}"
            )
        return 0


class Synthesize:
    """`efnet data synthesize`: generated RGB-thermal street scenes, by day and by night."""

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        """Declare the options."""
        add_options(
            parser,
            out=(Path, "the folder to write"),
            train=(200, "scenes to train on"),
            val=(40, "scenes to choose the checkpoint on"),
            test=(40, "scenes to test on"),
            size=("480x640", "height x width in pixels"),
            night=(0.5, "share of night scenes in each split, 0 to 1"),
            seed=(0, "other seeds give other scenes"),
            layout=(SceneLayout, " or ".join(get_args(SceneLayout))),
            thermal_bits=(8, "depth of the thermal files: 8, or 16 with --layout folders"),
            workers=(min(os.cpu_count() or 1, 8), "processes; the result is the same"),
            overwrite=(False, "replace generated scenes of another configuration"),
        )

    @staticmethod
    def run(args: Namespace) -> int:
        """Write the scenes, or those that an interrupted run left out; return 0."""
        check_minima(args, train=0, val=0, test=0, workers=0)
        size = parse_size(args.size)
        with progress_bar("rendering scenes") as bar:
            same = ("out", "train", "val", "test", "seed", "layout", "workers", "thermal_bits", "overwrite")
            given = {name: args[name] for name in same}
            written = write_dataset(size=size, night_share=args.night, progress=bar, **given)
        plan = written.plan
        kept = f" ({written.kept} were there already)" if written.kept else ""
        print(
            f"{written.root}: {plan.train} train, {plan.val} val, {plan.test} test scenes of "
            f"{plan.size[0]}x{plan.size[1]}{kept}\n"
            f"use them with --dataset {plan.layout} --root {written.root}"
        )
        return 0


def print_report(report: DatasetReport) -> None:
    """Print splits, shares of class pixels, warnings and problems."""
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(f"{report.dataset} at {report.root}", markup=False)
    console.print(_splits_table(report))
    if any(split.label_pixels.any() for split in report.splits):
        console.print(_classes_table(report))
    if report.misalignment is not None:
        off = report.misalignment
        print(f"thermal is off by {off.x:+.1f}, {off.y:+.1f} pixels (x, y; median of {off.pairs} pairs)")
    for note in report.notes:
        print(f"note: {note}")
    for warning in report.warnings:
        print(f"warning: {warning}")
    for problem in report.problems:
        print(f"problem: {problem}")
    count = len(report.problems)
    print(f"{count} problem{'' if count == 1 else 's'}" if count else "no problems")


def _splits_table(report: DatasetReport) -> Table:
    table = Table(title="Splits", title_justify="left")
    numbers = ("pairs", "labelled", "day", "night", "problems")
    for heading in (
        "split",
        *numbers[:4],
        "height x width",
        "thermal",
        "raw range",
        "unit",
        "labels",
        "problems",
    ):
        table.add_column(heading, justify="right" if heading in numbers else "left")
    for split in report.splits:
        table.add_row(
            split.split,
            str(split.pairs),
            str(split.labelled),
            *(str(split.conditions[key]) if key in split.conditions else "-" for key in ("day", "night")),
            _counted({f"{height}x{width}": count for (height, width), count in split.sizes.items()}),
            _counted(split.thermal_kinds),
            "-" if split.thermal_range is None else "{:g} to {:g}".format(*split.thermal_range),
            _counted(split.thermal_units),
            _counted(split.label_kinds),
            str(len(split.problems)),
        )
    return table


def _classes_table(report: DatasetReport) -> Table:
    table = Table(title="Share of label pixels, %", title_justify="left")
    table.add_column("value", justify="right")
    table.add_column("class")
    splits = [split for split in report.splits if split.label_pixels.any()]
    for split in splits:
        table.add_column(split.split, justify="right")
    for value, name in [*enumerate(report.classes.names), (IGNORE_INDEX, "(ignored)")]:
        shares = [100 * split.label_pixels[value] / split.label_pixels.sum() for split in splits]
        table.add_row(str(value), name, *(f"{share:.3f}" if share else "-" for share in shares))
    return table


def _counted(kinds: dict[str, int]) -> str:
    """Return the kinds; with their counts if there are several."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return ", ".join(f"{kind} ({count})" for kind, count in kinds.items()) or "-"
