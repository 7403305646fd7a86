"""`efnet.export`: write a checkpoint as a file that other programs run, and compare the two."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from efnet.core.errors import InputError
from efnet.core.shipped import DEFAULT_WEIGHTS
from efnet.export.export import check_options, export_model
from efnet.export.formats import Format, Inputs, Outputs, Precision, check_installed
from efnet.export.quantize import check_calibration
from efnet.inference.predictor import Predictor
from efnet.inference.preprocess import ImageLike
from efnet.inference.runtime import SUFFIXES, is_exported
from efnet.models.base import SegmentationModel


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with its checkpoint."""

    path: Path  # the file; OpenVINO's weights lie beside it
    report: dict[str, Any]  # its description and the comparison, also in `path` with `.json` added

    @property
    def agreement(self) -> float | None:
        """Share of the compared pixels whose class is the same; None for a file that was not checked."""
        check: dict[str, float] | None = self.report["check"]
        return None if check is None else check["agreement"]


def export(
    checkpoint: str | os.PathLike[str] | Predictor = DEFAULT_WEIGHTS,
    *,
    out: str | os.PathLike[str],
    format: Format | None = None,
    size: tuple[int, int] | None = None,
    inputs: Inputs = "float",
    outputs: Outputs = "logits",
    precision: Precision = "32",
    pairs: Sequence[tuple[ImageLike | None, ImageLike | None]] = (),
    calibration: Sequence[tuple[ImageLike | None, ImageLike | None]] = (),
    static: bool = False,
    check: bool = True,
    on_step: Callable[[str], None] = lambda step: None,
    on_loaded: Callable[[Predictor], None] = lambda predictor: None,
) -> Exported:
    """Write a checkpoint as ONNX, OpenVINO or a program of torch.export, as `efnet export` does.

    Args:
        checkpoint: run folder, checkpoint folder, `owner/name` on the hub, or a `Predictor`.
        out: the file.
        format: `onnx` (.onnx), `openvino` (.xml) or `torch` (.pt2); None: by the suffix of `out`.
        size: (H, W) of the one pair that the file takes; None: any batch, height and width.
        inputs: `float` or `uint8`.
        outputs: `logits`, `probabilities` or `classes`.
        precision: of the weights: `32`, `16` or `int8`, as far as the format has it.
        pairs: images (rgb, thermal) to compare on; by default generated ones.
        calibration: images (rgb, thermal) that measure the ranges of `int8`, which needs some.
        static: of `onnx` for one `size`: without loops and sizes that data decide, as TensorRT needs it.
        check: compare the file with the checkpoint, and write no file that does not agree.
        on_step: called with the name of each step.
        on_loaded: called with the network before it is exported.

    Returns:
        The file and its report.

    Raises:
        InputError: a wrong value, a package that is not installed, no such checkpoint, or a file that would
            not agree with it.
    """
    path = Path(out).expanduser()
    chosen = cast(Format, format or SUFFIXES.get(path.suffix.lower()))
    if chosen is None:
        raise InputError(f"`out` {path}: give a file name that ends in {', '.join(SUFFIXES)}, or a `format`")
    check_options(path, chosen, precision, size, static, check, len(pairs))
    if not isinstance(checkpoint, Predictor) and is_exported(checkpoint):
        raise InputError(f"`checkpoint` {checkpoint}: is an exported file; give the run it came from")
    check_installed(chosen)
    if isinstance(checkpoint, Predictor):
        # Exporting moves the network to the CPU; the caller's predictor stays where it is.
        if not isinstance(checkpoint.model, SegmentationModel):
            raise InputError("`checkpoint` is a predictor of an exported file; give the run it came from")
        predictor = Predictor(copy.deepcopy(checkpoint.model), "cpu")
    else:
        predictor = Predictor.from_pretrained(checkpoint, "cpu")
    on_loaded(predictor)
    predictor.size = size or predictor.size
    model = cast(SegmentationModel, predictor.model)
    check_calibration(model, chosen, precision, len(calibration))  # before the images are read
    with _quiet():
        report = export_model(
            model,
            path,
            chosen,
            inputs=inputs,
            outputs=outputs,
            precision=precision,
            size=size,
            pairs=[predictor.prepare(rgb, thermal) for rgb, thermal in pairs],
            calibration=[predictor.prepare(rgb, thermal) for rgb, thermal in calibration],
            static=static,
            check=check,
            on_step=on_step,
        )
    return Exported(path, report)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' own output."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
