"""`train.data.manifest`: what a manifest refuses, and the starter sets as they are."""

import csv
import os
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from kdmodels.tasks import TASKS
from kdmodels.tasks.task import Layout
from train.data.manifest import SPLITS, DataError, Manifest, Sample, read_mask, read_pixels
from train.data.open import READERS, open_manifest
from train.data.table import read_table

DATA = Path(os.environ.get("KD_DATA") or Path(__file__).parents[4] / "shared" / "data")
CXR = TASKS["cxr"]
COUNTS = {  # of the data sets' README
    "cxr": {
        "train": {"covid": 1524, "normal": 1108, "pneumonia": 682},
        "val": {"covid": 237, "normal": 172, "pneumonia": 107},
        "test": {"covid": 353, "normal": 257, "pneumonia": 159},
    },
    "histopathology": {
        "train": dict(lung_n=643, lung_aca=624, lung_scc=644, colon_n=579, colon_aca=579),
        "val": dict(lung_n=100, lung_aca=99, lung_scc=100, colon_n=89, colon_aca=90),
        "test": dict(lung_n=151, lung_aca=148, lung_scc=148, colon_n=134, colon_aca=134),
    },
}


def sample(name="a", label="covid", split="train", group=None):
    return Sample(Path(f"{name}.png"), label, split, group or name, "somewhere")


def manifest(*samples, task=CXR):
    return Manifest(task, "mine", samples)


def full():
    return [sample(f"{split}-{label}", label, split) for split in SPLITS for label in CXR.class_ids]


def write_manifest(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_image(path, value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 60), value).save(path)


def cxr_rows():
    return [
        dict(stem="aa", label="covid", split="train", group="g1", source="s1", has_mask="1"),
        dict(stem="bb", label="normal", split="test", group="g2", source="s2", has_mask="0"),
    ]


def histopathology_rows():
    return [
        dict(file="images/x.jpeg", label="lung_n", split="val", original_id="t1", source_repo="r"),
        dict(file="images/y.jpeg", label="lung_n", split="val", original_id="t1", source_repo="r"),
    ]


@pytest.fixture
def cxr_folder(tmp_path):
    folder = tmp_path / "cxr"
    write_manifest(folder, cxr_rows())
    write_image(folder / "images" / "aa.jpg")
    write_image(folder / "images" / "bb.jpg")
    write_image(folder / "masks" / "aa.png", 255)
    return folder


@pytest.fixture
def histopathology_folder(tmp_path):
    folder = tmp_path / "histopathology"
    write_manifest(folder, histopathology_rows())
    write_image(folder / "images" / "x.jpeg")
    write_image(folder / "images" / "y.jpeg")
    return folder


# --- The manifest ----------------------------------------------------------------------------


def test_a_group_in_two_splits_is_refused_by_name():
    with pytest.raises(DataError, match=r"'patient-7' is in two splits, train and test \(b\.png\)"):
        manifest(sample("a", group="patient-7"), sample("b", split="test", group="patient-7"))


def test_an_unknown_class_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="'flu'; known: covid, pneumonia, normal"):
        manifest(sample(label="flu"))


def test_an_unknown_split_is_refused():
    with pytest.raises(DataError, match=r"a\.png is in the unknown split 'holdout'"):
        manifest(sample(split="holdout"))


def test_a_manifest_without_images_is_refused():
    with pytest.raises(DataError, match="'mine' holds no images of the task 'cxr'"):
        manifest()


def test_split_returns_its_own_samples_only():
    assert {s.split for s in manifest(*full()).split("val")} == {"val"}
    assert manifest(*full()).counts() == {(s, c): 1 for s in SPLITS for c in CXR.class_ids}


@pytest.mark.parametrize("missing", [("covid",), CXR.class_ids])
def test_a_split_that_misses_a_class_is_refused_with_its_names(missing):
    samples = [s for s in full() if s.split != "val" or s.label not in missing]
    assert manifest(*samples).split("train")
    with pytest.raises(DataError, match=f"val split of 'mine' has no image of: {missing[0]}"):
        manifest(*samples).split("val")


@pytest.mark.parametrize("change", [{"path": Path("b.png")}, {"label": "normal"},
                                    {"split": "val"}, {"group": "h"}])  # fmt: skip
def test_the_id_changes_with_the_content(change):
    assert manifest(replace(sample(), **change)).id != manifest(sample()).id


def test_the_id_depends_neither_on_order_nor_on_the_folder():
    samples = full()
    moved = [replace(s, path=Path("/elsewhere") / s.path) for s in reversed(samples)]
    assert manifest(*samples).id == manifest(*moved).id
    assert manifest(*samples).id.startswith("mine@")


def test_skipped_samples_belong_to_the_id_but_to_no_split():
    whole = full()
    twins = [replace(s, path=Path("2" + s.path.name), group="2" + s.group) for s in whole]
    complete = manifest(*whole, *twins)
    gone = replace(whole[1], number=1)
    found = replace(complete, samples=(whole[0], *whole[2:], *twins), skipped=(gone,))
    assert found.id == complete.id
    assert found.counts()["train", whole[1].label] == 1
    assert [s.number for s in found.split("train")] == [0, 2, 3, 4, 5]
    assert [s.number for s in found.split("val")] == [None] * 6
    assert [s.path for s in found.split("train")] == [
        s.path for s in complete.split("train") if s.path != gone.path
    ]


