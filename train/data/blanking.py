"""Films with the lungs, or all else, taken away: what is blanked, filled, cropped or swapped.

Pure functions of a film and its lung mask, and the data sets that show films so to a network. No
fill and no outline takes anything from what is blanked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.signal import fftconvolve
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from train.data.manifest import Sample, read_mask
from train.data.pixels import PixelStore

# Of the side: the lungs are widened by it where they are blanked, and narrowed by it where all else
# is, so that neither an inexact mask nor the resizing leaves a rim of what is to be gone.
MARGIN = 0.03
OUTLINE_GREYS = (160, 64)  # of 255: outside, inside
NOTHING = 128  # of 255: what a film shows that is blanked whole
LUNGS = (0.05, 0.75)  # shares of the film that a mask of two lungs can cover
_MEASURED = 128  # px, the side at which that is measured


def has_lungs(sample: Sample) -> bool:
    """Whether it has a mask that can be of two lungs."""
    if not sample.mask:
        return False
    return LUNGS[0] <= read_mask(sample.mask, _MEASURED).mean() <= LUNGS[1]


# --- What is blanked -------------------------------------------------------------------------


def widened(mask: np.ndarray) -> np.ndarray:
    """(S, S) bool: all that lies within `MARGIN` of the side from the lungs."""
    return distance_transform_edt(~mask) <= MARGIN * len(mask)


def narrowed(mask: np.ndarray) -> np.ndarray:
    """(S, S) bool: what of the lungs lies further than `MARGIN` of the side from all else."""
    return distance_transform_edt(mask) > MARGIN * len(mask)


def box_bounds(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest upright box that holds both widened lungs."""
    wide = widened(mask)
    lines = (np.flatnonzero(wide.any(axis)) for axis in (1, 0))
    rows, columns = (slice(int(line[0]), int(line[-1]) + 1) for line in lines)
    return rows, columns


def box_around(mask: np.ndarray) -> np.ndarray:
    """(S, S) bool: that box, filled."""
    box = np.zeros_like(mask)
    box[box_bounds(mask)] = True
    return box


@dataclass(frozen=True)
class Version:
    """One way to show a film, by functions of its lung mask, (S, S) bool -> (S, S) bool.

    hides: what is blanked. outlines: what is drawn in a second grey on a film of which nothing
        else is left, which tells what the shape of a blank gives away by itself. cropped: nothing
        is blanked, but the box around the lungs is cut out and fills the film.
    """

    id: str
    name: str
    hides: Callable[[np.ndarray], np.ndarray] = np.ones_like
    outlines: Callable[[np.ndarray], np.ndarray] | None = None
    cropped: bool = False


WHOLE = "whole"
VERSIONS: dict[str, Version] = {
    version.id: version
    for version in (
        Version(WHOLE, "as they are", np.zeros_like),
        Version("crop", "cropped to the box around the lungs", cropped=True),
        Version("no_lungs", "lungs blanked", widened),
        Version("no_box", "box around the lungs blanked", box_around),
        Version("lungs_only", "all but the lungs blanked", lambda mask: ~narrowed(mask)),
        Version("lungs_outline", "outline of the lungs alone", outlines=np.copy),
        Version("box_outline", "outline of the box alone", outlines=box_around),
    )
}
FILLED = ("no_lungs", "no_box", "lungs_only")  # versions to which the fill makes a difference


# --- What it is filled with ------------------------------------------------------------------


@cache
def _inverse_cubes(side: int) -> np.ndarray:
    """(2 side - 1, 2 side - 1) weights 1 / distance^3 from the centre."""
    y, x = np.indices((2 * side - 1, 2 * side - 1)) - (side - 1)
    return 1 / np.maximum(np.hypot(y, x), 1) ** 3


