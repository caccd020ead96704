"""`train.measure.leakage`: groups stay whole or not, and copies of a tile are what makes the difference."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import train.measure.floors
import train.measure.leakage
from kdmodels.tasks import TASKS
from kdmodels.tasks.task import Classifier
from train.data.manifest import Manifest, Sample
from train.measure.kept_rows import LeakageRow, read_rows, write_rows
from train.measure.leakage import (
    CLASSIFIERS,
    leakage_task,
    measure_leakage,
    split_by_group,
    split_by_image,
)

TILES = TASKS["histopathology"]


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """Fewer trees, in this process, on small squares."""
    forest = train.measure.leakage.RandomForestClassifier
    monkeypatch.setattr(
        train.measure.leakage, "RandomForestClassifier",
        lambda _, n_jobs, random_state: forest(25, random_state=random_state),
    )  # fmt: skip
    monkeypatch.setattr(train.measure.floors, "SIZE", 32)


@pytest.fixture
def copies(tmp_path) -> Manifest:
    """Tiles whose colour says nothing of their class, each with four turned copies."""
    generator = np.random.default_rng(0)
    samples = []
    for split, tiles in (("train", 8), ("val", 1), ("test", 4)):
        for label in TILES.class_ids:
            for tile in range(tiles):
                colour = generator.integers(40, 216, 3)
                noise = generator.normal(0, 4, (32, 32, 3))
                pixels = (colour + noise).clip(0, 255).astype(np.uint8)
                for turn in range(4):
                    path = tmp_path / f"{split}-{label}-{tile}-{turn}.png"
                    Image.fromarray(np.rot90(pixels, turn)).save(path)
                    samples.append(Sample(path, label, split, f"{split}-{label}-{tile}", "here"))
    return Manifest(TILES, "copies", tuple(samples))


def groups_of_classes(sizes):
    """Labels and groups: `sizes` are of the groups of each class."""
    labels = np.concatenate([np.full(sum(row), i) for i, row in enumerate(sizes)])
    names = [[f"{i}-{j}"] * n for i, row in enumerate(sizes) for j, n in enumerate(row)]
    return labels, np.array([name for part in names for name in part])


@pytest.mark.parametrize("seed", range(5))
def test_a_split_by_group_keeps_groups_whole(seed):
    labels, groups = groups_of_classes([[3] * 20, [2] * 40, [1] * 30])
    train_places, test_places = split_by_group(labels, groups, 34, seed)
    assert not set(groups[train_places]) & set(groups[test_places])
    assert sorted([*train_places, *test_places]) == list(range(len(labels)))
    for label in range(3):  # a fifth of 170 images, rounded up to whole groups
        of_class = labels == label
        tested = of_class[test_places].sum()
        assert of_class.sum() * 0.2 <= tested < of_class.sum() * 0.2 + 3


def test_a_split_by_image_has_the_wanted_size_and_shares():
    labels, _ = groups_of_classes([[60], [80], [30]])
    train_places, test_places = split_by_image(labels, 34, 0)
    assert len(test_places) == 34 and len(set(train_places) | set(test_places)) == 170
    assert np.bincount(labels[test_places]).tolist() == [12, 16, 6]


@pytest.mark.parametrize("split", [
    lambda labels, groups, seed: split_by_image(labels, 30, seed),
    lambda labels, groups, seed: split_by_group(labels, groups, 30, seed),
])  # fmt: skip
def test_seeds_give_different_splits_each_the_same_again(split):
    labels, groups = groups_of_classes([[2] * 30, [3] * 30])
    first, again, other = (split(labels, groups, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_copies_are_remembered_where_they_are_in_both_parts(copies):
    """Where only the tile itself can be recognised, all that a leaky split gains is memory."""
    rows = measure_leakage(copies)
    assert len(rows) == 3 * 7
    assert {(row.tested, row.trained) for row in rows if row.way != "by_group"} == {(80, 160)}
    for row in rows:
        assert row.trained + row.tested == 5 * 12 * 4
        assert row.seen > 0.9 * row.tested if row.way == "by_image" else row.seen == 0
    for name in {row.classifier for row in rows}:
        rates = {
            way: [
                row.right / row.tested for row in rows if (row.classifier, row.way) == (name, way)
            ]
            for way in ("as_stored", "by_group", "by_image")
        }
        assert [len(found) for found in rates.values()] == [1, 3, 3]
        assert min(rates["by_image"]) > max(rates["by_group"])
        if name == "nearest neighbour of colour histograms":
            assert min(rates["by_image"]) > 0.9  # a copy is the nearest
            assert max(rates["by_group"] + rates["as_stored"]) < 0.5  # chance is 0.2


def test_there_is_a_classifier_for_each_name_of_a_task_file():
    assert set(CLASSIFIERS) == set(get_args(Classifier))


def test_what_is_measured_is_kept_and_compared(copies, weights):
    assert leakage_task(copies, write=True) == []
    file = weights / "results" / "histopathology" / "leakage.csv"
    rows = read_rows(file, LeakageRow)
    assert list(dict.fromkeys(row.classifier for row in rows)) == [
        "random forest on six colour numbers",
        "random forest on colour and texture",
        "nearest neighbour of colour histograms",
    ]
    assert leakage_task(copies) == []
    write_rows(file, [replace(rows[0], right=rows[0].right + 6), *rows[1:]])
    (line,) = leakage_task(copies)
    assert "leakage.csv: right of" in line and str(rows[0].right) in line