# --- The starter sets ------------------------------------------------------------------------


def test_the_chest_columns_become_samples(cxr_folder):
    first, second = read_table(cxr_folder / "manifest.csv", CXR).samples
    assert first == Sample(
        cxr_folder / "images" / "aa.jpg",
        "covid",
        "train",
        "g1",
        "s1",
        cxr_folder / "masks" / "aa.png",
    )
    assert (second.label, second.split, second.group, second.mask) == ("normal", "test", "g2", None)


def test_the_tile_columns_become_samples(histopathology_folder):
    first, second = read_table(
        histopathology_folder / "manifest.csv", TASKS["histopathology"]
    ).samples
    assert first.path == histopathology_folder / "images" / "x.jpeg"
    assert (first.label, first.split, first.source) == ("lung_n", "val", "r")
    assert first.group == second.group == "t1"


@pytest.mark.parametrize("task_id, folder", [("cxr", ""), ("cxr", "cxr")])
def test_open_manifest_takes_the_set_or_the_folder_above(cxr_folder, task_id, folder):
    found = open_manifest(task_id, cxr_folder.parent / folder)
    assert (found.task.id, found.name, len(found.samples)) == ("cxr", "starter-cxr", 2)


def test_a_byte_order_mark_does_not_hide_the_first_column(cxr_folder):
    path = cxr_folder / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_table(cxr_folder / "manifest.csv", CXR).samples) == 2


@pytest.mark.parametrize(
    "task_id, rows, column",
    [("cxr", cxr_rows(), c) for c in cxr_rows()[0]]
    + [("histopathology", histopathology_rows(), c) for c in histopathology_rows()[0]],
)
def test_a_missing_column_is_named(tmp_path, task_id, rows, column):
    write_manifest(tmp_path, [{k: v for k, v in row.items() if k != column} for row in rows])
    with pytest.raises(DataError, match=rf"manifest\.csv lacks the column\(s\) {column};"):
        read_table(tmp_path / "manifest.csv", TASKS[task_id])


def test_a_file_that_the_manifest_names_must_exist(cxr_folder):
    (cxr_folder / "images" / "bb.jpg").unlink()
    with pytest.raises(DataError, match=r"names .*bb\.jpg, which does not exist"):
        read_table(cxr_folder / "manifest.csv", CXR)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; name it with --data"):
        open_manifest("cxr", tmp_path / "nowhere")


@pytest.mark.parametrize("task_id, name", [("cxr", "COVID-QU-Ex"), ("histopathology", "LC25000")])
def test_a_folder_without_any_known_layout_is_named(tmp_path, task_id, name):
    (tmp_path / "holiday").mkdir()
    write_image(tmp_path / "holiday" / "beach.png")
    with pytest.raises(DataError, match=f"{tmp_path} holds no {name}"):
        open_manifest(task_id, tmp_path)


def test_there_is_a_reader_for_each_layout_of_a_task_file():
    assert set(READERS) == set(get_args(Layout))


# --- Pixels ----------------------------------------------------------------------------------


def test_pixels_and_masks_are_squares(cxr_folder):
    first = read_table(cxr_folder / "manifest.csv", CXR).samples[0]
    pixels, mask = read_pixels(first, CXR, 32), read_mask(first.mask, 32)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert (mask.shape, mask.dtype, mask.all()) == ((32, 32), bool, True)


def test_unreadable_pixels_and_masks_are_named(tmp_path):
    path = tmp_path / "broken.png"
    write_image(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.png cannot be read: This PNG file is damaged"):
        read_pixels(replace(sample(), path=path), CXR, 32)
    with pytest.raises(DataError, match=r"The mask .*broken\.png cannot be read"):
        read_mask(path, 32)


# --- The real ones ---------------------------------------------------------------------------


@pytest.fixture(scope="module", params=COUNTS)
def real(request):
    if not (DATA / request.param / "manifest.csv").is_file():
        pytest.skip(f"the starter set is not in {DATA / request.param}; KD_DATA names its folder")
    return open_manifest(request.param, DATA, check=False)


@pytest.mark.data
def test_the_starter_sets_have_the_documented_counts(real):
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for (split, label), number in real.counts().items():
        counts[split][label] = number
    assert counts == COUNTS[real.task.id]
    assert all(len(real.split(split)) == sum(counts[split].values()) for split in SPLITS)


@pytest.mark.data
def test_every_group_of_the_starter_sets_is_in_one_split(real):
    splits = defaultdict(set)
    for one in real.samples:
        splits[one.group].add(one.split)
    assert Counter(len(found) for found in splits.values()) == {1: len(splits)}


@pytest.mark.data
def test_the_masks_of_the_starter_sets_exist(real):
    masks = [one.mask for one in real.samples if one.mask]
    assert all(mask.is_file() for mask in masks)
    assert len(masks) == (1222 if real.task.id == "cxr" else 0)
    for mask in masks[:20]:
        assert 0.05 < read_mask(mask, 64).mean() < 0.8