def smooth_fill(film: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """(C, S, S) float: each pixel is the mean of the visible ones, weighted by 1 / distance^3.

    Shepard, "A two-dimensional interpolation function for irregularly-spaced data", ACM 1968. It
    meets the visible pixels at the edge of the blank, so that edge shows least; it can tell the
    class by itself (Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution
    Methods", ICML 2022).
    """
    visible = ~hidden
    layers = np.concatenate([film * visible, visible[None]]).astype(np.float64)
    sums = fftconvolve(_inverse_cubes(len(hidden))[None], layers, mode="valid", axes=(1, 2))
    return sums[:-1] / sums[-1:]


def grey_fill(film: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """(C, 1, 1) float: the mean of the visible pixels; not of the film, which the lungs move."""
    return film[:, ~hidden].mean(1)[:, None, None]


def black_fill(film: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """(C, 1, 1) zeros."""
    return np.zeros((len(film), 1, 1))


# Tables and conclusions speak of the first; the others show how much hangs on the choice.
FILLS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "smooth": smooth_fill,
    "grey": grey_fill,
    "black": black_fill,
}
MAIN_FILL = next(iter(FILLS))


def _resized(film: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(C, h, w) uint8 -> (C, *size) uint8, bilinear and antialiased."""
    pixels = torch.from_numpy(film.astype(np.float32))[None]
    pixels = interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    return pixels.round().clamp(0, 255).numpy().astype(np.uint8)


def blank(
    film: np.ndarray, mask: np.ndarray, version: Version, fill: str = MAIN_FILL
) -> np.ndarray:
    """Show a film in a version: (C, S, S) uint8 and its (S, S) bool lung mask -> (C, S, S) uint8.

    Of a film that is blanked whole only mid-grey is left, or an outline in two greys.
    """
    if version.cropped:
        return _resized(film[(slice(None), *box_bounds(mask))], mask.shape)
    if version.outlines:
        drawn = np.choose(version.outlines(mask), OUTLINE_GREYS)
        return np.broadcast_to(drawn, film.shape).astype(np.uint8)
    hidden = version.hides(mask)
    if not hidden.any():
        return film
    if hidden.all():
        return np.full_like(film, NOTHING)
    filled = FILLS[fill](film, hidden).round().clip(0, 255).astype(np.uint8)
    return np.where(hidden, filled, film)


# --- What it is swapped with -----------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """Whose lungs a film is given: of the same class or another, of any source or its own."""

    id: str
    name: str
    same_class: bool
    same_source: bool


CONTROL = "same"
SWAPS: dict[str, Swap] = {
    swap.id: swap
    for swap in (
        Swap(CONTROL, "of the same class", True, False),
        Swap("other", "of another class", False, False),
        Swap("within", "of another class of the same source", False, True),
    )
}


def choose_donors(samples: Sequence[Sample], swap: Swap, seed: int = 0) -> np.ndarray:
    """(N,) index of the film whose box each film is given; -1 where no film will do.

    Drawn evenly among the films that the swap allows and that are not of the same group.
    """
    label, source, group = (
        np.array([getattr(s, name) for s in samples]) for name in ("label", "source", "group")
    )
    generator = np.random.default_rng(seed)
    donors = np.full(len(samples), -1)
    for i in range(len(samples)):
        fits = (group != group[i]) & ((label == label[i]) == swap.same_class)
        if swap.same_source:
            fits &= source == source[i]
        if fits.any():
            donors[i] = generator.choice(np.flatnonzero(fits))
    return donors


def swap_box(
    film: np.ndarray, mask: np.ndarray, donor: np.ndarray, donor_mask: np.ndarray
) -> np.ndarray:
    """Put the box around a donor's lungs in place of the film's own, resized to fit.

    film, donor: (C, S, S) uint8; masks: (S, S) bool. The images of Xiao et al., "Noise or Signal:
    The Role of Image Backgrounds in Object Recognition", ICLR 2021 (Mixed-Same and Mixed-Next),
    with the lungs' box as the foreground.
    """
    place, taken = box_bounds(mask), box_bounds(donor_mask)
    size = tuple(part.stop - part.start for part in place)
    swapped = film.copy()
    swapped[(slice(None), *place)] = _resized(donor[(slice(None), *taken)], size)
    return swapped


# --- As data sets ----------------------------------------------------------------------------


class BlankedViews(Dataset):
    """index -> (image (3, S, S) uint8, class index): the films of a store in one version.

    They are blanked at the side S that the network sees, after the app's resizing, so the version
    `whole` is what `train.learn.views.EvalViews` gives. Every sample must have a mask.
    """

    def __init__(self, store: PixelStore, version: Version, fill: str = MAIN_FILL) -> None:
        self.store, self.version, self.fill = store, version, fill
        self.labels = [store.task.class_ids.index(s.label) for s in store.samples]

    def __len__(self) -> int:
        return len(self.store)

    def _pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        mask = read_mask(self.store.samples[index].mask, self.store.size)
        return self.store[index].numpy(), mask

    def _show(self, index: int) -> np.ndarray:
        return blank(*self._pair(index), self.version, self.fill)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self._show(index)).expand(3, -1, -1), self.labels[index]


class SwappedViews(BlankedViews):
    """The films of a store, each with the box of its donor; a film without one stays as it is.

    donors: (N,) indices into the store, or -1.
    """

    def __init__(self, store: PixelStore, donors: np.ndarray) -> None:
        super().__init__(store, VERSIONS[WHOLE])
        self.donors = donors

    def _show(self, index: int) -> np.ndarray:
        donor = int(self.donors[index])
        pair = self._pair(index)
        return pair[0] if donor < 0 else swap_box(*pair, *self._pair(donor))
