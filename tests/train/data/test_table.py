"""`train.data.table`: a user's own table; the shipped sets' are in `test_manifest.py`."""

import csv

import pytest

from kdmodels.tasks import Task
from train.data.grouping import ALONE
from train.data.manifest import SPLITS, DataError
from train.data.open import open_manifest
from train.data.table import read_table

ABOUT = dict(id="shapes", name="Shapes", classes=["circle", {"id": "square", "name": "A square"}])
TASK = Task(**ABOUT)


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
