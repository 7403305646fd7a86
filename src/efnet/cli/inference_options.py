"""Options of the commands that run a network on images: the checkpoint and its runtime, and preprocessing.

`efnet predict` and `efnet evaluate` take all of them and set up the same engine.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.arguments import (
    ANY_NETWORK,
    DEVICE,
    PALETTE,
    PRECISION,
    add_options,
    check_minima,
    say_default,
)
from efnet.cli.options import option_name, parse_size
from efnet.core.errors import InputError, ManyInputsError

if TYPE_CHECKING:
    from efnet.alignment.homography import Homography
    from efnet.inference.missing_cameras import Camera, MissingPolicy
    from efnet.inference.predictor import Predictor
    from efnet.inference.tiles import Tiling

NONE = "none"
"""Value of `--rgb` or `--thermal` for a camera that does not exist."""


def add_inference_arguments(parser: ArgumentParser, missing: MissingPolicy) -> None:
    """Declare the options; `missing` is the command's default for `--missing`."""
    add_options(
        parser,
        checkpoint=ANY_NETWORK,
        batch_size=(1, "pairs in one pass of the network"),
        device=DEVICE,
        precision=PRECISION,
        runtime="what runs a file of efnet export given as --checkpoint: torch (.pt2), onnx (.onnx) or "
        "openvino (.xml); default: by its suffix",
        threads=(int | None, "of the computation (default: PyTorch's choice)"),
        tile="cut images into tiles of this height x width, such as 480x640, at the images' own resolution",
        overlap=(int | None, "pixels that neighbouring tiles share (default: 64, at most half a tile)"),
        homography="file of efnet calibrate: brings thermal images into the colour camera's view",
        thermal_palette=PALETTE,
        missing=(
            missing,
            "an image that shows nothing (covered, saturated, frozen): warn reports it, and puts grey in its "
            "place for a network trained to go on without; error refuses the pair, ignore does not look",
        ),
    )


@dataclass(frozen=True)
class InferenceOptions:
    """The checked options that set an engine up; `default_missing` is the command's default."""

    tiling: Tiling | None
    homography: Homography | None
    missing: MissingPolicy
    default_missing: MissingPolicy

    @classmethod
    def read(cls, args: Namespace, default_missing: MissingPolicy) -> InferenceOptions:
        """Check the options, read the homography file; raise an `InputError` for a wrong one."""
        from efnet.alignment.homography import Homography
        from efnet.core.devices import check_precision
        from efnet.inference.missing_cameras import check_missing
        from efnet.inference.runtime import check_runtime

        check_precision(args.precision)
        check_minima(args, batch_size=1, threads=1)
        if args.runtime is not None:
            check_runtime(args.runtime)
        return cls(
            tiling=_tiling(args),
            homography=None if args.homography is None else Homography.load(args.homography),
            missing=check_missing(args.missing),
            default_missing=default_missing,
        )

    def load(self, args: Namespace, device: str) -> Predictor:
        """Load the predictor that the options ask for, on a device."""
        import torch

        from efnet.inference.predictor import Predictor

        if args.threads is not None:
            torch.set_num_threads(args.threads)
        predictor = Predictor.from_pretrained(args.checkpoint, device, args.precision, runtime=args.runtime)
        say_default(args.checkpoint, predictor)
        if args.thermal_palette is not None:
            predictor.use_palette(args.thermal_palette)
        predictor.tiling = self.tiling
        predictor.homography = self.homography
        predictor.missing = self.missing
        return predictor

    def settings(self) -> dict[str, Any]:
        """Return the options that affect results and are not at their defaults, for journals and reports."""
        from efnet.inference.resume import preparation_settings

        return preparation_settings(self, self.default_missing)

    def described(self) -> str:
        """Describe the preprocessing for the summary; empty without any."""
        text = ""
        if self.tiling is not None:
            height, width = self.tiling.size
            text += f", in tiles of {height}x{width} that share {self.tiling.overlap} pixels"
        if self.homography is not None:
            text += ", thermal brought into the colour view, its border continued outward"
        return text


def _tiling(args: Namespace) -> Tiling | None:
    from efnet.inference.tiles import DEFAULT_OVERLAP, Tiling

    if args.tile is None:
        if args.overlap is not None:
            raise InputError("--overlap says how tiles overlap: give --tile too, such as --tile 480x640")
        return None
    size = parse_size(args.tile, option="--tile")
    overlap = min(DEFAULT_OVERLAP, min(size) // 2) if args.overlap is None else args.overlap
    try:
        return Tiling(size, overlap)
    except InputError as error:
        raise InputError(f"--tile {args.tile}: {error}") from error


class MissingCount:
    """Count images that show nothing, and call `warn` for the first of each camera.

    `spared`: cameras that the network was trained to work without.
    """

    def __init__(self, spared: frozenset[Camera], warn: Callable[[str], object]) -> None:
        self._spared = spared
        self._warn = warn
        self.counts: Counter[Camera] = Counter()

    def add(self, where: str, missing: Mapping[Camera, str]) -> None:
        """Count the cameras of a pair that show nothing; `where` names the pair in warnings."""
        from efnet.inference.missing_cameras import NOT_GIVEN

        for camera, reason in missing.items():
            if reason == NOT_GIVEN:
                continue
            if not self.counts[camera]:
                untrained = f"the network was not trained without it (--augment.drop_{camera})"
                spared = camera in self._spared
                consequence = "grey takes its place" if spared else f"it is used as it is, since {untrained}"
                self._warn(
                    f"warning: {where}: the {camera} image is {reason}; {consequence}, "
                    "here and in others like it (--missing error refuses them)"
                )
            self.counts[camera] += 1

    def described(self) -> str:
        """Return the counts for the summary; empty without any."""
        return "".join(f", {count} without a usable {camera} image" for camera, count in self.counts.items())


def check_given(args: Namespace, modality: str) -> None:
    """Raise an `InputError` for missing options of images that the model needs.

    For a model of both cameras one of them may be `none`.
    """
    if args.rgbt is not None:
        return
    wanted = {"rgbt": ("rgb", "thermal"), "rgb": ("rgb",), "thermal": ("thermal",)}[modality]
    absent = (None, NONE) if len(wanted) == 1 else (None,)
    missing = [f"--{option}" for option in wanted if args[option] in absent]
    if missing:
        raise InputError(f"the model of {args.checkpoint} needs {' and '.join(missing)} too (or --rgbt)")


def journal_settings(predictor: Predictor) -> dict[str, Any]:
    """Return the settings of a predictor that an interrupted run must not change."""
    from efnet.inference.resume import fingerprint

    return {
        "model": fingerprint(predictor.model),
        "precision": predictor.precision,
        "input_size": predictor.size,
        "thermal_scale": predictor.thermal_scale,
        **({} if predictor.temperature == 1.0 else {"temperature": predictor.temperature}),
    }


def print_faults(kind: str, faults: list[str]) -> None:
    """Print the files that could not be read, if there are any; `kind` is the plural of an item."""
    if faults:
        error = ManyInputsError(f"some {kind} were left out; fix them and run the same command again", faults)
        print(f"efnet: error: {error.spelled(option_name)}", file=sys.stderr)
