"""Numbers that describe a picture whatever it shows: colour, brightness, texture, layout, edges.

All are computed on a small square, so that the size and compression of the file hardly matter.
They are what `kdmodels.familiar.modality` compares with the pictures that a task's models were trained on.
"""

import numpy as np
from PIL import Image

SIDE = 64  # px
CELLS, ORIENTATIONS = 4, 6
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in Pillow's mode "L"
_LEVELS, _KEPT_LEVELS = 5, 3
_QUANTILES = (2, 10, 25, 50, 75, 90, 98)
_FLAT = 0.01  # a gradient below this is none: 2.5 of 255 grey values


def small_square(image: Image.Image) -> np.ndarray:
    """Image of any size and mode -> (64, 64, 3) float32 in [0, 1], its colours kept.

    The aspect ratio is given up, as in `kdmodels.images.preprocess.squared`. Reducing by whole numbers
    before the antialiased resize keeps large radiographs fast.
    """
    image = image.convert("RGB")
    small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(small, np.float32) / 255


def _halved(grey: np.ndarray) -> np.ndarray:
    """(2H, 2W) -> (H, W), by the mean of each four."""
    height, width = grey.shape
    return grey.reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> (H, W)."""
    return pixels @ _LUMA


def chroma(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (H, W): largest less smallest channel; 0 is grey."""
    return pixels.max(-1) - pixels.min(-1)


def _colour(pixels: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Mean and spread of two opponent colours, and of the chroma: (6,), each 0 without colour."""
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    amount = chroma(pixels)
    opponents = [f(o) for o in (red_green, yellow_blue) for f in (np.mean, np.std)]
    return np.array([*opponents, amount.mean(), np.percentile(amount, 95)])


def _brightness(_: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Quantiles of the luminance, and the logarithm of its spread: (8,)."""
    return np.append(np.percentile(grey, _QUANTILES), np.log(grey.std() + 0.02))


def _texture(_: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Strength of detail by octave and how sparse it is, flat areas, and direction: (11,).

    The octaves are those of a Laplacian pyramid (Burt and Adelson, IEEE Transactions on
    Communications 31(4), 1983) with means of four in place of its filter.
    """
    found, level = [], grey
    for i in range(_LEVELS):
        coarser = _halved(level)
        detail = level - coarser.repeat(2, 0).repeat(2, 1)
        found.append(np.log(detail.std() + 0.003))
        if i < _KEPT_LEVELS:
            found.append(np.log((np.abs(detail).mean() + 0.002) / (detail.std() + 0.003)))
        level = coarser
    across, down = np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1]
    steep = np.hypot(across, down)
    found.append((steep < _FLAT).mean())
    found.append(np.log((np.median(steep) + 0.003) / (steep.mean() + 0.003)))
    found.append(np.log((across.mean() + 0.003) / (down.mean() + 0.003)))
    return np.array(found)


def _layout(_: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Where it is light and dark: a (1024,) thumbnail of mean 0 and spread about 1."""
    thumbnail = _halved(grey)
    return ((thumbnail - thumbnail.mean()) / (thumbnail.std() + 0.02)).ravel()


def _edges(_: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Which way edges run in each of 4 x 4 cells: (96,), the roots of shares.

    Histograms of oriented gradients (Dalal and Triggs, CVPR 2005) of half turns.
    """
    padded = np.pad(_halved(grey), 1, mode="edge")
    across = padded[1:-1, 2:] - padded[1:-1, :-2]
    down = padded[2:, 1:-1] - padded[:-2, 1:-1]
    strength = np.hypot(across, down)
    angle = (np.arctan2(down, across) % np.pi) / np.pi * ORIENTATIONS
    lower = np.floor(angle).astype(int)
    upper_share = angle - lower
    side = len(strength) // CELLS
    cells = np.empty((CELLS, CELLS, ORIENTATIONS))
    for k in range(ORIENTATIONS):
        votes = strength * ((lower % ORIENTATIONS == k) * (1 - upper_share))
        votes += strength * (((lower + 1) % ORIENTATIONS == k) * upper_share)
        cells[..., k] = votes.reshape(CELLS, side, CELLS, side).mean((1, 3))
    return np.sqrt(cells / (cells.sum() + 0.05)).ravel()


GROUPS = {
    "colour": _colour,
    "brightness": _brightness,
    "texture": _texture,
    "layout": _layout,
    "edges": _edges,
}
COMPRESSED = ("layout", "edges")  # those too long to be compared as they are


def describe(image: Image.Image) -> dict[str, np.ndarray]:
    """The vector of each of `GROUPS` for a picture of any size, float64."""
    pixels = small_square(image)
    grey = luminance(pixels)
    return {name: np.asarray(group(pixels, grey), float) for name, group in GROUPS.items()}
