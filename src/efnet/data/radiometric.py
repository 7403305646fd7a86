"""JPEGs of thermal cameras that hold temperatures beside their picture: FLIR's are read, DJI's are named.

The picture in such a file is a rendering in false colours. Read as a thermal image, the file gives degrees
Celsius; as a colour image, the photograph that the camera took beside it. Both have the picture's size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.core.errors import InputError

if TYPE_CHECKING:
    from flyr import FlyrThermogram  # type: ignore[import-untyped, unused-ignore]

Maker = Literal["FLIR", "DJI"]

_MAKE = 271
"""EXIF's tag of the camera's maker."""
_ASPECT = 0.02
"""Relative difference of aspect ratio between sensor and picture that is rounding."""


@dataclass(frozen=True)
class Radiometry:
    """The temperatures of a JPEG."""

    maker: Maker
    content: bytes  # of the whole file

    def celsius(self, name: str, size: tuple[int, int]) -> NDArray[np.float32]:
        """Degrees Celsius (H, W) at the size of the picture, by the parameters stored in the file.

        Raises:
            InputError: of a maker whose temperatures cannot be read, damaged, or without `flyr`.
        """
        values = self._unpack(name).celsius.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{name}: its parameters give temperatures that are not finite; copy it again")
        height, width = values.shape
        if abs(width * size[0] / (height * size[1]) - 1) > _ASPECT:
            fault = f"its temperatures are {width}x{height}, of another shape than its picture"
            raise InputError(f"{name}: {fault} of {size[1]}x{size[0]}; export the temperatures as TIFF")
        return _resized(values, size)

    def photograph(self, name: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The colour photograph (H, W, 3), cut to the thermal view by its records, at the picture's size.

        Raises:
            InputError: as `celsius`, or the file holds no photograph.
        """
        thermogram = self._unpack(name)
        photograph = thermogram.optical_pil
        if photograph is None:
            fault = "shows a rendering of its temperatures and holds no photograph"
            raise InputError(f"{name}: {fault}; give the colour image as a file of its own")
        view, (height, width) = thermogram.pip_info, thermogram.kelvin.shape
        if view is not None and view.real_to_ir > 0:
            across = photograph.width / view.real_to_ir
            down = across * height / width
            left = photograph.width / 2 + view.offset_x - across / 2
            top = photograph.height / 2 + view.offset_y - down / 2
            photograph = photograph.crop((round(left), round(top), round(left + across), round(top + down)))
        return np.asarray(photograph.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))

    def _unpack(self, name: str) -> FlyrThermogram:
        if self.maker == "DJI":
            raise InputError(
                f"{name}: a radiometric JPEG of DJI, whose temperatures are not read here; convert it with "
                "dji-thermal-cli (process -o temp_c:tiff) or DJI's dji_irp, or read its picture with "
                "`thermal_palette` auto"
            )
        try:
            import flyr
        except ImportError as error:
            raise InputError(
                f"{name}: a radiometric JPEG of FLIR; reading its temperatures needs flyr: "
                'pip install "efnet[radiometric]"'
            ) from error
        try:
            return flyr.unpack(io.BytesIO(self.content))
        except Exception as error:  # whatever a damaged record makes of the parser
            raise InputError(
                f"{name}: its FLIR records cannot be read ({type(error).__name__}: {error}); copy it again"
            ) from error


def find_radiometry(image: Image.Image, content: Callable[[], bytes]) -> Radiometry | None:
    """Return the temperatures of an opened JPEG, None if it has none; `content` reads the whole file.

    FLIR stores them in APP1 segments of its own; DJI in APP3 segments, which other files do not have.
    """
    segments = getattr(image, "applist", [])
    if any(kind == "APP1" and data.startswith(b"FLIR\0") for kind, data in segments):
        return Radiometry("FLIR", content())
    if any(kind == "APP3" for kind, _ in segments) and str(image.getexif().get(_MAKE)).startswith("DJI"):
        return Radiometry("DJI", b"")
    return None


def are_pairs(files: Iterable[Path]) -> bool:
    """Whether every file is a radiometric JPEG of FLIR, which holds temperatures and a photograph."""
    for file in files:
        try:
            with Image.open(file) as image:
                found = find_radiometry(image, bytes)
        except OSError:  # whoever reads it will name the fault
            return False
        if found is None or found.maker != "FLIR":
            return False
    return True


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))
