"""`train.data.table`: a user's own table; the shipped sets' are in `test_manifest.py`."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest

from kdmodels.tasks import Task, get_task
from train.data.grouping import ALONE
from train.data.manifest import SPLITS, DataError
from train.data.open import open_manifest
from train.data.table import read_table

ABOUT = dict(id="shapes", name="Shapes", classes=["circle", {"id": "square", "name": "A square"}])
TASK = Task(**ABOUT)
SPLIT_FILES = Path(__file__).parents[3] / "docs" / "splits"


def rows(**columns):
    """20 rows: two images of each of five objects, by class; `columns`: functions of both."""
    return [
        {"file": f"{label}/{i}-{k}.png", "label": label}
        | {name: give(i, k) for name, give in columns.items()}
        for label in ("circle", "square")
        for i in range(5)
        for k in (0, 1)
    ]


@pytest.fixture
def write(tmp_path):
    """Write rows as a table, and the (empty) files that they name in `column`."""

    def write(found, column="file", name="manifest.csv"):
        for row in found:
            path = tmp_path / row[column]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, found[0])
            writer.writeheader()
            writer.writerows(found)
        return tmp_path / name

    return write


def test_file_and_label_are_enough(write):
    found = read_table(write(rows()), TASK)
    assert found.counts() == {
        (split, c): {"train": 7, "val": 1, "test": 2}[split] for split in SPLITS for c in TASK.class_ids
    }  # fmt: skip
    assert (found.name, found.notes, len({s.group for s in found.samples})) == (
        "shapes",
        (ALONE,),
        20,
    )
    assert {s.source for s in found.samples} == {"shapes"}


def test_a_column_of_groups_keeps_them_in_one_split(write):
    found = read_table(write(rows(group=lambda i, k: f"object {i}")), TASK)
    assert not found.notes and len({s.group for s in found.samples}) == 5
    assert len({(s.group, s.split) for s in found.samples}) == 5


def test_columns_have_the_names_that_the_task_file_gives(write):
    table = dict(file="scans/{scan}.png", label="diagnosis", split="part", group="patient", source="site",
                 mask="{outline}")  # fmt: skip
    found = [
        dict(scan=f"s{i}", diagnosis=name, part=part, patient=f"p{i}", site="north", outline=outline,
             at=f"scans/s{i}.png")
        for i, (name, part, outline) in enumerate(
            [("A SQUARE", "Train", "m.png"), ("circle", "validation", ""), ("Square", "test", "")]
        )
    ]  # fmt: skip
    first, second, third = read_table(write(found, "at"), Task(**ABOUT, table=table)).samples
    assert (first.label, first.split, first.group, first.source) == (
        "square",
        "train",
        "p0",
        "north",
    )
    assert (first.path.name, first.mask.name, second.mask) == ("s0.png", "m.png", None)
    assert (second.label, second.split, third.label, third.split) == (
        "circle",
        "val",
        "square",
        "test",
    )


def test_a_table_may_be_named_itself(write, monkeypatch):
    monkeypatch.setattr("train.data.open.get_task", lambda _: TASK)
    file = write(rows(), name="Wave 2.CSV")
    assert len(open_manifest("shapes", file, check=False).samples) == 20


WRONG = {
    "no label": ([{"file": "a.png"}], {}, r"lacks the column\(s\) label; add them, or name its columns"),
    "no column that is named": (rows(), {"table": {"group": "patient"}}, r"lacks the column\(s\) patient;"),
    "unknown class": ([{"file": "a.png", "label": "star"}], {}, "unknown class 'star'; known: circle, square"),
    "unknown split": (rows(split=lambda *_: "dev"), {}, "unknown split 'dev'; known: train, val, test"),
}  # fmt: skip


@pytest.mark.parametrize("found, changes, said", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_the_file(write, found, changes, said):
    with pytest.raises(DataError, match=f"manifest\\.csv .*{said}"):
        read_table(write(found), Task(**ABOUT, **changes))


def test_a_file_that_is_not_there_is_named(write, tmp_path):
    file = write(rows())
    (tmp_path / "circle" / "3-1.png").unlink()
    with pytest.raises(DataError, match=r"names .*3-1\.png, which does not exist"):
        read_table(file, TASK)


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"manifest\.csv is no table that can be read"):
        read_table(tmp_path / "manifest.csv", TASK)


def test_a_list_with_plain_names_is_read_for_a_shipped_task_too(write, tmp_path):
    """Such as those of `docs/splits`, whose columns are not those of the sets with a manifest.csv."""
    found = [
        {"file": f"{split}/{label}/images/{i}.png", "label": label, "split": split, "group": f"{split}{i}",
         "source": "s", "mask": f"{split}/{label}/lung masks/{i}.png" if i else ""}
        for split in SPLITS for label in ("covid", "pneumonia", "normal") for i in (0, 1)
    ]  # fmt: skip
    manifest = read_table(write(found, name="ours.csv"), get_task("cxr"))
    assert manifest.name == "ours"
    assert {s.split for s in manifest.samples} == set(SPLITS)
    masks = {
        s.path.stem: s.mask for s in manifest.samples if s.label == "covid" and s.split == "val"
    }
    assert masks == {"0": None, "1": tmp_path / "val/covid/lung masks/1.png"}


@pytest.mark.parametrize(("name", "task"), [("covid-qu-ex", "cxr"), ("lc25000", "histopathology")])
def test_our_splits_keep_groups_whole_and_hold_every_class(name, task):
    with (SPLIT_FILES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    splits_of, classes_of = defaultdict(set), defaultdict(set)
    for row in rows:
        splits_of[row["group"]].add(row["split"])
        classes_of[row["split"]].add(row["label"])
    assert all(len(splits) == 1 for splits in splits_of.values())
    assert {split: set(get_task(task).class_ids) for split in SPLITS} == classes_of
    assert len({row["file"] for row in rows}) == len(rows)
