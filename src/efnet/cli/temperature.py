"""`efnet temperature`: fit the temperature of a checkpoint's probabilities, and store it there."""

from __future__ import annotations

import shutil
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import (
    CHECKPOINT,
    DEVICE,
    PRECISION,
    ROOT,
    add_options,
    check_minima,
    dataset_option,
)
from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

DESCRIPTION = (
    "Fit the temperature by which logits are divided before they become probabilities, on a split that the "
    "network was not trained on, and store it in the checkpoint. Label maps stay the same."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=CHECKPOINT,
        dataset=dataset_option(),
        root=ROOT,
        split=("val", "to fit on; not the one that figures are reported on"),
        protocol="which pixels count, and at which size (default: the data set's own)",
        out="folder for a copy of the checkpoint with the temperature (default: it is stored in place)",
        batch_size=(1, "pairs in one pass of the network"),
        workers=(2, "processes that read images"),
        device=DEVICE,
        precision=PRECISION,
    )


def run(args: Namespace) -> int:
    """Fit and store; return 0."""
    from efnet.core.files import write_json
    from efnet.core.shipped import SHIPPED_FOLDER
    from efnet.evaluation.calibration import Reliability, fit_temperature
    from efnet.evaluation.protocols import open_with_protocol
    from efnet.evaluation.scoring import fit_split
    from efnet.inference.predictor import Predictor
    from efnet.inference.runtime import is_exported
    from efnet.models.base import CONFIG_FILE
    from efnet.models.checkpoint import find_checkpoint, read_network
    from efnet.reporting.tables import percent

    check_minima(args, batch_size=1, workers=0)
    check_folder_writable("--out", args.out)
    if is_exported(args.checkpoint):
        raise InputError(
            f"--checkpoint {args.checkpoint}: an exported file cannot be changed; fit the temperature of its "
            "checkpoint and export that again"
        )
    folder = find_checkpoint(args.checkpoint)
    if args.out is None and (folder == SHIPPED_FOLDER or not Path(args.checkpoint).expanduser().exists()):
        raise InputError(
            f"--checkpoint {args.checkpoint}: is not yours to change; give --out FOLDER for a copy"
        )
    if args.out is not None and Path(args.out).exists() and any(Path(args.out).iterdir()):
        raise InputError(f"--out {args.out}: holds files already; choose another folder")
    network = read_network(folder)
    pairset, protocol = open_with_protocol(args.dataset, args.root, args.split, args.protocol)
    predictor = Predictor(network, args.device, args.precision)
    pairset = fit_split(predictor, pairset)
    with progress_bar("fit the temperature") as bar:
        fit = fit_temperature(
            predictor,
            pairset,
            protocol,
            batch_size=args.batch_size,
            workers=min(args.workers, len(pairset)),
            progress=bar,
        )

    def line(found: Reliability) -> str:
        return f"ECE {percent(found.error)} %, NLL {found.loss / fit.pixels:.4f}"

    network.temperature = fit.temperature
    if args.out is not None:
        shutil.copytree(folder, args.out, dirs_exist_ok=True)
        folder = Path(args.out)
    write_json(folder / CONFIG_FILE, network.describe())
    print(
        f"temperature {fit.temperature:.4f}, from {fit.pixels} pixels of {len(pairset)} pairs of {args.split}"
    )
    print(f"on these pixels: {line(fit.before)} at 1; {line(fit.after)} at {fit.temperature:.4f}")
    if args.split == "test":
        print("note: figures of calibration on test are not independent now; fit on val to report them")
    print(f"stored in {folder / CONFIG_FILE}")
    return 0
