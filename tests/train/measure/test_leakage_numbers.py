"""`train.measure.leakage_numbers`: shares by way of splitting, of each classifier."""

import pytest

from train.measure.kept_rows import LeakageRow
from train.measure.leakage_numbers import leakage_numbers


def test_shares_are_of_each_split():
    kept = [
        LeakageRow(name, way, seed, 80, 20, right + seed, seen)
        for name, gain in (("forest", 0), ("nearest", 2))
        for way, right, seen, seeds in (
            ("as_stored", 10, 0, (0,)),
            ("by_group", 11, 0, (0, 1)),
            ("by_image", 15 + gain, 19, (0, 1)),
        )
        for seed in seeds
    ]
    found = leakage_numbers(kept)
    assert (found.images, found.tested, found.seeds) == (100, 20, 2)
    assert found.seen == {"as_stored": 0, "by_group": 0, "by_image": pytest.approx(0.95)}
    forest, nearest = found.classifiers
    assert forest.accuracy == {
        "as_stored": [0.5],
        "by_group": [0.55, 0.6],
        "by_image": [0.75, 0.8],
    }
    assert nearest.accuracy["by_image"] == [0.85, 0.9]


def test_nothing_measured_is_nothing_told():
    assert leakage_numbers([]) is None
