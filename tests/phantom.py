"""A drawn chest: a synthetic frontal radiograph for tests and screenshots, of no patient at all."""

import numpy as np
from PIL import Image


def _ellipse(x, y, cx, cy, rx, ry, softness=0.12):
    """Smooth mask in [0, 1] of an ellipse; `softness` is the width of its edge in radii."""
    radius = np.hypot((x - cx) / rx, (y - cy) / ry)
    return 1 / (1 + np.exp((radius - 1) / softness * 3))


def chest_phantom(width: int = 420, height: int = 460, seed: int = 0) -> Image.Image:
    """Draw lungs, ribs, spine, heart, diaphragm and film noise: greyscale "L", deterministic."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = _ellipse(x, y, 0, 0.35, 0.98, 1.35, 0.06)
    film = 0.10 + 0.52 * body
    film += 0.10 * _ellipse(x, y, 0, -1.05, 0.28, 0.5) * body  # neck
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        lung = _ellipse(x, y, side * 0.44, -0.02, 0.34, 0.70, 0.08)
        lung *= 1 / (1 + np.exp((y - 0.52 - 0.25 * (x - side * 0.44) * side) * 40))  # diaphragm
        lungs = np.maximum(lungs, lung)
    film -= 0.40 * lungs
    film += 0.16 * np.exp(-((x / 0.09) ** 2)) * body  # spine
    film += 0.03 * np.exp(-((x / 0.09) ** 2)) * np.sin(y * 42)  # vertebrae
    film += 0.27 * _ellipse(x, y, 0.13, 0.28, 0.30, 0.32, 0.14)  # heart
    for side in (-1, 1):
        branches = np.exp(-(((x - side * 0.2) / 0.16) ** 2) - ((y + 0.02) / 0.2) ** 2)
        film += 0.12 * branches  # hilum
        for i in range(9):  # posterior ribs
            arc = -0.78 + 0.155 * i + 0.28 * (np.abs(x) - 0.25) ** 2 * (1 + 0.12 * i)
            arc = arc + 0.10 * np.abs(x)
            edge = np.exp(-(((y - arc) / 0.022) ** 2)) + 0.6 * np.exp(
                -(((y - arc - 0.05) / 0.02) ** 2)
            )
            film += 0.055 * edge * _ellipse(x, y, side * 0.46, 0, 0.42, 0.85, 0.05)
        collar = -0.74 - 0.16 * (np.abs(x) - 0.1)
        film += (
            0.13
            * np.exp(-(((y - collar) / 0.03) ** 2))
            * (np.abs(x) > 0.08)
            * (x * side > 0)
            * body
        )
    texture = rng.normal(0, 1, (height // 6 + 1, width // 6 + 1)).astype(np.float32)
    vessels = np.asarray(Image.fromarray(texture).resize((width, height), Image.Resampling.BICUBIC))
    film += 0.018 * vessels * lungs + rng.normal(0, 0.010, film.shape)
    return Image.fromarray((film.clip(0, 1) * 255).astype(np.uint8))
