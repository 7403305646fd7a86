"""`efnet export`: a checkpoint as a file that other programs run."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import (
    add_check_arguments,
    check_file_writable,
    check_number,
    find_check_pairs,
    parse_size,
)
from efnet.core.errors import InputError

DESCRIPTION = (
    "Write a checkpoint as ONNX, OpenVINO or a program of torch.export, for any batch, height and width or "
    "for one size, and compare the file with the checkpoint. Takes a minute or more."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=True,
        help="run folder, checkpoint folder, or owner/name on the hub",
    )
    parser.add_argument(
        "--format",
        type=Literal["onnx", "openvino", "torch"],
        default="onnx",
        help="onnx (.onnx), openvino (.xml and .bin), torch (.pt2)",
    )
    parser.add_argument("--out", type=str, required=True, help="the file; its report goes to FILE.json")
    parser.add_argument(
        "--size",
        type=str | None,
        default=None,
        help="height x width, such as 480x640, of the one pair that the file takes (openvino: required); "
        "default: any batch, height and width",
    )
    parser.add_argument(
        "--inputs",
        type=Literal["float", "uint8"],
        default="float",
        help="float: rgb (B, 3, H, W) and thermal (B, 1, H, W) from 0 to 1; uint8: as cameras give them, "
        "rgb (B, H, W, 3) and thermal (B, H, W)",
    )
    parser.add_argument(
        "--outputs",
        type=Literal["logits", "probabilities", "classes"],
        default="logits",
        help="logits or probabilities (B, K, H, W), or classes (B, H, W)",
    )
    parser.add_argument(
        "--precision",
        type=str,
        default="32",
        help="32; 16: weights kept in half precision (onnx, openvino); int8: linear layers (onnx)",
    )
    add_check_arguments(parser)


def run(args: Namespace) -> int:
    """Export; see `efnet export --help`.

    Returns:
        0.

    Raises:
        InputError: an option, the checkpoint or a pair is wrong, a package is missing, or the file agrees
            with the checkpoint on too few pixels.
    """
    from efnet.export.export import check_path, check_size, export_model
    from efnet.export.formats import PRECISIONS, Precision, check_installed
    from efnet.inference.predictor import Predictor
    from efnet.inference.runtime import is_exported
    from efnet.models.base import MIN_SIZE, SegmentationModel

    path = Path(args.out).expanduser()
    check_path(path, args.format)
    check_file_writable("--out", path)
    if args.precision not in PRECISIONS[args.format]:
        known = ", ".join(PRECISIONS[args.format])
        raise InputError(f"--precision {args.precision}: --format {args.format} comes in {known}")
    size = None if args.size is None else parse_size(args.size, MIN_SIZE)
    check_size(args.format, size)
    check_number(args)
    if is_exported(args.checkpoint):
        raise InputError(f"--checkpoint {args.checkpoint}: is an exported file; give the run it came from")
    check_installed(args.format)
    predictor = Predictor.from_pretrained(args.checkpoint, "cpu")
    predictor.size = size or predictor.size
    with _quiet():
        report = export_model(
            cast(SegmentationModel, predictor.model),
            path,
            args.format,
            inputs=args.inputs,
            outputs=args.outputs,
            precision=cast(Precision, args.precision),
            size=size,
            pairs=[predictor.prepare(pair.rgb, pair.thermal) for pair in find_check_pairs(args)],
            tell=lambda step: print(f"{step} ...", file=sys.__stderr__, flush=True),
        )
    print("\n".join(_lines(path, report)))
    return 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say of their own affairs."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _lines(path: Path, report: dict[str, Any]) -> list[str]:
    check, seconds = report["check"], report["check"]["seconds"]
    sizes = ", ".join("x".join(str(side) for side in batch) for batch in check["sizes"])
    # The weights of OpenVINO lie beside the graph.
    size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    difference = f", logits differ by at most {check['largest_difference']:.2g}"
    return [
        f"{path}: {report['format']}, {size / 1e6:.1f} MB, {report['inputs']} inputs, {report['outputs']}",
        f"compared on {check['pairs']} {check['source']} pairs (batch x height x width: {sizes}):",
        f"  classes agree on {check['agreement']:.4%} of the pixels, at worst on {check['worst']:.4%}"
        + (difference if report["outputs"] == "logits" else ""),
        f"  {seconds['exported']:.3f} s for a pair, the checkpoint {seconds['network']:.3f} s "
        f"({check['threads']} threads)",
        f"report: {path}.json",
    ]
