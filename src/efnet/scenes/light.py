"""Light on a scene by day and by night: sun, sky, haze, shadows, lamps, headlights and wet roads."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from efnet.scenes.canvas import Vector
from efnet.scenes.plan import Lamp
from efnet.scenes.rng import sample_texture
from efnet.scenes.scene import Scene

Field = NDArray[np.float32]

_DARKEST = 40  # sunlight, in bytes, that reaches the middle of a shadow
_CONTACT = 110  # light from the sky, in bytes, that reaches the ground below things
_HAZE = 0.6  # brightness of far haze relative to a white surface under the same sky
_MAX_LAMPS = 5
_BEAM_COLOR = (1.0, 0.95, 0.82)
_SKY_COLOR = (0.85, 0.9, 1.15)
_BEAM_HEIGHT = 0.65
_ZENITH, _RIM, _CLOUD = (0.12, 0.24, 0.52), (0.42, 0.52, 0.66), (0.62, 0.63, 0.66)
_NIGHT, _CITY = (0.5, 0.55, 0.8), (0.9, 0.6, 0.4)


def cast_shadows(scene: Scene) -> Field:
    """Share of the sun's light that reaches each pixel, (H, W)."""
    if max(scene.climate.sun_color) < 0.05:
        return np.ones(scene.buffers.z.shape, dtype=np.float32)
    outlines = []
    sun_x, sun_y, sun_z = scene.climate.sun
    for shade in scene.shades:
        # The foot of a thing, drawn out away from the sun.
        x, y, z, half = shade.x, shade.y, shade.z, shade.width / 2
        if shade.length:
            foot = [(x, z - shade.length / 2), (x, z + shade.length / 2)]
        else:
            # Nearly across the direction of the light, whatever that is.
            wide_x, wide_z = half * max(0.35, abs(sun_z)), half * 0.5 * abs(sun_x) + 0.12
            lean = -1 if sun_x * sun_z > 0 else 1
            foot = [(x - wide_x, z - lean * wide_z), (x + wide_x, z + lean * wide_z)]
        reach = shade.height / sun_y
        low, high = [(a, y, max(c, 1.0)) for a, c in foot]
        tips = [(a - sun_x * reach, y, max(c - sun_z * reach, 1.0)) for a, c in foot]
        outlines.append([low, *tips, high])
    return _on_ground(scene, outlines, _DARKEST, blur=1.0)


def contact_shadows(scene: Scene) -> Field:
    """Share of the sky's light that reaches each pixel, (H, W)."""
    outlines = []
    for shade in scene.shades:
        if not shade.length:
            half = shade.width / 2
            deep = min(half, 0.9) * 0.6 + 0.1
            ring = ((-1.1, 0.0), (-0.7, -deep), (0.7, -deep), (1.1, 0.0), (0.7, deep), (-0.7, deep))
            outlines.append([(shade.x + half * a, shade.y, shade.z + b) for a, b in ring])
    return _on_ground(scene, outlines, _CONTACT, blur=2.2)


