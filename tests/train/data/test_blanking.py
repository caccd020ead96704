"""`train.data.blanking`: nothing of what is blanked remains, and nothing else is touched."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdmodels.tasks import TASKS
from tests.phantom import chest_phantom
from train.data.blanking import (
    FILLS,
    MARGIN,
    OUTLINE_GREYS,
    SWAPS,
    VERSIONS,
    WHOLE,
    BlankedViews,
    SwappedViews,
    blank,
    box_around,
    box_bounds,
    choose_donors,
    narrowed,
    smooth_fill,
    swap_box,
    widened,
)
from train.data.manifest import Sample
from train.data.pixels import EvalViews, PixelStore

SIDE = 112


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return np.asarray(chest_phantom(SIDE, SIDE))[None]


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """Two lungs, as the drawn chest has them."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return np.hypot((np.abs(x) - 0.44) / 0.34, (y + 0.1) / 0.6) < 1


# --- What is blanked -------------------------------------------------------------------------


def test_lungs_are_widened_by_the_margin_in_every_direction():
    mask = np.zeros((101, 101), bool)
    mask[50, 50] = True
    y, x = np.indices(mask.shape)
    assert np.array_equal(widened(mask), np.hypot(y - 50, x - 50) <= MARGIN * 101)
    assert widened(mask).sum() == 29  # a disc of radius 3.03
    assert np.array_equal(narrowed(~mask), ~widened(mask))


def test_the_box_holds_both_widened_lungs_and_no_more():
    mask = np.zeros((100, 100), bool)
    mask[20:60, 15:40] = mask[25:70, 60:90] = True
    assert box_bounds(mask) == (slice(17, 73), slice(12, 93))
    box = box_around(mask)
    assert box.sum() == 56 * 81 and box[17:73, 12:93].all() and box[widened(mask)].all()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("version", ["no_lungs", "no_box", "lungs_only"])
def test_nothing_of_what_is_blanked_remains(film, mask, version, fill):
    hidden = VERSIONS[version].hides(mask)
    other = film.copy()
    other[:, hidden] = np.random.default_rng(0).integers(0, 256, (1, hidden.sum()))
    shown = blank(film, mask, VERSIONS[version], fill)
    assert shown.dtype == np.uint8 and shown.shape == film.shape
    assert np.array_equal(shown, blank(other, mask, VERSIONS[version], fill))
    assert np.array_equal(shown[:, ~hidden], film[:, ~hidden])
    assert not np.array_equal(shown[:, hidden], film[:, hidden])


def test_versions_hide_what_their_names_say(film, mask):
    hidden = {name: version.hides(mask) for name, version in VERSIONS.items()}
    assert blank(film, mask, VERSIONS[WHOLE]) is film
    assert hidden["no_lungs"][mask].all() and hidden["no_box"][hidden["no_lungs"]].all()
    assert (
        hidden["lungs_only"][~mask].all() and 0.5 < (~hidden["lungs_only"]).sum() / mask.sum() < 1
    )
    for version, inside in (("lungs_outline", mask), ("box_outline", box_around(mask))):
        outline = blank(film, mask, VERSIONS[version])
        assert outline.shape == film.shape and outline.dtype == np.uint8
        assert np.array_equal(outline[0], np.where(inside, *OUTLINE_GREYS[::-1]))


def test_a_crop_is_the_box_and_nothing_of_its_surroundings(film, mask):
    crop, box = blank(film, mask, VERSIONS["crop"]), box_around(mask)
    assert crop.shape == film.shape and crop.dtype == np.uint8
    assert np.array_equal(crop, blank(film * box, mask, VERSIONS["crop"]))
    rows, columns = box_bounds(mask)
    cut = Image.fromarray(film[0, rows, columns]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.abs(crop[0].astype(int) - np.asarray(cut)).max() <= 1  # Pillow rounds twice


def test_a_film_without_anything_left_is_mid_grey(film):
    everywhere = np.ones((SIDE, SIDE), bool)
    assert (blank(film, everywhere, VERSIONS["no_box"]) == 128).all()


# --- Fills -----------------------------------------------------------------------------------


def test_the_smooth_fill_is_shepards_mean():
    generator = np.random.default_rng(0)
    film, hidden = generator.uniform(0, 255, (2, 9, 9)), generator.random((9, 9)) < 0.6
    points = np.argwhere(~hidden)
    found = smooth_fill(film, hidden)
    for y, x in np.argwhere(hidden):
        weights = 1 / np.hypot(*(points - (y, x)).T) ** 3
        expected = (film[:, ~hidden] * weights).sum(1) / weights.sum()
        np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-10)


