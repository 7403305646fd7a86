"""`efnet.evaluate`: score a checkpoint on a split from Python, with the figures of the command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.alignment.homography import Homography
from efnet.core.devices import Precision
from efnet.core.errors import InputError
from efnet.core.files import write_json
from efnet.core.progress import progress_bar
from efnet.core.shipped import DEFAULT_WEIGHTS
from efnet.data.items import item_set
from efnet.data.layouts import open_split
from efnet.data.pairs import PairSet
from efnet.data.verify import verify
from efnet.evaluation.evaluate import check_classes
from efnet.evaluation.evaluate import evaluate as tally_split
from efnet.evaluation.intervals import add_evidence
from efnet.evaluation.metrics import Tally
from efnet.evaluation.protocols import get_protocol
from efnet.evaluation.report import Report, build_report, headline
from efnet.evaluation.resampling import Resampling
from efnet.inference.engine import TTA
from efnet.inference.missing_cameras import MissingPolicy, check_missing
from efnet.inference.predictor import Predictor
from efnet.inference.resume import preparation_settings
from efnet.inference.runtime import Runtime
from efnet.inference.tiles import DEFAULT_OVERLAP, Tiling
from efnet.models.base import MIN_SIZE


@dataclass(frozen=True)
class Evaluation:
    """Figures of a network on a split; fractions from 0 to 1, None where nothing can be averaged."""

    report: Report  # all figures, as in the JSON of `efnet evaluate`
    tally: Tally  # the confusion matrix of every pair

    @property
    def miou(self) -> float | None:
        """Mean intersection over union of the classes that the protocol averages."""
        value: float | None = self.report["miou"]
        return value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % bootstrap interval of `miou` over the images; None where there is none."""
        bounds = self.report["interval"]["miou"]
        return None if bounds is None else (bounds[0], bounds[1])

    @property
    def macc(self) -> float | None:
        """Mean accuracy of these classes."""
        value: float | None = self.report["macc"]
        return value

    @property
    def iou(self) -> Mapping[str, float | None]:
        """Intersection over union by class; None for a class that does not enter the mean."""
        values: Mapping[str, float | None] = self.report["iou"]
        return values

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Pixels (K, K), rows truth, columns prediction, without those that the protocol ignores."""
        return np.array(self.report["confusion"], dtype=np.int64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, the same file as that of `efnet evaluate`."""
        write_json(path, self.report)

    def __str__(self) -> str:
        return headline(self.report)


def fit_split(predictor: Predictor, pairset: PairSet) -> PairSet:
    """Return a split as a predictor reads it, after a look at the headers of all files.

    Raises InputError: other classes, or faults (all at once).
    """
    check_classes(predictor.classes, pairset)
    registered = predictor.homography is None
    scale = predictor.scale_of(pairset.thermal_scale)
    pairset = replace(pairset, thermal_scale=scale, registered=registered)
    verify(pairset, headers_only=True)  # report missing files before the long run
    return pairset


