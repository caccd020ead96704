"""`kdmodels.explain.similarity`: the numbers follow their definitions, on maps of any grid."""

import math

import numpy as np
import pytest

from kdmodels.explain.similarity import agreement, hottest, is_flat, pearson, share_inside


@pytest.fixture
def heat():
    return np.random.default_rng(3).random((9, 7)).astype(np.float32)


def blob(side, x, y):
    """A hill at (x, y) in [0, 1] on a square grid: the same picture at every resolution."""
    at = (np.arange(side) + 0.5) / side
    return np.exp(-((at[None] - x) ** 2 + (at[:, None] - y) ** 2) / 0.08).astype(np.float32)


def test_pearson_is_that_of_numpy(heat):
    other = np.random.default_rng(4).random((9, 7)).astype(np.float32)
    wanted = np.corrcoef(heat.ravel(), other.ravel())[0, 1]
    assert pearson(heat, other) == pytest.approx(wanted, abs=1e-6)
    assert agreement(heat, other).pearson == pearson(heat, other)


def test_a_map_agrees_with_itself_at_any_scale_and_not_with_its_opposite(heat):
    same = agreement(heat, 0.3 * heat)
    assert same.pearson == pytest.approx(1, abs=1e-6) and same.overlap == 1
    opposite = agreement(heat, heat.max() - heat)
    assert opposite.pearson == pytest.approx(-1, abs=1e-6) and opposite.overlap == 0


def test_overlap_counts_the_places_that_both_call_hottest():
    a, b = np.zeros((5, 4), np.float32), np.zeros((5, 4), np.float32)
    a.flat[[0, 1, 2, 3]] = (0.5, 0.6, 0.7, 0.8)  # the hottest fifth of 20 places
    b.flat[[2, 3, 4, 5]] = (1.0, 0.2, 0.9, 0.4)
    assert hottest(a).sum() == hottest(b).sum() == 4
    assert agreement(a, b).overlap == pytest.approx(2 / 6)


def test_cold_places_are_never_among_the_hottest():
    a = np.zeros((10, 10), np.float32)
    a[3, 3] = 1
    assert hottest(a).sum() == 1


def test_grids_of_different_size_are_brought_together():
    coarse, fine = blob(7, 0.3, 0.6), blob(14, 0.3, 0.6)
    same = agreement(coarse, fine)
    assert same == agreement(coarse, fine) and same.pearson > 0.98 and same.overlap > 0.8
    assert agreement(fine, coarse).pearson == pytest.approx(same.pearson)
    elsewhere = agreement(coarse, blob(14, 0.8, 0.2))
    assert elsewhere.pearson < 0 and elsewhere.overlap == 0


def test_a_tall_and_a_wide_grid_meet_on_one_that_holds_both():
    assert agreement(np.eye(2, 6, dtype=np.float32), np.eye(6, 2, dtype=np.float32)).pearson < 1


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_map_agrees_with_nothing(heat, value):
    flat = np.full_like(heat, value)
    assert is_flat(flat) and not is_flat(heat)
    for pair in ((flat, heat), (heat, flat), (flat, flat)):
        result = agreement(*pair)
        assert math.isnan(result.pearson) and math.isnan(result.overlap)


def test_share_inside_is_the_heat_under_the_mask():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0], heat[3, 3] = 3, 1
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    assert share_inside(heat, mask) == pytest.approx(0.75)
    assert share_inside(heat, ~mask) == pytest.approx(0.25)
    assert share_inside(heat, np.ones((4, 4), bool)) == 1


def test_even_heat_has_the_share_of_the_area():
    mask = np.zeros((30, 50), bool)
    mask[5:20, 10:35] = True
    assert share_inside(np.ones((7, 7), np.float32), mask) == pytest.approx(mask.mean(), rel=1e-6)


def test_a_coarse_map_is_stretched_over_a_fine_mask():
    left = np.zeros((64, 48), bool)
    left[:, :24] = True
    assert share_inside(blob(7, 0.1, 0.5), left) > 0.95
    assert share_inside(blob(7, 0.9, 0.5), left) < 0.05


def test_no_heat_has_no_share_and_an_empty_mask_is_an_error(heat):
    assert math.isnan(share_inside(np.zeros((4, 4), np.float32), np.ones((4, 4), bool)))
    with pytest.raises(ValueError, match="mask is empty"):
        share_inside(heat, np.zeros((9, 7), bool))
