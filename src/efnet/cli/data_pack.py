"""`efnet data pack`: a data set as a few large tar files in the place of many small ones."""

from __future__ import annotations

from pathlib import Path

import jsonargparse
from rich.console import Console
from rich.progress import Progress as ProgressBar

from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.data.layouts import layout_names, open_split
from efnet.data.pack import MEGABYTE, pack


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    """Declare the options of `efnet data pack`."""
    parser.add_argument(
        "--dataset",
        type=str,
        required=True,
        help=f"{', '.join(layout_names())}, or the path of a dataset.yaml",
    )
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument(
        "--split", type=str, required=True, help="which split; several separated by commas, such as train,val"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument(
        "--shard-size", type=int, default=256, help="megabytes (millions of bytes) after which a tar is full"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there of these splits")


def run(args: jsonargparse.Namespace) -> int:
    """Pack, and say what was written.

    Returns:
        0.
    """
    if args.shard_size < 1:
        raise InputError(f"--shard-size {args.shard_size} is below 1")
    splits = list(dict.fromkeys(split.strip() for split in args.split.split(",") if split.strip()))
    if not splits:
        raise InputError("--split is empty; name at least one, such as train,val")
    check_folder_writable("--out", args.out)
    pairsets = [open_split(args.dataset, args.root, split) for split in splits]
    for pairset in pairsets:
        with ProgressBar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"packing {pairset.split}", total=len(pairset))
            packed = pack(
                pairset,
                args.out,
                shard_size=args.shard_size * MEGABYTE,
                overwrite=args.overwrite,
                progress=lambda done, total, bar=bar, task=task: bar.update(  # type: ignore[misc]
                    task, completed=done, total=total
                ),
            )
        print(
            f"{pairset.split}: {len(pairset)} pairs, {packed.files} files in {packed.tars} tars, "
            f"{packed.size / MEGABYTE:.1f} MB: {packed.index}"
        )
    return 0