def describe(
    predictor: Predictor,
    pairset: PairSet,
    checkpoint: str,
    tta: bool,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the circumstances of an evaluation that stand beside the protocol in its report."""
    return {
        "dataset": pairset.dataset,
        "split": pairset.split,
        "checkpoint": checkpoint,
        "model": predictor.model.name,
        "modality": predictor.modality,
        "selected_on": predictor.model.training_summary.get("selected_on"),
        "input_size": list(predictor.size) if predictor.size and predictor.tiling is None else None,
        "tta": TTA if tta else None,
        "precision": predictor.precision,
        **settings,
    }


def evaluate(
    checkpoint: str | os.PathLike[str] | Predictor = DEFAULT_WEIGHTS,
    *,
    dataset: Any,
    root: str | os.PathLike[str] = ".",
    split: str = "test",
    protocol: str | None = None,
    size: tuple[int, int] | str | None = None,
    batch_size: int = 1,
    workers: int = 2,
    tta: bool = False,
    tile: tuple[int, int] | None = None,
    overlap: int | None = None,
    homography: str | os.PathLike[str] | None = None,
    missing: MissingPolicy = "ignore",
    device: str = "auto",
    precision: Precision = "32",
    runtime: Runtime | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score a checkpoint on a labelled split, as `efnet evaluate` does, bit for bit.

    Args:
        checkpoint: run folder, checkpoint folder, file of `efnet.export`, `owner/name` on the hub, or a
            `Predictor`, which keeps its own settings.
        dataset: a layout's name or the path of a dataset.yaml; or a torch Dataset as `efnet.train` takes it,
            in the classes of the checkpoint.
        root: the data set's folder.
        split: `train`, `val`, `test` or another that the layout knows.
        protocol: how to score; None: the data set's own rules.
        size: (H, W) that the network sees, or `native`; None: what it was made for.
        batch_size: pairs in one pass of the network.
        workers: processes that read images.
        tta: average over three scales and mirror images.
        tile: (H, W) of tiles at the images' own resolution; None: do not cut.
        overlap: pixels that neighbouring tiles share.
        homography: file of `efnet calibrate`.
        missing: `ignore`, `warn` or `error`, for images that show nothing.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        precision: `32`, or `bf16` for autocast.
        runtime: runs an exported file; None: by its suffix.
        quiet: show no progress.

    Returns:
        The figures: `miou`, `macc`, `iou` and, as in the JSON of the command, `report`.

    Raises:
        InputError: a wrong value, no such checkpoint or data, other classes, or files that cannot be read.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value < least:
            raise InputError(f"`{name}` {value}: give {least} or more")
    if isinstance(checkpoint, Predictor):
        predictor, source = checkpoint, checkpoint.model.name
    else:
        predictor = Predictor.from_pretrained(checkpoint, device, precision, runtime=runtime)
        source = str(checkpoint)
        predictor.missing = check_missing(missing)
        predictor.tiling = _tiling(tile, overlap)
        predictor.homography = None if homography is None else Homography.load(homography)
    if size is not None:
        if tile is not None:
            raise InputError("`tile` cuts images at their own resolution; leave out `size`")
        predictor.size = _input_size(size)
    if isinstance(dataset, str | Path):
        pairset = open_split(str(dataset), Path(root), split)
    else:
        pairset = item_set(dataset, predictor.classes, split)
    rules = get_protocol(protocol or pairset.protocol)
    rules.check(pairset.classes)
    pairset = fit_split(predictor, pairset)
    circumstances = describe(
        predictor, pairset, source, tta, preparation_settings(predictor, default_missing="ignore")
    )
    try:
        with progress_bar("evaluate", disable=quiet) as bar:
            tally = tally_split(
                predictor,
                pairset,
                rules,
                batch_size=batch_size,
                workers=min(workers, len(pairset)),
                tta=tta,
                boundaries=True,
                progress=bar,
            )
    except InputError:
        verify(pairset)  # a damaged file stopped the run: report every damaged file
        raise
    return Evaluation(add_evidence(build_report(tally, circumstances), tally, Resampling()), tally)


def _input_size(size: tuple[int, int] | str) -> tuple[int, int] | None:
    if size == "native":
        return None
    if isinstance(size, str) or len(size) != 2 or min(size) < MIN_SIZE:
        raise InputError(f"`size` {size}: give (height, width), both at least {MIN_SIZE}, or 'native'")
    return (int(size[0]), int(size[1]))


def _tiling(tile: tuple[int, int] | None, overlap: int | None) -> Tiling | None:
    if tile is None:
        if overlap is not None:
            raise InputError("`overlap` is that of tiles: give `tile` too, such as (480, 640)")
        return None
    return Tiling(tile, min(DEFAULT_OVERLAP, min(tile) // 2) if overlap is None else overlap)
