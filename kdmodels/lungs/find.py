"""Finding the lungs of a film, and saying how far that can be trusted.

The network says of each pixel how likely it is lung. `Lungs` is what follows from it: the mask, how sure
it is, and one sentence where the mask cannot be of two lungs of one upright frontal film.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from kdmodels.lungs.unet import SIDE, standardised

SMALL = 0.1  # of the larger lung: smaller pieces are dropped as specks
LEAST_SHARE = 0.03  # of the picture that two lungs cover at least
LEAST_LUNG = 0.2  # of the larger lung, the size of the smaller one at least
MOST_CUT = 0.30  # of a lung's outline that may lie on the picture's border

NONE = "No lungs were found in this picture."
ONE = "Only one lung was found in this picture."
MANY = "More than two lungs were found: this may be several films in one picture."
TURNED = "The lungs lie one above the other: turn the film upright."
FLIPPED = "The lungs seem to be upside down: turn the film upright."
CUT = "A lung is cut off at the border of the picture."
UNSURE = "The lungs were found, but their outline is unsure."


@dataclass(frozen=True, eq=False)
class Lungs:
    """What was found on one picture.

    shares: (SIDE, SIDE) float32 in [0, 1], how likely each place is lung; the square is the whole
    picture, stretched. limit: least `sureness` of lungs that are taken for found.
    """

    shares: np.ndarray
    limit: float = 0.0

    @cached_property
    def _pieces(self) -> list[np.ndarray]:
        """(SIDE, SIDE) bool each, the largest first, without specks; holes are filled."""
        labels, number = ndimage.label(self.shares > 0.5)
        sizes = ndimage.sum_labels(labels > 0, labels, range(1, number + 1))
        order = [i for i in np.argsort(-np.asarray(sizes)) if sizes[i] >= SMALL * max(sizes)]
        return [ndimage.binary_fill_holes(labels == i + 1) for i in order]

    @cached_property
    def mask(self) -> np.ndarray:
        """(SIDE, SIDE) bool: all pieces but specks."""
        return np.any(self._pieces, axis=0) if self._pieces else np.zeros(self.shares.shape, bool)

    @cached_property
    def sureness(self) -> float:
        """The Dice that the network itself expects of the mask, in [0, 1]; 0 of an empty one."""
        total = float(self.shares.sum() + self.mask.sum())
        return 2 * float(self.shares[self.mask].sum()) / total if self.mask.any() else 0.0

    @cached_property
    def reason(self) -> str | None:
        """Why these are not two plausible lungs, in one sentence; None where they are."""
        pieces = self._pieces
        if self.mask.mean() < LEAST_SHARE:
            return NONE
        if len(pieces) == 1 or pieces[1].sum() < LEAST_LUNG * pieces[0].sum():
            # Two lungs that touch are one piece, wider than it is high.
            return None if self._touch() else ONE
        if len(pieces) > 2 and pieces[2].sum() >= LEAST_LUNG * pieces[0].sum():
            return MANY
        (y0, x0), (y1, x1) = (ndimage.center_of_mass(piece) for piece in pieces[:2])
        if abs(y1 - y0) > abs(x1 - x0):
            return TURNED
        if any(_cut(piece) > MOST_CUT for piece in pieces[:2]):
            return CUT
        if _upside_down(pieces):
            return FLIPPED
        return UNSURE if self.sureness < self.limit else None

    def _touch(self) -> bool:
        """Whether the largest piece is two lungs that meet: a valley parts it from top to bottom."""
        heights = self._pieces[0].sum(0)
        held = np.flatnonzero(heights)
        middle = heights[held[0] : held[-1] + 1]
        third = max(1, len(middle) // 3)
        sides = min(middle[:third].max(), middle[-third:].max())
        return len(held) > 0.45 * SIDE and middle[third:-third].min() < 0.6 * sides

    @property
    def found(self) -> bool:
        return self.reason is None

    def on(self, width: int, height: int) -> np.ndarray:
        """(height, width) bool: the mask on a picture of that size (bilinear, then halved)."""
        image = Image.fromarray(self.mask.astype(np.float32))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) > 0.5


def _cut(piece: np.ndarray) -> float:
    """Share of a piece's outline that lies on the picture's border."""
    edge = piece & ~ndimage.binary_erosion(piece)
    frame = np.ones_like(piece)
    frame[1:-1, 1:-1] = False
    return float((edge & frame).sum() / max(1, edge.sum()))


def _upside_down(pieces: list[np.ndarray]) -> bool:
    """Whether two lungs come nearer to each other downwards.

    In an upright film the heart and the diaphragm part them, so that the gap in their lower third is
    wider than that in their upper third.
    """
    rows = np.flatnonzero(pieces[0].any(1) & pieces[1].any(1))
    third = len(rows) // 3
    if not third:
        return False
    left, right = sorted(pieces[:2], key=lambda piece: ndimage.center_of_mass(piece)[1])
    gaps = [np.flatnonzero(right[y])[0] - np.flatnonzero(left[y])[-1] for y in rows]
    return float(np.mean(gaps[-third:])) < float(np.mean(gaps[:third]))


@dataclass(frozen=True)
class LungFinder:
    """run: (N, 1, SIDE, SIDE) standardised films -> (N, 1, SIDE, SIDE) logits, as `LungNet` does.

    limit: see `Lungs`.
    """

    run: Callable[[Tensor], Tensor]
    limit: float = 0.0

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Lungs:
        """The lungs of a checked picture of any size and mode."""
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        film = torch.from_numpy(np.asarray(small).copy())[None, None]
        shares = self.run(standardised(film))[0, 0].sigmoid().float().cpu().numpy()
        return Lungs(shares, self.limit)
