"""Thermal images in false colours: back from the colours of a map to one number per pixel.

Many cameras save nothing else. A colour's place along its map is the only thing left of the temperature, so
the values are relative: the coldest colour is 0, the hottest 255.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from efnet.core.errors import InputError
from efnet.core.safe_parse import parse_yaml
from efnet.data.decode import open_image
from efnet.data.pairs import ThermalScale

AUTO = "auto"
GREYS = ("white-hot", "black-hot")
"""Maps without colours: grey from cold to hot, and from hot to cold."""

PREFIX = "palette:"
"""Begins a thermal scale that is a colour map: `palette:NAME`, or `palette:` and colours in hexadecimal."""

STEPS = 256
"""Colours of a map, once interpolated."""

_CHROMA = 0.5
"""Weight of a difference in chroma, beside 1 of luma: JPEG stores chroma coarsely."""
_FAR = 28.0
"""Weighted distance (levels) from which a pixel is not of the map: text, a logo, a frame."""
_POOR, _POOR_AUTO = 12.0, 4.0
"""Median distance from which a picture is not of the map: of a named one, which cameras vary, and of any."""
_MOST_FAR = 0.4
"""Share of far pixels above which a picture is not of the map."""
SOME = 0.001
"""Share of far pixels from which they are worth a word."""
_ALIKE = 1.0
"""Mean distances that differ by less do not decide between two maps."""
_APART = 8.0
"""Mean difference of places from which two maps differ."""
_COMPARED = 2048
"""Colours of a picture by which a map is chosen."""
_ROWS = 256
"""Colours compared at a time: their distances stay in the processor's cache."""
_MOST_COLORS = 4096
"""Colours of a map in a file."""

_DIGITS = r"([0-9a-f]{6}){2,}"
"""Colours of a map as they are stored."""

_logger = logging.getLogger(__name__)
_reported: list[str] = []  # the first file with far pixels; one line a process, whatever the number of files


