"""`efnet data synthesize`: generated RGB-thermal street scenes, by day and by night."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import jsonargparse
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from efnet.cli.options import parse_size
from efnet.core.errors import InputError
from efnet.scenes import SceneLayout, WrittenDataset, write_dataset


def add_arguments(parser: jsonargparse.ArgumentParser) -> None:
    """Declare the options of `efnet data synthesize`."""
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--train", type=int, default=200, help="scenes to train on")
    parser.add_argument("--val", type=int, default=40, help="scenes to choose the checkpoint on")
    parser.add_argument("--test", type=int, default=40, help="scenes to test on")
    parser.add_argument("--size", type=str, default="480x640", help="height x width in pixels")
    parser.add_argument(
        "--night", type=float, default=0.5, help="share of night scenes in each split, 0 to 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other scenes")
    parser.add_argument(
        "--layout", type=SceneLayout, default="mfnet", help=" or ".join(get_args(SceneLayout))
    )
    parser.add_argument(
        "--thermal-bits",
        type=int,
        default=8,
        help="depth of the thermal files: 8, or 16 with --layout folders",
    )
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes; the result is the same"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace generated scenes of another configuration"
    )


def run(args: jsonargparse.Namespace) -> int:
    """Write the scenes; run again after an interruption, it goes on where it stopped.

    Returns:
        0.

    Raises:
        InputError: the options are wrong, or the folder holds something else.
    """
    for split in ("train", "val", "test"):
        if args[split] < 0:
            raise InputError(f"--{split} {args[split]}: give a number of scenes, 0 or more")
    if args.workers < 0:
        raise InputError(f"--workers {args.workers}: give 0 or more")
    size = parse_size(args.size)
    columns = (*ProgressBar.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rendering scenes", total=None)
        written = write_dataset(
            args.out,
            args.train,
            args.val,
            args.test,
            size=size,
            seed=args.seed,
            night_share=args.night,
            layout=args.layout,
            workers=args.workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            thermal_bits=args.thermal_bits,
            overwrite=args.overwrite,
        )
    print(_summary(written))
    return 0


def _summary(written: WrittenDataset) -> str:
    plan = written.plan
    kept = f" ({written.kept} were there already)" if written.kept else ""
    dataset = "mfnet" if plan.layout == "mfnet" else "folders"
    return (
        f"{written.root}: {plan.train} train, {plan.val} val, {plan.test} test scenes of "
        f"{plan.size[0]}x{plan.size[1]}{kept}\n"
        f"use them with --dataset {dataset} --root {written.root}"
    )
