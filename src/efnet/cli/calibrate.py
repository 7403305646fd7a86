"""`efnet calibrate`: find how thermal images map onto colour images, and write it to a file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.progress import Progress

from efnet.cli.arguments import MATCH, PALETTE, add_options, apply_match, check_minima
from efnet.cli.options import check_file_writable
from efnet.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from efnet.alignment.homography import Homography, Points

    Images = list[tuple[NDArray[np.uint8], NDArray[np.float32]]]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

DESCRIPTION = (
    "Find how thermal images map onto colour images, from point pairs or from edges, and write it to a file "
    "for efnet predict --homography."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        rgb=(str, "colour images of one camera: file, folder or glob"),
        thermal=(str, "thermal images of the other: file, folder or glob"),
        match=MATCH,
        out=(Path, "the file to write (JSON)"),
        points=(Path | None, "CSV file of such points, a line each: x,y,X,Y"),
        tolerance=(5.0, "pixels of the colour image that point pairs may be off"),
        pairs=(8, "image pairs used for edges, evenly spaced"),
        preview=(Path | None, "picture of the first pair before and after (PNG)"),
        thermal_palette=PALETTE,
        overwrite=(False, "replace the file if it is there"),
    )
    parser.add_argument(
        "--point",
        action="append",
        type=str,
        help="x,y,X,Y: a point in the thermal image and the same one in the colour image, in pixels; four "
        "times or more. Without points, edges are used",
    )


def run(args: Namespace) -> int:
    """Calibrate; return 0."""
    from efnet.alignment.estimate import preview
    from efnet.core.files import write_image

    check_file_writable("--out", args.out)
    check_file_writable("--preview", args.preview)
    if args.out.exists() and not args.overwrite:
        raise InputError(f"--out {args.out}: is there already; choose another name, or use --overwrite")
    check_minima(args, pairs=1)
    if not 0 < args.tolerance < float("inf"):
        raise InputError(f"--tolerance {args.tolerance}: give a number of pixels above 0")
    if args.preview is not None and args.preview.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"--preview {args.preview}: end the name in {', '.join(PICTURE_SUFFIXES)}")
    points = read_points(args.point, args.points)
    apply_match(args)
    images = _read_images(args, 1 if points is not None else args.pairs)
    homography = _from_edges(images) if points is None else _from_points(points, images, args.tolerance)
    homography.save(args.out)
    if args.preview is not None:
        write_image(args.preview, preview(*images[0], homography, points))
    _report(homography, points, args.out)
    return 0


def read_points(given: list[str] | None, file: Path | None) -> tuple[Points, Points] | None:
    """Return thermal points (N, 2) and colour points (N, 2) of `--point` and `--points` together, or None."""
    if given is None and file is None:
        return None
    rows = [_four_numbers(text, f"--point {text}") for text in given or ()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--points {file}: cannot be read ({error})") from error
        for number, line in enumerate(lines, start=1):
            text = line.split("#")[0].strip()
            if text and not (number == 1 and re.search(r"[A-DF-Za-df-z]", text)):  # a heading, but no 1e3
                rows.append(_four_numbers(text, f"--points {file}, line {number}"))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return table[:, :2], table[:, 2:]


def _four_numbers(text: str, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in re.split(r"[,;\s]+", text.strip())]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise InputError(f"{where}: give four numbers: thermal x, y, then colour x, y")
    return numbers


def _read_images(args: Namespace, limit: int) -> Images:
    """Read some of the pairs, evenly spaced."""
    from efnet.data.false_color import palette_scale
    from efnet.data.images import read_rgb, read_thermal
    from efnet.inference.inputs import find_pairs

    pairs = find_pairs(args.rgb, args.thermal)
    scale = "auto" if args.thermal_palette is None else palette_scale(args.thermal_palette)
    step = -(-len(pairs) // limit)
    return [
        (read_rgb(pair.rgb), read_thermal(pair.thermal, scale))
        for pair in pairs[::step]
        if pair.rgb is not None and pair.thermal is not None
    ]


def _from_points(points: tuple[Points, Points], images: Images, tolerance: float) -> Homography:
    from efnet.alignment.homography import Homography, fit_homography

    rgb_size, thermal_size = ((image.shape[0], image.shape[1]) for image in images[0])
    _check_inside("thermal", points[0], thermal_size)
    _check_inside("colour", points[1], rgb_size)
    fit = fit_homography(*points, tolerance)
    about = {
        "method": "points",
        "pairs": np.column_stack(points).tolist(),
        "used": fit.inliers.tolist(),
        "residuals": [round(float(residual), 3) for residual in fit.residuals],
        "rms": round(fit.rms, 3),
        "tolerance": tolerance,
    }
    return Homography(fit.matrix, thermal_size, rgb_size, about)


def _check_inside(what: str, points: Points, size: tuple[int, int]) -> None:
    """Refuse points beyond their image: most often the user swapped the two."""
    height, width = size
    beyond = (points < -0.5).any(axis=1) | (points[:, 0] > width - 0.5) | (points[:, 1] > height - 0.5)
    for place in np.flatnonzero(beyond)[:1]:
        x, y = points[place]
        raise InputError(
            f"point pair {place + 1}: {x:g}, {y:g} lies outside the {what} image of {width}x{height} (width "
            "x height); the order is thermal x, y, then colour x, y"
        )


def _from_edges(images: Images) -> Homography:
    from efnet.alignment.estimate import estimate_homography

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("comparing edges", total=None)
        return estimate_homography(
            images, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )


def _report(homography: Homography, points: tuple[Points, Points] | None, out: Path) -> None:
    """Print what was found."""
    about = homography.about
    if points is not None:
        used, count = about["used"], len(points[0])
        for number, (kept, residual) in enumerate(zip(used, about["residuals"], strict=True), start=1):
            print(f"pair {number}: {residual:.2f} pixels off{'' if kept else ', left out'}")
        print(f"{sum(used)} of {count} point pairs used, {about['rms']:.2f} pixels off (rms)")
        if count == 4:
            print("four pairs fit exactly whatever they are: look at --preview, or give more")
    else:
        print(
            f"{about['model']} from the edges of {about['pairs']} image pairs: {about['parts']} of 30 image "
            f"parts agree, {about['rms']:.2f} pixels off (rms)"
        )
        if about["model"] == "similarity":
            print("shift, scale and turn only: the parts that agree span too little for a homography")
    print(f"thermal moves by {homography.displacement():.1f} pixels (rms of corners and centre): {out}")
