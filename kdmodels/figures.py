"""Pictures of heatmaps and comparisons, by matplotlib; no window system is touched."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
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
    width, height = shown_size(image)
    base = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS), dtype=np.float32)
    heat = resized_heatmap(heatmap, width, height)
    painted = colormaps[colours](heat)[..., :3] * 255
    alpha = opacity * np.sqrt(heat)[..., None]  # the root lets warm places show, not only hot ones
    alpha[heat < threshold] = 0
    blended = base * (1 - alpha) + painted * alpha
    return Image.fromarray(np.rint(blended.clip(0, 255)).astype(np.uint8))


@dataclass(frozen=True)
class Column:
    """One model's part of a comparison figure: two lines of text above its overlay."""

    title: str
    subtitle: str
    picture: Image.Image


def comparison(columns: Sequence[Column], heading: str, footer: str) -> Figure:
    """Draw overlays side by side with a colour bar and a footer (the disclaimer belongs there)."""
    figure = Figure(figsize=(4.2 * len(columns) + 0.8, 5.4), layout="constrained", dpi=150)
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        axis.imshow(column.picture)
        axis.set_title(f"{column.title}\n{column.subtitle}", fontsize=10)
        axis.axis("off")
    scale = ScalarMappable(Normalize(0, 1), COLOURS[0])
    figure.colorbar(scale, ax=list(axes), shrink=0.7, label="Score-CAM, relative to its maximum")
    figure.suptitle(heading, fontsize=12)
    figure.supxlabel(footer, fontsize=8, color="0.35")
    return figure