@dataclass(frozen=True, eq=False)
class ColorMap:
    """A colour map, from cold to hot."""

    name: str
    colors: NDArray[np.float64]  # (256, 3) in 0..255

    @classmethod
    def of(cls, name: str, colors: NDArray[np.float64]) -> ColorMap:
        """Make a map of equally spaced colours (N, 3), N >= 2; colours between them are interpolated."""
        places = np.linspace(0, len(colors) - 1, STEPS)
        channels = (np.interp(places, np.arange(len(colors)), colors[:, channel]) for channel in range(3))
        return cls(name, np.stack(list(channels), axis=1))


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture in false colours, decoded."""

    map: str  # the colour map
    values: NDArray[np.uint8]  # (H, W) places along it, 0..255; far pixels are filled from their neighbours
    distance: float = 0.0  # median distance of its colours from the map, in levels
    far: float = 0.0  # share of pixels whose colours are not of the map

    @property
    def described(self) -> str:
        """The map, and how far the colours lie from it."""
        return f"false colours of {self.map} ({self.distance:.0f} levels off)"


def is_palette(scale: ThermalScale) -> bool:
    """Whether a thermal scale is a colour map."""
    return isinstance(scale, str) and scale.startswith(PREFIX)


def palette_scale(palette: str, folder: Path | None = None) -> str:
    """Return the thermal scale of a map: `auto`, a name that `names` lists, or a file.

    A file, relative to `folder`, is a picture of the camera's colour bar (its longer side is the map, the hot
    end right or at the top), or text with one colour a line: red, green and blue in 0..255, from cold to hot.
    Its colours become part of the scale, six hexadecimal digits each, so that a checkpoint needs no file;
    they are taken as `palette` too.

    Raises:
        InputError: neither a name nor a file, or a file without a map.
    """
    if palette == AUTO or palette in names():
        return PREFIX + palette
    if re.fullmatch(_DIGITS, palette):
        return PREFIX + palette
    path = (folder or Path()) / Path(palette).expanduser()
    if not path.is_file():
        raise InputError(
            f"`thermal_palette` {palette}: no file, and no map; give {AUTO}, {', '.join(names())}"
        )
    colors = np.rint(_read(path)).astype(int)
    return PREFIX + "".join("{:02x}{:02x}{:02x}".format(*color) for color in colors)


def check_scale(scale: str) -> None:
    """Raise InputError unless a thermal scale in words is `auto` or a colour map that can be used."""
    if scale != AUTO and not is_palette(scale):
        raise InputError(
            f"thermal scale {scale[:40]!r}: give 'auto', two numbers, or '{PREFIX}' and a map's name"
        )
    if scale.removeprefix(PREFIX) not in (AUTO, *GREYS):
        _candidates(scale)


def names() -> tuple[str, ...]:
    """Names of the known maps, those without colours first."""
    return (*GREYS, *_maps())


def decode_colors(colors: NDArray[np.uint8], scale: str, name: str) -> Decoded:
    """Find the place of every pixel of (H, W, 3) along the map of a scale.

    A colour takes the place of the nearest one of the map, by luma and, with half the weight, chroma. Where a
    map has several variants, or with `auto`, the one with the least mean distance is used.

    Raises:
        InputError: the colours are not those of the map or, with `auto`, of no map or of several.
    """
    height, width = colors.shape[:2]
    packed = colors.reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    codes, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kinds = _weighted(np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1))
    chosen = _choose(kinds, counts, scale, name)
    places, distance = _nearest(kinds, chosen)
    far = distance > _FAR
    median, share = _weighted_median(distance, counts), float(counts[far].sum() / counts.sum())
    if median > (_POOR_AUTO if scale == PREFIX + AUTO else _POOR) or share > _MOST_FAR:
        fit = f"{median:.0f} levels away in the median, {100 * share:.0f} % of the pixels far off"
        wanted = "any map that is known" if scale == PREFIX + AUTO else f"the map {chosen.name}"
        raise InputError(
            f"{name}: its colours are not those of {wanted} ({fit}); give another `thermal_palette` "
            f"({', '.join(names())}, or a picture of the camera's colour bar), or the camera's grey image"
        )
    values = places[inverse].reshape(height, width)
    off = far[inverse].reshape(height, width)
    if off.any():
        values = np.rint(_filled(values.astype(np.float64), ~off)).astype(np.uint8)
        if share > SOME and not _reported:
            _reported.append(name)
            text = "%s: %.1f %% of its pixels are not of the colour map %s (text, a logo), filled from beside"
            _logger.warning(text, name, 100 * share, chosen.name)
    return Decoded(chosen.name, values, median, share)


def _choose(kinds: NDArray[np.float32], counts: NDArray[np.int64], scale: str, name: str) -> ColorMap:
    """The map of a scale that fits colours (N, 3) of so many pixels best; errors as `decode_colors`."""
    maps = _candidates(scale)
    if len(maps) == 1:
        return maps[0]
    step = -(-len(kinds) // _COMPARED)  # colours are sorted, so every few of them are of all parts
    kinds, counts = kinds[::step], counts[::step]
    found = [_nearest(kinds, each) for each in maps]
    # A logo counts like any other far pixel, however far it is.
    means = [float(np.average(np.minimum(distance, _FAR), weights=counts)) for _, distance in found]
    best = int(np.argmin(means))
    places, distance = found[best]
    if scale != PREFIX + AUTO or _weighted_median(distance, counts) > _POOR_AUTO:
        return maps[best]
    kept = counts * (distance <= _FAR)
    for index, mean in enumerate(means):
        if index == best or mean > means[best] + _ALIKE or not kept.any():
            continue
        if np.average(np.abs(found[index][0].astype(int) - places), weights=kept) > _APART:
            raise InputError(
                f"{name}: its colours fit the maps {maps[best].name} and {maps[index].name}, which differ; "
                "name the one it has in `thermal_palette`"
            )
    return maps[best]


def _weighted_median(values: NDArray[np.float32], counts: NDArray[np.int64]) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)])


def suggest(colors: NDArray[np.uint8], name: str) -> str:
    """Say which `thermal_palette` would read a picture (H, W, 3), for the message that refuses it."""
    try:
        found = decode_colors(colors, PREFIX + AUTO, name)
    except InputError:
        return f"if it is one, name its map in `thermal_palette` ({AUTO}, {', '.join(names())}, or a file)"
    return f"it looks like the colour map {found.map}: give `thermal_palette` {AUTO}"


@cache
def _maps() -> dict[str, tuple[ColorMap, ...]]:
    text = resources.files("efnet.data").joinpath("color_maps.yaml").read_text(encoding="utf-8")
    return {
        name: tuple(ColorMap.of(str(each["id"]), _parse(str(each["colors"]))) for each in variants)
        for name, variants in parse_yaml(text).items()
    }


def _parse(digits: str) -> NDArray[np.float64]:
    joined = re.sub(r"[\s,]", "", digits)
    if not re.fullmatch(_DIGITS, joined) or len(joined) > 6 * _MOST_COLORS:
        raise ValueError("two or more colours of six hexadecimal digits")
    return np.frombuffer(bytes.fromhex(joined), dtype=np.uint8).reshape(-1, 3).astype(np.float64)


@cache
def _candidates(scale: str) -> tuple[ColorMap, ...]:
    """The maps that a scale may mean."""
    palette = scale.removeprefix(PREFIX)
    if palette == AUTO:
        return tuple(each for variants in _maps().values() for each in variants)
    if palette in _maps():
        return _maps()[palette]
    try:
        return (ColorMap.of("given", _parse(palette)),)
    except ValueError as error:
        known = f"{AUTO}, {', '.join(names())}"
        raise InputError(f"`thermal_palette` {palette[:40]}: no map; give {known}, or a file") from error


def _read(path: Path) -> NDArray[np.float64]:
    """The colours (N, 3) of a file, from cold to hot."""
    if path.suffix.lower() in (".txt", ".csv", ".pal", ".lut"):
        try:
            rows = [re.findall(r"[\d.]+", line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
            colors = np.array([row[-3:] for row in rows if row], dtype=np.float64)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not red, green and blue on each line ({error}); correct it") from error
    else:
        image = open_image(path)
        samples = image.samples if image.palette is None else image.palette[image.samples]
        if samples.dtype != np.uint8 or samples.ndim != 3 or samples.shape[2] < 3:
            raise InputError(
                f"{path}: not an 8-bit colour picture of a colour bar; cut the bar out and save it"
            )
        lies = samples.shape[1] >= samples.shape[0]
        colors = np.median(samples[..., :3], axis=0 if lies else 1)
        colors = colors if lies else colors[::-1]
    fits = colors.ndim == 2 and 2 <= len(colors) <= _MOST_COLORS and colors.shape[1:] == (3,)
    if not fits or colors.min() < 0 or colors.max() > 255 or np.ptp(colors, axis=0).max() < 32:
        raise InputError(
            f"{path}: not a colour map; give a picture of the camera's colour bar, or 2 to {_MOST_COLORS} "
            "lines of red, green and blue in 0..255"
        )
    return colors


def _nearest(kinds: NDArray[np.float32], colors: ColorMap) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """For weighted colours (N, 3) the places of a map's nearest ones, the first of equals, and distances."""
    theirs = _weighted(colors.colors)
    places = np.empty(len(kinds), dtype=np.uint8)
    squares = np.empty(len(kinds), dtype=np.float32)
    for start in range(0, len(kinds), _ROWS):
        part = slice(start, start + _ROWS)
        # Differences, not products: equal colours must have the distance 0.
        square = (kinds[part, None, 0] - theirs[None, :, 0]) ** 2
        for channel in (1, 2):
            difference = kinds[part, None, channel] - theirs[None, :, channel]
            square += np.multiply(difference, difference, out=difference)
        places[part] = np.argmin(square, axis=1)
        squares[part] = np.min(square, axis=1)
    return places, np.sqrt(squares)


def _weighted(colors: NDArray[Any]) -> NDArray[np.float32]:
    """Luma and weighted chroma (JFIF) of colours (N, 3)."""
    red, green, blue = (colors[:, channel].astype(np.float32) for channel in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    chroma = np.float32(0.564 * _CHROMA) * (blue - luma), np.float32(0.713 * _CHROMA) * (red - luma)
    return np.stack([luma, *chroma], axis=1)


def _filled(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fill what is not known of (H, W) with the mean of the smallest square around it that has values."""
    if known.all() or not known.any():
        return values
    height, width = values.shape
    pad = ((0, height % 2), (0, width % 2))
    weight = np.pad(known, pad).astype(np.float64)
    total = np.pad(np.where(known, values, 0.0), pad)
    squares = (weight.shape[0] // 2, 2, weight.shape[1] // 2, 2)
    count, mass = weight.reshape(squares).sum((1, 3)), total.reshape(squares).sum((1, 3))
    coarse = _filled(mass / np.maximum(count, 1), count > 0)
    enlarged = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(known, values, enlarged)
