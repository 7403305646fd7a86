"""What happens to a pair before the network: read, checked, aligned, and brought to the network's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from efnet.data.homography import Homography
from efnet.data.images import ThermalScale
from efnet.errors import InputError
from efnet.models.config import Modality
from efnet.models.validation import MIN_SIZE
from efnet.prediction.arrays import ImageLike, Prepared, check_aspect, resize_rgb, resize_thermal
from efnet.prediction.modality import (
    Camera,
    MissingPolicy,
    blank_rgb,
    blank_thermal,
    find_dead,
    refuse_missing,
)
from efnet.prediction.reading import read_given, read_pair
from efnet.prediction.render import thermal_pixels


@dataclass(frozen=True)
class Preparation:
    """How pairs are brought to one network.

    Attributes:
        modality: which images it looks at.
        thermal_scale: how raw thermal values become [0, 1].
        size: (h, w) that it sees; None: the images' own.
        homography: brings thermal images into the colour camera's view; None: they are there.
        missing: what is done about an image that shows nothing.
        spared: cameras a dead image of which is replaced by grey.
    """

    modality: Modality
    thermal_scale: ThermalScale
    size: tuple[int, int] | None
    homography: Homography | None
    missing: MissingPolicy
    spared: frozenset[Camera]

    def prepare(
        self,
        rgb: ImageLike | None,
        thermal: ImageLike | None = None,
        absent: Mapping[Camera, str] | None = None,
    ) -> Prepared:
        """Read, check, scale and resize one pair.

        Args and errors: see `Predictor.prepare`.
        """
        missing = dict(absent or {}) if self.modality == "rgbt" else {}
        refuse_missing(missing, self.missing)
        if missing:
            colors, heat = read_given(rgb, thermal, self.thermal_scale)
        else:
            colors, heat = read_pair(rgb, thermal, self.modality, self.thermal_scale)
        replaced = set(missing)
        if self.missing != "ignore":
            missing |= find_dead(colors, heat, self.missing)
            replaced |= missing.keys() & self.spared
        if colors is not None:
            original = colors
        else:
            assert heat is not None  # by the modality one of them is there
            original = thermal_pixels(heat)
        size = (original.shape[0], original.shape[1])
        if "thermal" in replaced:
            heat = blank_thermal(size)
        elif colors is not None and heat is not None:
            heat = heat if self.homography is None else self.homography.warp(heat, size)
            check_aspect(colors, heat)
        if "rgb" in replaced:
            colors = blank_rgb(size)
        network_size = self.size or size
        if min(network_size) < MIN_SIZE:
            raise InputError(
                f"the image is {size[1]}x{size[0]}; the network needs at least {MIN_SIZE} pixels each way, "
                "enlarge it first"
            )
        return Prepared(
            rgb=None if colors is None else resize_rgb(colors, network_size),
            thermal=None if heat is None else resize_thermal(heat, network_size),
            size=size,
            original=original,
            missing=missing,
        )
