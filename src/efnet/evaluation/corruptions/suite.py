"""The corruptions by name, with their parameters by severity, and their application to a sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from efnet.core.errors import InputError
from efnet.data.sample import Sample
from efnet.evaluation.corruptions import faults
from efnet.evaluation.corruptions.fields import Array
from efnet.models.config import Modality

SEVERITIES = (1, 2, 3, 4, 5)

Group = Literal["rgb", "thermal", "between", "missing"]

Apply = Callable[[Array, float, np.random.Generator], Array]


@dataclass(frozen=True)
class Corruption:
    """A fault of one of the two images."""

    name: str  # as users type it
    group: Group  # what it concerns: a camera, how the two lie on each other, or the lack of one
    image: Literal["rgb", "thermal"]  # which of the two changes
    apply: Apply  # image in [0, 1], parameter and generator to image
    levels: tuple[float, ...]  # the parameter at each severity; one alone: a fault without severities
    unit: str = ""  # of the parameter

    @property
    def graded(self) -> bool:
        """Whether it has severities."""
        return len(self.levels) > 1


def _of(camera: Literal["rgb", "thermal"], apply: Apply, levels: tuple[float, ...], unit: str) -> Corruption:
    return Corruption(apply.__name__, camera, camera, apply, levels, unit)


SUITE: tuple[Corruption, ...] = (
    _of("rgb", faults.gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "deviation"),
    _of("rgb", faults.shot_noise, (60, 25, 12, 5, 3), "photons of white"),
    _of("rgb", faults.defocus_blur, (3, 4, 6, 8, 10), "radius"),
    _of("rgb", faults.motion_blur, (8, 14, 22, 32, 44), "length"),
    _of("rgb", faults.darkness, (1, 2, 3, 4, 5), "stops"),
    _of("rgb", faults.overexposure, (0.5, 1, 1.5, 2, 3), "stops"),
    _of("rgb", faults.glare, (0.2, 0.4, 0.8, 1.6, 3.2), "of white"),
    _of("rgb", faults.fog, (0.2, 0.4, 0.7, 1.1, 1.6), "optical depth"),
    _of("rgb", faults.jpeg, (25, 18, 15, 10, 7), "quality"),
    _of("thermal", faults.thermal_noise, (0.02, 0.04, 0.07, 0.11, 0.16), "deviation"),
    _of("thermal", faults.thermal_stripes, (0.02, 0.04, 0.07, 0.11, 0.16), "deviation"),
    _of("thermal", faults.thermal_blur, (1.5, 2.5, 4, 6, 8), "deviation"),
    _of("thermal", faults.thermal_drift, (0.05, 0.1, 0.17, 0.26, 0.38), "of the range"),
    _of("thermal", faults.dead_lines, (0.005, 0.01, 0.02, 0.04, 0.08), "share"),
    _of("thermal", faults.dead_pixels, (0.002, 0.005, 0.01, 0.025, 0.06), "share"),
    _of("thermal", faults.thermal_contrast, (0.6, 0.4, 0.25, 0.15, 0.08), "contrast left"),
    _of("thermal", faults.thermal_steps, (6, 5, 4, 3, 2), "bits"),
    _of("thermal", faults.thermal_crossover, (0.5, 0.0, -0.3, -0.6, -1.0), "contrast"),
    Corruption("shift", "between", "thermal", faults.shift, (4, 8, 16, 24, 32), "length"),
    Corruption("rotation", "between", "thermal", faults.rotation, (1, 2, 4, 7, 10), "degrees"),
    Corruption("missing_rgb", "missing", "rgb", faults.missing_rgb, (1,)),
    Corruption("missing_thermal", "missing", "thermal", faults.missing_thermal, (1,)),
)
"""All of them, in the order of tables."""

GROUPS: tuple[Group, ...] = ("rgb", "thermal", "between", "missing")


def choose(names: Sequence[str], modality: Modality = "rgbt") -> tuple[Corruption, ...]:
    """Return the corruptions of these names or groups (or `all`), in the order of the suite, each once.

    A network that uses one image (`modality`) knows the faults of that camera alone. Raises InputError for an
    unknown name, or one that does not concern the network.
    """
    fitting = [entry for entry in SUITE if modality in ("rgbt", entry.group)]
    chosen: set[str] = set()
    for name in names:
        known = [entry.name for entry in SUITE if name in ("all", entry.group, entry.name)]
        if not known:
            raise InputError(
                f"no corruption is called {name!r}; there are all, the groups {', '.join(GROUPS)}, and "
                f"{', '.join(entry.name for entry in SUITE)}"
            )
        found = {entry.name for entry in fitting} & set(known)
        if not found:
            raise InputError(
                f"corruption {name!r} does not concern a network of modality {modality}; choose among "
                f"{', '.join(entry.name for entry in fitting)}"
            )
        chosen |= found
    if not chosen:
        raise InputError("no corruption is named; give all, or names")
    return tuple(entry for entry in SUITE if entry.name in chosen)


def corrupt(image: Array, corruption: Corruption, severity: int, pair_name: str, seed: int = 0) -> Array:
    """Return an image, colour (H, W, 3) or thermal (H, W) in [0, 1], with one fault, float32 in [0, 1].

    The same arguments give the same image, in whatever order, batch or process. Pair name and seed decide
    what is drawn, the severity (1 to 5, ignored by faults without severities) does not: the noise of severity
    5 is that of severity 1, stronger.
    """
    check_severities([severity])
    digest = hashlib.sha256(f"{corruption.name}\0{pair_name}".encode()).digest()
    rng = np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
    level = corruption.levels[severity - 1 if corruption.graded else 0]
    return corruption.apply(image, level, rng).astype(np.float32, copy=False).clip(0, 1)


def corrupt_sample(sample: Sample, corruption: Corruption, severity: int, seed: int = 0) -> Sample:
    """Return a sample with one fault in one of its images; the other and the label are the same arrays.

    Call it before any resizing: it is the camera that fails. Colour is rounded to 8 bits again; thermal is
    not, it may come from 16.
    """
    if corruption.image == "thermal":
        return replace(sample, thermal=corrupt(sample.thermal, corruption, severity, sample.name, seed))
    image = sample.rgb.astype(np.float32) / np.float32(255)
    spoiled = corrupt(image, corruption, severity, sample.name, seed)
    return replace(sample, rgb=np.rint(spoiled * 255).astype(np.uint8))


def check_severities(severities: Sequence[int]) -> tuple[int, ...]:
    """Return severities in rising order, each once. Raises InputError: none, or one that is not 1 to 5."""
    wrong = [severity for severity in severities if severity not in SEVERITIES]
    if wrong or not severities:
        given = ", ".join(map(str, wrong)) or "none"
        raise InputError(f"severities {given}: give whole numbers from 1 (least) to 5, such as 1,3,5")
    return tuple(sorted(set(severities)))
