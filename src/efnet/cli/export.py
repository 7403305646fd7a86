"""`efnet export`: a checkpoint as a file that other programs run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from efnet.cli import arguments
from efnet.cli.arguments import add_options, check_minima, say_default
from efnet.cli.options import check_file_writable, parse_size

DESCRIPTION = (
    "Write a checkpoint as ONNX, OpenVINO or a program of torch.export, for any batch, height and width or "
    "for one size, and compare the file with the checkpoint. Takes a minute or more."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_options(
        parser,
        checkpoint=arguments.NETWORK,
        format=(Literal["onnx", "openvino", "torch"], "onnx (.onnx), openvino (.xml and .bin), torch (.pt2)"),
        out=(str, "the file; its report goes to FILE.json"),
        size="height x width, such as 480x640, of the one pair that the file takes (openvino: required); "
        "default: any batch, height and width",
        inputs=(
            Literal["float", "uint8"],
            "float: rgb (B, 3, H, W) and thermal (B, 1, H, W) from 0 to 1; uint8: as cameras give them, "
            "rgb (B, H, W, 3) and thermal (B, H, W)",
        ),
        outputs=(
            Literal["logits", "probabilities", "classes"],
            "logits or probabilities (B, K, H, W), or classes (B, H, W)",
        ),
        precision=(
            "32",
            "32; 16: weights kept in half precision (onnx, openvino); int8: products in integers, with "
            "--calibrate-... (onnx, openvino), of networks that cluster tokens linear layers alone (onnx)",
        ),
    )
    add_options(
        parser,
        static=(
            False,
            "onnx for one --size: without loops and sizes that data decide, the form that TensorRT takes",
        ),
    )
    arguments.add_calibration_arguments(parser)
    arguments.add_check_arguments(parser)
    add_options(parser, no_check=(False, "do not compare the file with the checkpoint"))


def run(args: Namespace) -> int:
    """Export and compare; return 0."""
    from efnet.export.checkpoints import export
    from efnet.models.base import MIN_SIZE

    path = Path(args.out).expanduser()
    check_file_writable("--out", path)
    check_minima(args, check_pairs=1, calibrate_pairs=1)
    exported = export(
        args.checkpoint,
        out=path,
        format=args.format,
        size=None if args.size is None else parse_size(args.size, MIN_SIZE),
        inputs=args.inputs,
        outputs=args.outputs,
        precision=args.precision,
        pairs=[(pair.rgb, pair.thermal) for pair in arguments.find_check_pairs(args)],
        calibration=[(pair.rgb, pair.thermal) for pair in arguments.find_calibration_pairs(args)],
        static=args.static,
        check=not args.no_check,
        on_step=lambda step: print(f"{step} ...", file=sys.__stderr__, flush=True),
        on_loaded=lambda predictor: say_default(args.checkpoint, predictor),
    )
    print("\n".join(_lines(path, exported.report)))
    return 0


def _lines(path: Path, report: dict[str, Any]) -> list[str]:
    # OpenVINO stores its weights beside the graph.
    files = (path, path.with_suffix(".bin")) if report["format"] == "openvino" else (path,)
    size = sum(file.stat().st_size for file in files)
    first = f"{path}: {report['format']}, {size / 1e6:.1f} MB, {report['inputs']} inputs, {report['outputs']}"
    if "static" in report:
        first += f", operators of TensorRT {report['static']['tensorrt']}'s list alone"
    return [first, *_check_lines(report), f"report: {path}.json"]


def _check_lines(report: dict[str, Any]) -> list[str]:
    check = report["check"]
    if check is None:
        return ["not checked: the file was not compared with the checkpoint"]
    seconds = check["seconds"]
    sizes = ", ".join("x".join(str(side) for side in batch) for batch in check["sizes"])
    difference = f", logits differ by at most {check['largest_difference']:.2g}"
    lines = [
        f"compared on {check['pairs']} {check['source']} pairs (batch x height x width: {sizes}):",
        f"  classes agree on {check['agreement']:.4%} of the pixels, at worst on {check['worst']:.4%}"
        + (difference if report["outputs"] == "logits" else ""),
        f"  {seconds['exported']:.3f} s for a pair, the checkpoint {seconds['network']:.3f} s "
        f"({check['threads']} threads)",
    ]
    if check.get("tokens"):
        lines.append(
            f"  {check['clustered_otherwise']} of {check['tokens']} tokens are clustered otherwise by the "
            "static form, in PyTorch"
        )
    return lines
