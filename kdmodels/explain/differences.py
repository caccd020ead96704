"""Where two heatmaps differ, laid over the image in two colours."""

import numpy as np
from PIL import Image

from kdmodels.explain.overlays import resized_heatmap, shown_size

COLOURS = "PuOr"  # diverging; told apart without red-green vision


def difference_overlay(
    image: Image.Image, first: np.ndarray, second: np.ndarray, opacity: float = 0.65
) -> Image.Image:
    """RGB image: orange where `first` is hotter, purple where `second` is, clear where they agree.

    first, second: (h, w) float32 in [0, 1], each of its own grid, stretched over the RGB image.
    opacity: of the largest difference possible, 1.
    """
    from matplotlib import colormaps  # late: the first page needs none

    width, height = shown_size(image)
    base = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
    change = resized_heatmap(first, width, height) - resized_heatmap(second, width, height)
    # The map runs from orange to purple; its pale middle is never seen, being clear.
    colours = colormaps[COLOURS](np.where(change > 0, 0.15, 0.85))[..., :3] * 255
    alpha = opacity * np.sqrt(np.abs(change))[..., None]
    return Image.fromarray(
        np.rint((base * (1 - alpha) + colours * alpha).clip(0, 255)).astype("u1")
    )
