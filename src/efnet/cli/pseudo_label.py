"""`efnet pseudo-label`: masks from a network for pairs that have none, to train on."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import DEVICE, NETWORK, PRECISION, add_options, say_default, split_words
from efnet.cli.inference_options import print_faults
from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

DESCRIPTION = (
    "Write the classes of which a network is sure as labels, 255 elsewhere, beside the images: a folder for "
    "efnet train --unlabelled. Continues an interrupted run where it stopped."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=NETWORK,
        rgb=(str, "colour images: file, folder or glob"),
        thermal=(str, "thermal images, likewise"),
        out=(str, "folder for rgb, thermal and labels"),
        threshold=("0.9", "least probability of a pixel's class, and of single ones: 0.9,person=0.7"),
        tta=(False, "average over three scales and mirror images (six times the work)"),
        boxes="folder of text files by the images' names, with lines 'class x y width height' in fractions "
        "of the image: objects of these classes count inside their boxes and nowhere else",
        box_classes=("person,bike,car", "the classes that the boxes number from 0"),
        device=DEVICE,
        precision=PRECISION,
        overwrite=(False, "redo what is there already"),
    )


def run(args: Namespace) -> int:
    """Write the labels; return 0, or 2 if some pairs could not be read (all others were)."""
    import numpy as np

    from efnet.core.classes import IGNORE_INDEX
    from efnet.core.devices import check_precision
    from efnet.core.files import write_image
    from efnet.inference.inputs import find_pairs
    from efnet.inference.postprocess import Prediction
    from efnet.inference.predictor import Predictor
    from efnet.inference.pseudo_label import keep_images, pseudo_label, read_boxes, read_thresholds

    out = Path(args.out)
    check_folder_writable("--out", out)
    folder = None if args.boxes is None else Path(args.boxes).expanduser()
    if folder is not None and not folder.is_dir():
        raise InputError(f"--boxes {folder}: no such folder")
    pairs = find_pairs(args.rgb, args.thermal, exclude=out)
    predictor = Predictor.from_pretrained(args.checkpoint, args.device, check_precision(args.precision))
    say_default(args.checkpoint, predictor)
    names = predictor.classes.names
    thresholds, boxed = read_thresholds(args.threshold, predictor.classes), split_words(args.box_classes)
    if folder is not None and (unknown := [name for name in boxed if name not in names]):
        raise InputError(f"--box-classes {', '.join(unknown)}: no such class; there are {', '.join(names)}")
    counts, faults, done = np.zeros(IGNORE_INDEX + 1, dtype=np.int64), [], 0
    with progress_bar("label", rate=True) as bar:
        bar(0, len(pairs))
        for number, pair in enumerate(pairs, 1):
            target = out / "labels" / f"{pair.name}.png"
            try:
                if args.overwrite or not target.exists():
                    boxes = None
                    if folder is not None:
                        boxes = read_boxes(folder / f"{pair.name}.txt", boxed, predictor.classes)
                    prepared = predictor.prepare(pair.rgb, pair.thermal)
                    found = predictor.run([prepared], probabilities=True, tta=args.tta)[0].probabilities
                    assert found is not None
                    label = pseudo_label(found, thresholds, boxes, [names.index(name) for name in boxed])
                    counts += np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
                    assert pair.rgb is not None
                    assert pair.thermal is not None
                    keep_images(out, pair.name, {"rgb": pair.rgb, "thermal": pair.thermal})
                    write_image(target, Prediction(label, predictor.classes).indexed())
                    done += 1
            except InputError as error:
                faults.append(pair.blame(error))
            bar(number, len(pairs))
    total = max(1, int(counts.sum()))
    parts = [f"{name} {100 * counts[value] / total:.2f}" for value, name in enumerate(names)]
    share = f"{100 * (total - counts[-1]) / total:.1f} % of the pixels ({', '.join(parts)})"
    print(f"labelled {done} of {len(pairs)} pairs in {out}: {share}")
    print_faults("pairs", faults)
    return 2 if faults else 0
