"""Pictures of heatmaps, in matplotlib's colour maps."""

import numpy as np
from PIL import Image

# Perceptually uniform; readable without colour vision and in greyscale. The first is the default.
COLOURS = ("inferno", "viridis", "cividis", "magma")
OVERLAY_SIDE = 512  # px, the longer side of an overlay


def resized_heatmap(heatmap: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bilinear (h, w) -> (height, width) float32; stays in [0, 1]."""
    image = Image.fromarray(heatmap.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) at which an image is shown: its longer side is `OVERLAY_SIDE` pixels."""
    scale = OVERLAY_SIDE / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def overlay(
    image: Image.Image,
    heatmap: np.ndarray,
    colours: str = COLOURS[0],
    opacity: float = 0.65,
    threshold: float = 0.0,
) -> Image.Image:
    """Lay a heatmap over an RGB image; cold places stay clear, so the anatomy remains visible.

    heatmap: (h, w) float32 in [0, 1]; it is stretched over the whole image, as the network saw the
    image stretched to its square input. colours: one of `COLOURS`. opacity: of the hottest place, in
    [0, 1]. threshold: places of less heat stay clear, in [0, 1].
    Returns an RGB image whose longer side is `OVERLAY_SIDE` pixels.
    """
    from matplotlib import colormaps  # late: the first page needs none

    width, height = shown_size(image)
    base = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
    heat = resized_heatmap(heatmap, width, height)
    painted = colormaps[colours](heat)[..., :3] * 255
    alpha = opacity * np.sqrt(heat)[..., None]  # the root lets warm places show, not only hot ones
    alpha[heat < threshold] = 0
    blended = base * (1 - alpha) + painted * alpha
    return Image.fromarray(np.rint(blended.clip(0, 255)).astype(np.uint8))
