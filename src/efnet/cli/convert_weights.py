"""`efnet convert-weights`: make a checkpoint folder from a file of weights that a paper's authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import add_options
from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.data.layouts import find_layout, layout_names

if TYPE_CHECKING:
    from efnet.core.classes import ClassSet

DESCRIPTION = "Make a checkpoint folder, which every other command takes, from the file of a paper's authors."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", type=str, help="a network from another paper (efnet models)")
    parser.add_argument("file", type=Path, help="the authors' file, as downloaded")
    add_options(
        parser,
        out=(Path, "folder to write"),
        dataset=f"data set of the training, which names the classes: {', '.join(layout_names())}, or a "
        "dataset.yaml (default: numbered classes, as many as the file has)",
        modality="rgbt, rgb or thermal (default: that of the authors' files)",
    )


def run(args: Namespace) -> int:
    """Convert the file and print what was loaded; return 0."""
    from efnet.models.base import CONFIG_FILE
    from efnet.models.baselines import BASELINES

    if args.name not in BASELINES:
        raise InputError(f"{args.name}: not a network from another paper; there are {', '.join(BASELINES)}")
    network = BASELINES[args.name]
    modality = args.modality or network.modalities[0]
    if modality not in network.modalities:
        raise InputError(f"--modality {modality}: {args.name} exists for {', '.join(network.modalities)}")
    check_folder_writable("--out", args.out)
    if args.out.is_dir() and any(args.out.iterdir()) and not (args.out / CONFIG_FILE).is_file():
        raise InputError(f"--out {args.out}: holds other files; choose another folder")
    classes: ClassSet | None = None
    if args.dataset:
        classes = find_layout(args.dataset).class_set(Path(args.dataset).parent)
    model, report = network.from_official(args.file, classes, modality)
    model.write(args.out)
    print(report)
    print(f"{args.out}: {args.name}, {modality}, {model.num_classes} classes, {len(report.loaded)} tensors")
    return 0