def _on_ground(scene: Scene, outlines: Sequence[Sequence[Vector]], darkest: int, blur: float) -> Field:
    """Fill outlines on the ground at half size, soften them, and leave out what is not ground."""
    camera = scene.camera
    mask = Image.new("L", (camera.width // 2, camera.height // 2), 0)
    draw = ImageDraw.Draw(mask)
    for outline in outlines:
        points = [camera.project(*corner) for corner in outline]
        draw.polygon([(floor(x / 2), floor(y / 2)) for x, y in points], fill=255 - darkest)
    mask = mask.filter(ImageFilter.GaussianBlur(blur * camera.focal / 640))
    mask = mask.resize((camera.width, camera.height), Image.Resampling.BILINEAR)
    shadow: Field = scene.buffers.ground * np.asarray(mask)
    shadow *= np.float32(-1 / 255)
    shadow += 1
    return shadow


def light_by_day(scene: Scene, radiance: Field) -> None:
    """Turn linear albedo (H, W, 3) into radiance by day, in place."""
    buffers, climate = scene.buffers, scene.climate
    slopes = [
        max(0.0, sum(a * b for a, b in zip(material.normal, climate.sun, strict=True)))
        for material in buffers.materials
    ]
    upward = [0.65 + 0.35 * material.normal[1] for material in buffers.materials]
    direct, ambient = buffers.lookup(slopes), buffers.lookup(upward)
    direct *= cast_shadows(scene)
    ambient *= contact_shadows(scene)
    clear = 1 / (1 + buffers.z * np.float32(1 / climate.haze))
    clear *= clear
    direct *= clear
    ambient *= clear
    haze = np.float32(_HAZE) * (1 - clear)
    for channel, (beam, sky) in enumerate(zip(climate.sun_color, climate.sky_color, strict=True)):
        plane = radiance[..., channel]
        plane *= direct * np.float32(1.3 * beam) + ambient * np.float32(sky)
        plane += haze * np.float32(sky + 0.2 * beam)


def light_by_night(scene: Scene, radiance: Field) -> None:
    """Turn linear albedo (H, W, 3) into radiance by night, in place."""
    climate = scene.climate
    lamps = sorted(scene.lamps, key=lambda lamp: lamp.z)[:_MAX_LAMPS]
    lights = [(_lamp_light(scene, lamp), lamp.color) for lamp in lamps]
    if climate.headlights:
        lights.append((_headlights(scene), _BEAM_COLOR))
    contact = contact_shadows(scene)
    for channel, tint in enumerate(_SKY_COLOR):
        light = np.full(contact.shape, climate.night_glow * tint, dtype=np.float32)
        for strength, color in lights:
            light += strength * np.float32(color[channel])
        light *= contact
        radiance[..., channel] *= light


def _lamp_light(scene: Scene, lamp: Lamp) -> Field:
    """Light of one lamp: falls with the square of the distance, and shines downwards."""
    buffers = scene.buffers
    drop = np.float32(lamp.y) - buffers.y
    distance = buffers.x - np.float32(lamp.x)
    distance *= distance
    along = buffers.z - np.float32(lamp.z)
    along *= along
    distance += along
    distance += drop * drop
    distance += np.float32(2.0)
    drop /= np.sqrt(distance)
    light = np.clip(drop, np.float32(0.12), 1, out=drop)
    light /= distance
    return light


def _headlights(scene: Scene) -> Field:
    """Low beam of the camera's own car: bright below the cut-off, next to nothing above it."""
    buffers = scene.buffers
    z = buffers.z
    steep = (buffers.y - np.float32(_BEAM_HEIGHT)) / z
    beam: Field = np.clip((np.float32(0.012) - steep) * np.float32(28), np.float32(0.02), 1)
    across = buffers.x / (np.float32(0.42) * z + 1)
    across *= across
    beam /= 1 + across * across
    facing = [
        abs(material.normal[2]) + 0.25 * abs(material.normal[0]) + 2.0 * material.retroreflective
        for material in buffers.materials
    ]
    grazing = buffers.lookup([max(0.0, material.normal[1]) for material in buffers.materials])
    # Rough asphalt sends back more at grazing incidence than a matt surface would.
    beam *= buffers.lookup(facing) + grazing * np.float32(2.2 * _BEAM_HEIGHT) / z
    beam *= np.float32(scene.climate.headlights) / (z * z + 6)
    return beam


def add_reflections(scene: Scene, radiance: Field) -> None:
    """Add the reflections of a wet road, in place: the scene upside down, drawn out downwards."""
    height, width = radiance.shape[:2]
    source = np.rint(2 * scene.camera.horizon - np.arange(height)).astype(np.int64)
    flipped = np.clip(radiance[np.clip(source, 0, height - 1)] * 160, 0, 255).astype(np.uint8)
    small = (max(width // 2, 1), max(height // 16, 1))
    smeared = Image.fromarray(flipped).resize(small, Image.Resampling.BOX)
    smeared = smeared.resize((width, height), Image.Resampling.BILINEAR)
    share = scene.buffers.ground * np.float32(0.5 * scene.climate.wet / 160)
    radiance += np.asarray(smeared).astype(np.float32) * share[..., None]


def paint_sky(scene: Scene, radiance: Field, *, day: bool) -> None:
    """Paint the sky, in place: blue with white clouds, or dark with clouds lit by the town."""
    climate, camera = scene.climate, scene.camera
    places = np.nonzero(scene.buffers.entry == 0)
    rows, columns = (place.astype(np.float32) for place in places)
    above = np.clip(1 - rows / np.float32(camera.horizon), 0, 1)
    # A level layer of cloud: its features shrink towards the horizon.
    spread = 1 / (above + np.float32(0.12))
    columns = (columns - np.float32(camera.center_x)) / np.float32(camera.focal)
    texture = sample_texture(2, columns * spread * np.float32(60), spread * np.float32(45))
    cover = np.clip(texture * np.float32(0.35) + np.float32(1.9 * climate.clouds - 0.35), 0, 1)
    sky = np.empty((len(rows), 3), dtype=np.float32)
    for channel in range(3):
        if day:
            blue = np.float32(_RIM[channel]) + np.float32(_ZENITH[channel] - _RIM[channel]) * above
            white = np.float32(_CLOUD[channel]) * (1 - np.float32(0.25) * above)
            white += np.float32(0.03) * texture
            sunlit = np.float32(0.8 + 0.4 * climate.sun_color[channel])
            sky[:, channel] = (blue + (white - blue) * cover) * sunlit
        else:
            light = np.float32(_NIGHT[channel]) + cover * np.float32(_CITY[channel])
            sky[:, channel] = np.float32(climate.night_glow) * (np.float32(1.2) - above) * light
    radiance[places] = sky