def test_the_smooth_fill_shows_less_of_the_edge_than_grey(film, mask):
    """A fill that meets its surroundings has no step at the edge."""

    def step(fill: str) -> float:
        shown = blank(film, mask, VERSIONS["no_lungs"], fill)[0].astype(float)
        hidden = widened(mask)
        edge = hidden[:, 1:] != hidden[:, :-1]
        return float(np.abs(np.diff(shown, axis=1))[edge].mean())

    assert step("smooth") < 0.5 * step("grey") < 0.5 * step("black")


def test_the_grey_fill_is_the_mean_of_what_is_visible(film, mask):
    shown = blank(film, mask, VERSIONS["no_lungs"], "grey")
    hidden = widened(mask)
    assert set(shown[:, hidden].tolist()[0]) == {round(film[:, ~hidden].mean())}


# --- Swaps -----------------------------------------------------------------------------------


def samples_of(rows) -> list[Sample]:
    """(label, source, group) -> samples."""
    return [Sample(f"{i}.png", *(row[0], "test", row[2], row[1])) for i, row in enumerate(rows)]


def test_donors_are_of_the_class_and_source_that_the_swap_says_and_of_other_groups():
    generator = np.random.default_rng(0)
    ids = TASKS["cxr"].class_ids
    rows = [
        (ids[generator.integers(3)], f"s{generator.integers(2)}", f"g{i // 3}") for i in range(60)
    ]
    samples = samples_of(rows)
    for swap in SWAPS.values():
        donors = choose_donors(samples, swap)
        assert (donors >= 0).all() and np.array_equal(donors, choose_donors(samples, swap))
        assert not np.array_equal(donors, choose_donors(samples, swap, seed=1))
        for one, other in zip(samples, (samples[i] for i in donors), strict=True):
            assert one.group != other.group
            assert (one.label == other.label) == swap.same_class
            assert one.source == other.source or not swap.same_source
    sources = [s.source for s in samples]
    crossed = [
        sources[i] != s
        for i, s in zip(choose_donors(samples, SWAPS["other"]), sources, strict=True)
    ]
    assert any(crossed)


def test_a_film_without_a_fitting_donor_has_none():
    samples = samples_of([("covid", "a", "1"), ("normal", "b", "2"), ("normal", "b", "2")])
    assert choose_donors(samples, SWAPS["same"]).tolist() == [-1, -1, -1]
    assert choose_donors(samples, SWAPS["within"]).tolist() == [-1, -1, -1]
    assert choose_donors(samples, SWAPS["other"])[1:].tolist() == [0, 0]


def test_a_swap_fits_the_donors_box_into_the_films(film, mask):
    smaller = np.zeros_like(mask)
    smaller[40:60, 30:50] = smaller[45:70, 60:80] = True
    donor = np.full_like(film, 7)
    donor[:, *box_bounds(smaller)] = 200
    swapped = swap_box(film, mask, donor, smaller)
    box = box_around(mask)
    assert (swapped[:, box] == 200).all()
    assert np.array_equal(swapped[:, ~box], film[:, ~box])


def test_a_swap_with_itself_changes_nothing(film, mask):
    assert np.array_equal(swap_box(film, mask, film.copy(), mask), film)


# --- As data sets ----------------------------------------------------------------------------


@pytest.fixture
def store(film, mask, tmp_path) -> PixelStore:
    samples = []
    for i, label in enumerate(("covid", "normal")):
        Image.fromarray(np.roll(film[0], 9 * i, 1)).save(tmp_path / f"{i}.png")
        Image.fromarray(np.roll(mask, 9 * i, 1)).save(tmp_path / f"mask-{i}.png")
        paths = tmp_path / f"{i}.png", tmp_path / f"mask-{i}.png"
        samples.append(Sample(paths[0], label, "test", str(i), "here", paths[1]))
    return PixelStore(samples, TASKS["cxr"], 64)


def test_the_whole_version_is_what_the_evaluation_sees(store):
    views, evaluated = (
        BlankedViews(store, VERSIONS[WHOLE]),
        EvalViews(store.samples, store.task, 64),
    )
    assert len(views) == len(evaluated) == 2
    for (image, label), (wanted, wanted_label) in zip(
        (views[i] for i in range(2)), (evaluated[i] for i in range(2)), strict=True
    ):
        assert torch.equal(image, wanted) and label == wanted_label
        assert image.shape == (3, 64, 64) and image.dtype == torch.uint8


def test_showing_a_film_leaves_the_store_as_it_was(store):
    before = [store[i].clone() for i in range(2)]
    views = [BlankedViews(store, version, fill) for version in VERSIONS.values() for fill in FILLS]
    views.append(SwappedViews(store, np.array([1, 0])))
    shown = [view[i][0] for view in views for i in range(2)]
    assert all(torch.equal(store[i], before[i]) for i in range(2))
    assert not torch.equal(shown[-1][:1], before[1])


def test_a_film_without_a_donor_stays_as_it_is(store):
    views = SwappedViews(store, np.array([1, -1]))
    assert not torch.equal(views[0][0][:1], store[0])
    assert torch.equal(views[1][0][:1], store[1])
