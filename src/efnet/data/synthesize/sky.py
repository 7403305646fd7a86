"""The sky by day and by night."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from efnet.data.synthesize.noise import sample_texture
from efnet.data.synthesize.scene import Scene

_ZENITH, _RIM, _CLOUD = (0.12, 0.24, 0.52), (0.42, 0.52, 0.66), (0.62, 0.63, 0.66)
_NIGHT, _CITY = (0.5, 0.55, 0.8), (0.9, 0.6, 0.4)


def paint_sky(scene: Scene, radiance: NDArray[np.float32], *, day: bool) -> None:
    """Put the sky where nothing stands before it.

    Args:
        scene: composed scene.
        radiance: linear, (H, W, 3); changed in place.
        day: blue with white clouds, or dark with clouds lit by the town.
    """
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
            sky[:, channel] = (blue + (white - blue) * cover) * np.float32(
                0.8 + 0.4 * climate.sun_color[channel]
            )
        else:
            light = np.float32(_NIGHT[channel]) + cover * np.float32(_CITY[channel])
            sky[:, channel] = np.float32(climate.night_glow) * (np.float32(1.2) - above) * light
    radiance[places] = sky
