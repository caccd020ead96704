"""`kdmodels.lungs.find`: what follows from the places that the network calls lung."""

import numpy as np
import pytest
from PIL import Image

from kdmodels.lungs import LungFinder, Lungs
from kdmodels.lungs.find import CUT, FLIPPED, MANY, NONE, ONE, TURNED, UNSURE
from kdmodels.lungs.unet import SIDE

Y, X = np.mgrid[:SIDE, :SIDE] / SIDE


def lung(x: float, y: float = 0.5, width: float = 0.13, height: float = 0.3, lean: float = 0.0):
    """(SIDE, SIDE) bool ellipse; lean: how far its lower end lies to the right of its upper one."""
    return ((X - x - lean * (Y - y)) / width) ** 2 + ((Y - y) / height) ** 2 < 1


def found(*pieces: np.ndarray, sure: float = 0.98, limit: float = 0.9) -> Lungs:
    shares = np.where(np.any(pieces, axis=0) if pieces else np.zeros((SIDE, SIDE)), sure, 0.01)
    return Lungs(shares.astype(np.float32), limit)


PAIR = (lung(0.28, lean=-0.15), lung(0.72, lean=0.15))


def test_two_lungs_that_part_downwards_are_taken():
    lungs = found(*PAIR)
    assert lungs.reason is None
    assert lungs.found
    assert np.array_equal(lungs.mask, PAIR[0] | PAIR[1])


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((), NONE),
        ((lung(0.5, width=0.05, height=0.05),), NONE),
        ((lung(0.3),), ONE),
        ((lung(0.3), lung(0.7, width=0.05, height=0.1)), ONE),
        ((lung(0.2), lung(0.5, width=0.1), lung(0.8)), MANY),
        ((lung(0.5, y=0.25, width=0.3, height=0.12), lung(0.5, y=0.75, width=0.3, height=0.12)), TURNED),
        ((lung(0.28, lean=0.2), lung(0.72, lean=-0.2)), FLIPPED),
        ((lung(0.0, width=0.2, height=0.3), lung(0.7)), CUT),
    ],
)  # fmt: skip
def test_why_these_are_not_two_lungs_of_an_upright_film(pieces, said):
    assert found(*pieces).reason == said


def test_specks_are_dropped_and_holes_filled():
    hole = lung(0.28, width=0.03, height=0.05)
    speck = lung(0.5, y=0.95, width=0.02, height=0.02)
    lungs = found((PAIR[0] & ~hole) | speck, PAIR[1])
    assert np.array_equal(lungs.mask, PAIR[0] | PAIR[1])


def test_sureness_is_the_dice_that_the_shares_expect():
    lungs = found(*PAIR, sure=0.7)
    mask = PAIR[0] | PAIR[1]
    shares = lungs.shares.astype(np.float64)
    expected = 2 * shares[mask].sum() / (shares.sum() + mask.sum())
    assert lungs.sureness == pytest.approx(expected, abs=1e-6)
    assert lungs.reason == UNSURE
    assert found(*PAIR, sure=0.7, limit=0.5).reason is None
    assert found().sureness == 0


def test_the_mask_on_the_picture_keeps_its_shares():
    inside = found(*PAIR).on(300, 200)
    assert inside.shape == (200, 300)
    assert inside.mean() == pytest.approx((PAIR[0] | PAIR[1]).mean(), abs=0.005)


def test_the_finder_stretches_any_picture_and_standardises_it():
    seen = []

    def run(films):
        seen.append(films)
        return films * 0 - 5

    lungs = LungFinder(run, 0.5)(Image.new("RGB", (40, 90), (10, 20, 30)))
    assert seen[0].shape == (1, 1, SIDE, SIDE)
    assert not seen[0].any()  # of one grey
    assert lungs.reason == NONE
    picture = Image.fromarray((X * 255).astype(np.uint8))
    LungFinder(run)(picture)
    assert seen[1].mean() == pytest.approx(0, abs=1e-5)
    assert seen[1].std(correction=0) == pytest.approx(1, abs=1e-5)
