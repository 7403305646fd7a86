"""`efnet pseudo-label`: masks from a network for pairs that have none, to train on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import (
    DEVICE,
    MATCH,
    NETWORK,
    PALETTE,
    PRECISION,
    add_options,
    apply_match,
    say_default,
    split_words,
)
from efnet.cli.inference_options import print_faults
from efnet.cli.options import check_folder_writable
from efnet.core.errors import InputError
from efnet.core.progress import progress_bar

if TYPE_CHECKING:
    from efnet.inference.inputs import InputPair

DESCRIPTION = (
    "Write the classes of which a network is sure as labels, 255 elsewhere, with copies of the images: a "
    "folder for efnet train --unlabelled. Continues an interrupted run where it stopped."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=NETWORK,
        rgb=(str, "colour images: file, folder or glob"),
        thermal=(str, "thermal images, likewise"),
        match=MATCH,
        out=(str, "folder for rgb, thermal and labels"),
        threshold=("0.9", "least probability of a pixel's class, and of single ones: 0.9,person=0.7"),
        tta=(False, "average over three scales and mirror images (six times the work)"),
        boxes="folder of text files by the images' names, with lines 'class x y width height' in fractions "
        "of the image: objects of these classes count inside their boxes and nowhere else",
        box_classes=("person,bike,car", "the classes that the boxes number from 0"),
        device=DEVICE,
        precision=PRECISION,
        thermal_palette=PALETTE,
        overwrite=(False, "redo what is there already"),
    )


def run(args: Namespace) -> int:
    """Write the labels; return 0, or 2 if some pairs could not be read (all others were)."""
    import numpy as np

    from efnet.core.classes import IGNORE_INDEX
    from efnet.core.devices import check_precision
    from efnet.core.files import write_image
    from efnet.inference.postprocess import Prediction
    from efnet.inference.predictor import Predictor
    from efnet.inference.pseudo_label import copy_images, pseudo_label, read_boxes, read_thresholds
    from efnet.inference.resume import fingerprint

    out = Path(args.out)
    pairs = _find(args, out)
    predictor = Predictor.from_pretrained(args.checkpoint, args.device, check_precision(args.precision))
    predictor.missing = "error"  # a label of nothing would be learned
    say_default(args.checkpoint, predictor)
    if args.thermal_palette is not None:
        predictor.use_palette(args.thermal_palette)
    names = predictor.classes.names
    thresholds, boxed = read_thresholds(args.threshold, predictor.classes), _boxed(args, names, pairs)
    settings: dict[str, Any] = {"classes": list(names), "model": fingerprint(predictor.model)}
    settings |= {"threshold": thresholds.round(6).tolist(), "tta": args.tta, "precision": args.precision}
    if args.thermal_palette is not None:
        settings["thermal_palette"] = predictor.thermal_scale
    settings |= {"boxes": args.boxes and str(Path(args.boxes).absolute()), "box_classes": boxed}
    _keep_settings(out, settings, args.overwrite)
    counts, faults, done = np.zeros(IGNORE_INDEX + 1, dtype=np.int64), [], 0
    with progress_bar("label", rate=True) as bar:
        bar(0, len(pairs))
        for number, (name, pair) in enumerate(pairs.items(), 1):
            target = out / "labels" / f"{name}.png"
            try:
                if not target.exists():
                    boxes = None
                    if args.boxes is not None:
                        boxes = read_boxes(_boxes_of(args.boxes, pair), boxed, predictor.classes)
                    prepared = predictor.prepare(pair.rgb, pair.thermal)
                    found = predictor.run([prepared], probabilities=True, tta=args.tta)[0].probabilities
                    assert found is not None
                    label = pseudo_label(found, thresholds, boxes, [names.index(word) for word in boxed])
                    counts += np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
                    assert pair.rgb is not None
                    assert pair.thermal is not None
                    copy_images(out, name, {"rgb": pair.rgb, "thermal": pair.thermal})
                    write_image(target, Prediction(label, predictor.classes).indexed())
                    done += 1
            except InputError as error:
                faults.append(pair.blame(error))
            bar(number, len(pairs))
    text = f"labelled {done} of {len(pairs)} pairs in {out}"
    if done:
        shares = 100 * counts / counts.sum()
        parts = [f"{name} {shares[value]:.2f}" for value, name in enumerate(names)]
        text += f": {100 - shares[-1]:.1f} % of the pixels ({', '.join(parts)})"
    print(text)
    print_faults("pairs", faults)
    return 2 if faults else 0


def _find(args: Namespace, out: Path) -> dict[str, InputPair]:
    """Find the pairs by the names of their labels, which lie in one folder; InputError for a misfit."""
    from efnet.inference.inputs import find_pairs

    apply_match(args)
    check_folder_writable("--out", out)
    for option in ("rgb", "thermal"):
        if Path(args[option]).expanduser().absolute().is_relative_to(out.absolute()):
            raise InputError(f"--out {out}: holds the images of --{option}; choose another folder")
    pairs: dict[str, InputPair] = {}
    for pair in find_pairs(args.rgb, args.thermal):
        other = pairs.setdefault(pair.name.replace("/", "_"), pair)
        if other is not pair:
            raise InputError(f"{pair.name} and {other.name} would have one label; rename one of them")
    return pairs


def _boxed(args: Namespace, names: tuple[str, ...], pairs: dict[str, InputPair]) -> list[str]:
    """Return the classes with boxes; InputError if one is unknown or no pair has a file of boxes."""
    if args.boxes is None:
        return []
    if not Path(args.boxes).expanduser().is_dir():
        raise InputError(f"--boxes {args.boxes}: no such folder")
    boxed = split_words(args.box_classes)
    if unknown := [name for name in boxed if name not in names]:
        raise InputError(f"--box-classes {', '.join(unknown)}: no such class; there are {', '.join(names)}")
    if not any(_boxes_of(args.boxes, pair).is_file() for pair in pairs.values()):
        example = _boxes_of(args.boxes, next(iter(pairs.values())))
        raise InputError(
            f"--boxes {args.boxes}: no pair has a file there, such as {example}; check the folder"
        )
    return boxed


def _boxes_of(folder: str, pair: InputPair) -> Path:
    return Path(folder).expanduser() / f"{pair.name}.txt"


def _keep_settings(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Write the settings beside the labels; InputError if labels of other settings are there."""
    from efnet.core.files import write_json
    from efnet.core.safe_parse import parse_json
    from efnet.data.unlabelled import SETTINGS_FILE

    path = out / SETTINGS_FILE
    if overwrite:
        shutil.rmtree(out / "labels", ignore_errors=True)
    try:
        before = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if (out / "labels").is_dir() and before != settings:
        changed = [
            name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]
        ]
        raise InputError(
            f"--out {out}: holds labels of other settings ({', '.join(changed)}); choose another folder, or "
            "redo all with --overwrite"
        )
    write_json(path, settings)
