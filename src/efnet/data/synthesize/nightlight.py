"""Light of street lamps, headlights and the night sky, and what wet roads mirror of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from efnet.data.synthesize.scene import Scene
from efnet.data.synthesize.shadows import contact_shadows
from efnet.data.synthesize.surroundings import Lamp

Field = NDArray[np.float32]

_MAX_LAMPS = 5
_BEAM_COLOR = (1.0, 0.95, 0.82)
_SKY_COLOR = (0.85, 0.9, 1.15)
_BEAM_HEIGHT = 0.65


def light_by_night(scene: Scene, radiance: Field) -> None:
    """Turn albedo into radiance by night, in place.

    Args:
        scene: composed scene.
        radiance: linear albedo, (H, W, 3).
    """
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
    """Add what a wet road mirrors: the scene upside down below the horizon, drawn out downwards.

    Args:
        scene: composed scene.
        radiance: linear, (H, W, 3); changed in place.
    """
    height, width = radiance.shape[:2]
    source = np.rint(2 * scene.camera.horizon - np.arange(height)).astype(np.int64)
    flipped = np.clip(radiance[np.clip(source, 0, height - 1)] * 160, 0, 255).astype(np.uint8)
    small = (max(width // 2, 1), max(height // 16, 1))
    smeared = Image.fromarray(flipped).resize(small, Image.Resampling.BOX)
    smeared = smeared.resize((width, height), Image.Resampling.BILINEAR)
    share = scene.buffers.ground * np.float32(0.5 * scene.climate.wet / 160)
    radiance += np.asarray(smeared).astype(np.float32) * share[..., None]
