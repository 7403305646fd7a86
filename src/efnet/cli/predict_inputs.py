"""Options of `efnet predict` on what comes before the network: tiles, a homography, dead cameras."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from efnet.cli.options import parse_size
from efnet.core.errors import InputError

if TYPE_CHECKING:
    from efnet.alignment.homography import Homography
    from efnet.inference.inputs import InputPair
    from efnet.inference.missing_cameras import Camera, MissingPolicy
    from efnet.inference.predictor import Predictor
    from efnet.inference.tiles import Tiling

NONE = "none"
"""Value of --rgb or --thermal that says: there is no such camera."""


def add_input_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--tile",
        type=str | None,
        default=None,
        help="cut images into tiles of this height x width, such as 480x640, at the images' own resolution",
    )
    parser.add_argument(
        "--overlap",
        type=int | None,
        default=None,
        help="pixels that neighbouring tiles share (default: 64, at most half a tile)",
    )
    parser.add_argument(
        "--homography",
        type=str | None,
        default=None,
        help="file of efnet calibrate: brings thermal images into the colour camera's view",
    )
    parser.add_argument(
        "--missing",
        type=str,
        default="warn",
        help="an image that shows nothing (covered, saturated, frozen): warn says so, and puts grey in its "
        "place for a network trained to go on without; error refuses the pair, ignore does not look",
    )


@dataclass(frozen=True)
class InputOptions:
    """What the options say."""

    tiling: Tiling | None
    homography: Homography | None
    missing: MissingPolicy

    @classmethod
    def read(cls, args: Namespace) -> InputOptions:
        """Check the options, and read the homography file.

        Raises:
            InputError: a size, number, file or policy is wrong.
        """
        from efnet.alignment.homography import Homography
        from efnet.inference.missing_cameras import check_missing

        if args.homography is not None and (args.rgbt is not None or NONE in (args.rgb, args.thermal)):
            raise InputError("--homography aligns two cameras: give both --rgb and --thermal")
        return cls(
            tiling=_tiling(args),
            homography=None if args.homography is None else Homography.load(args.homography),
            missing=check_missing(args.missing),
        )

    def apply(self, predictor: Predictor) -> None:
        """Set the predictor up."""
        predictor.tiling = self.tiling
        predictor.homography = self.homography
        predictor.missing = self.missing

    def settings(self) -> dict[str, Any]:
        """What decides a result, for the journal; nothing for what is off."""
        found: dict[str, Any] = {"missing": self.missing} if self.missing != "warn" else {}
        if self.tiling is not None:
            found["tile"] = [*self.tiling.size, self.tiling.overlap]
        if self.homography is not None:
            found["homography"] = self.homography.matrix.tolist()
        return found

    def described(self) -> str:
        """What was done to the images, for the summary; empty if nothing was."""
        said = []
        if self.tiling is not None:
            height, width = self.tiling.size
            said.append(f"in tiles of {height}x{width} that share {self.tiling.overlap} pixels")
        if self.homography is not None:
            said.append("thermal brought into the colour view, its border continued outward")
        return "".join(f", {what}" for what in said)


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


def given(value: str | None) -> str | None:
    """The value of --rgb or --thermal; None for `none`."""
    return None if value == NONE else value


def mark_absent(args: Namespace, pairs: tuple[InputPair, ...]) -> tuple[InputPair, ...]:
    """The pairs, with the camera that the user says is not there."""
    cameras: tuple[Camera, ...] = ("rgb", "thermal")
    for camera in cameras:
        if args[camera] == NONE:
            return tuple(replace(pair, absent=camera) for pair in pairs)
    return pairs


def consequence(camera: Camera, spared: frozenset[Camera]) -> str:
    """What becomes of a dead image, in words."""
    if camera in spared:
        return "grey takes its place"
    return f"it is used as it is, since the network was not trained without it (--augment.drop_{camera})"


class MissingCount:
    """Images that showed nothing: the first of each camera is told at once, all are counted.

    Args:
        spared: cameras without which the network was trained to go on.
        say: prints a line.
    """

    def __init__(self, spared: frozenset[Camera], say: Callable[[str], object]) -> None:
        self._spared = spared
        self._say = say
        self._counts: Counter[Camera] = Counter()

    def add(self, where: str, missing: Mapping[Camera, str]) -> None:
        """Count a pair's; `where` names it."""
        from efnet.inference.missing_cameras import NOT_GIVEN

        for camera, reason in missing.items():
            if reason == NOT_GIVEN:
                continue
            if not self._counts[camera]:
                self._say(
                    f"warning: {where}: the {camera} image is {reason}; {consequence(camera, self._spared)}, "
                    "here and in others like it (--missing error refuses them)"
                )
            self._counts[camera] += 1

    def described(self) -> str:
        """For the summary; empty if all was well."""
        return "".join(f", {count} without a usable {camera} image" for camera, count in self._counts.items())


def check_given(args: Namespace, modality: str) -> None:
    """Refuse a model that looks at images which were not given, before any file is read.

    A model of both cameras may be told that there is `none` of one kind, that of one camera not.

    Raises:
        InputError: naming the options that are missing.
    """
    if args.rgbt is not None:
        return
    wanted = {"rgbt": ("rgb", "thermal"), "rgb": ("rgb",), "thermal": ("thermal",)}[modality]
    absent = (None, NONE) if len(wanted) == 1 else (None,)
    missing = [f"--{option}" for option in wanted if args[option] in absent]
    if missing:
        raise InputError(f"the model of {args.checkpoint} needs {' and '.join(missing)} too (or --rgbt)")
