"""Numbers about heatmaps: how far two agree, and how much of the heat lies where it should.

Pearson correlation and the overlap of the hottest parts are the usual measures between saliency
maps (Bylinskii et al., "What Do Different Evaluation Metrics Tell Us About Saliency Models?",
TPAMI 2019); the share of heat inside a region is the energy-based pointing game of the Score-CAM
paper (Wang et al., CVPR Workshops 2020, section 4.3).
"""

from dataclasses import dataclass

import numpy as np

from kdmodels.explain.overlays import resized_heatmap

HOTTEST = 0.2  # share of the places that count as the hottest


@dataclass(frozen=True)
class Agreement:
    """How far two heatmaps agree; both numbers are NaN where one of the maps is flat.

    pearson: correlation over all places, in [-1, 1]. overlap: intersection over union (IoU) of the
    hottest places of each, in [0, 1].
    """

    pearson: float
    overlap: float


def is_flat(heatmap: np.ndarray) -> bool:
    """Whether a map has the same heat everywhere, and thus points at nothing."""
    return not np.ptp(heatmap) > 0


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two maps of one shape over all places; NaN where one of them is flat."""
    if is_flat(a) or is_flat(b):
        return float("nan")
    a, b = (m.astype(np.float64).ravel() - m.mean(dtype=np.float64) for m in (a, b))
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def hottest(heatmap: np.ndarray, share: float = HOTTEST) -> np.ndarray:
    """Bool map of the hottest `share` of the places; cold ones (0) never count.

    Places as hot as the last of them count too, so a map with few different values has more.
    """
    count = max(1, round(share * heatmap.size))
    bound = np.partition(heatmap.ravel(), -count)[-count]
    return (heatmap >= bound) & (heatmap > 0)


def _on_one_grid(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape == b.shape:
        return a, b
    height, width = np.maximum(a.shape, b.shape)
    return resized_heatmap(a, width, height), resized_heatmap(b, width, height)


def agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """Compare two heatmaps (h, w), non-negative; of different grids, on the finer one (bilinear)."""
    a, b = _on_one_grid(a, b)
    if is_flat(a) or is_flat(b):
        return Agreement(float("nan"), float("nan"))
    hot_a, hot_b = hottest(a), hottest(b)
    return Agreement(pearson(a, b), float((hot_a & hot_b).sum() / (hot_a | hot_b).sum()))


def share_inside(heatmap: np.ndarray, mask: np.ndarray) -> float:
    """Share of the heat that lies inside a mask, in [0, 1]; NaN of a map without heat.

    heatmap: (h, w), non-negative. mask: (H, W) bool of the same image, of any size; the map is
    stretched over it (bilinear), as on the page. Heat without a preference has the share
    `mask.mean()`. Raises `ValueError` where the mask is empty.
    """
    if not mask.any():
        raise ValueError("The mask is empty, so no heat can lie inside it.")
    heat = resized_heatmap(heatmap, mask.shape[1], mask.shape[0]).astype(np.float64)
    total = heat.sum()
    return float(heat[mask].sum() / total) if total > 0 else float("nan")
