"""Images that a table lists: a `manifest.csv`, whose columns the task file names."""

import csv
from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from kdmodels.tasks import Task
from kdmodels.tasks.known import SHIPPED
from kdmodels.tasks.task import Table
from train.data.folders import SPLIT_FOLDERS, class_of
from train.data.grouping import ALONE, facts_of, split_by_group
from train.data.manifest import DataError, Manifest, Sample

NEEDED = {"file", "label"}
# A list of files for a task whose own columns have other names, as those in docs/splits.
PLAIN = Table(file="file", label="label", split="split", group="group")


def read_table(file: Path, task: Task) -> Manifest:
    """Read a table; its files lie below its own folder. Labels are class ids or names, in any case.

    Without a column of splits, whole groups are split (`train.data.grouping`). Raises `DataError` for
    a table without the columns that it needs, an unknown label or split, and a file that is missing.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            columns, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is no table that can be read: {error}.") from error
    table = next((t for t in (task.table, PLAIN) if not _missing(t, columns)), None)
    if table is None:
        raise DataError(
            f"{file} lacks the column(s) {', '.join(_missing(task.table, columns))}; add them, or "
            "name its columns under 'table' in the task file."
        )
    given = {part for part, text in table if text and set(_fields(text)) <= set(columns)}
    samples = tuple(_sample(file, row, table, given, task) for row in rows)
    if "split" not in given and samples:
        samples = split_by_group(samples)
    name = task.id
    if task.id in SHIPPED:
        name = f"starter-{task.id}" if table is task.table else file.stem
    known = "group" in given or task.group_pattern
    return Manifest(task, name, samples, () if known else (ALONE,))


def _missing(table: Table, columns: Sequence[str]) -> list[str]:
    """The columns that a table must have and has not."""
    wanted = (
        _fields(text) for part, text in table if text and part in NEEDED | table.model_fields_set
    )
    return list(dict.fromkeys(c for fields in wanted for c in fields if c not in columns))


def _fields(text: str) -> list[str]:
    """The columns that an entry of `Table` takes values from."""
    return [name for _, name, _, _ in Formatter().parse(text) if name] or [text]


def _value(table: Table, part: str, row: dict[str, str]) -> str:
    text = getattr(table, part)
    return text.format(**row) if "{" in text else row[text] or ""


def _sample(file: Path, row: dict[str, str], table: Table, given: set[str], task: Task) -> Sample:
    values = {part: _value(table, part, row) for part in given}
    label = class_of(values["label"], task)
    if label is None:
        raise DataError(
            f"{file} has the unknown class '{values['label']}'; known: {', '.join(task.class_ids)}."
        )
    split = SPLIT_FOLDERS.get(values["split"].casefold()) if "split" in given else ""
    if split is None:
        raise DataError(
            f"{file} has the unknown split '{values['split']}'; known: train, val, test."
        )
    path = file.parent / values["file"]
    if not path.is_file():
        raise DataError(f"{file} names {path}, which does not exist.")
    group, source = facts_of(values["file"], task) if "group" not in given else ("", task.id)
    mask = values.get("mask") if values.get("masked", "1") == "1" else None
    return Sample(
        path=path,
        label=label,
        split=split,
        group=values.get("group") or group or values["file"],
        source=values.get("source") or source,
        mask=file.parent / mask if mask else None,
    )
