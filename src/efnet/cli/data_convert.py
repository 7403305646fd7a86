"""`efnet data convert`: four-channel files to folders and back, colour labels to indices."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import jsonargparse
from rich.console import Console
from rich.progress import Progress as ProgressBar

from efnet.data.convert import to_folders, to_index, to_rgbt
from efnet.data.layouts import find_layout, layout_names


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    """Declare the options of `efnet data convert`."""
    parser.add_argument(
        "--to",
        type=Literal["folders", "rgbt", "index"],
        required=True,
        help="folders: four-channel files to rgb/ thermal/ labels/; rgbt: back to four-channel files; "
        "index: a folder of colour labels to palette PNGs of class indices",
    )
    parser.add_argument(
        "--root", type=Path, required=True, help="the data set's folder; for index, the folder of labels"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--dataset",
        type=str,
        default="mfnet",
        help=f"for index, whose palette: {', '.join(layout_names())}, or the path of a dataset.yaml",
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")


def run(args: jsonargparse.Namespace) -> int:
    """Convert, and say how much was written.

    Returns:
        0.
    """
    with ProgressBar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("converting", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if args.to == "index":
            classes = find_layout(args.dataset).class_set(args.root)
            written = to_index(args.root, args.out, classes, overwrite=args.overwrite, progress=progress)
        else:
            convert = to_folders if args.to == "folders" else to_rgbt
            written = convert(args.root, args.out, overwrite=args.overwrite, progress=progress)
    print(f"{written} files written to {args.out}")
    return 0
