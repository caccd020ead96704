"""A set of labelled cases from uploads."""

import csv
import difflib
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from kdmodels.images.archives import Found, gather, printable
from kdmodels.tasks import Task

MAX_TABLE_BYTES = 2**20
MAX_PROBLEMS = 50  # told one by one; of more, only how many there are
DELIMITERS = (",", ";", "\t")
FORMAT = "a CSV file with the columns file and label (and note, if you like)"


@dataclass(frozen=True)
class Case:
    """One image to guess.

    name: of the file, which may give the label away: show it after the answer. label: class id, or
    None where it is not known. note: what the table says besides.
    """

    name: str
    path: Path
    label: str | None = None
    note: str = ""


@dataclass(frozen=True)
class CaseSet:
    """Cases in the order of the table, else of the files, and what could not be used, and why."""

    cases: tuple[Case, ...]
    problems: tuple[str, ...]


def read_cases(uploads: Sequence[Path], task: Task, folder: Path) -> CaseSet:
    """Make cases of images and zips; zips are unpacked into `folder`.

    Labels come from a table, which is a CSV file (UTF-8; comma, semicolon or tab) with the columns
    `file`, `label` and, optionally, `note`; the label is a class's id or name, and may be empty.
    `file` is a name or the end of a path. Bad rows are problems, and so are images in no row,
    which are left out. Without a usable table, folders named after classes are labels.

    Raises `ArchiveError` for uploads that are refused as a whole.
    """
    found = gather(uploads, folder)
    problems = list(found.problems)
    tables = [file for file in found.files if file.is_table]
    for extra in tables[1:]:
        problems.append(f"{extra.name} was not used: one table is enough, and {tables[0].name} is.")
    try:
        rows = _read_table(tables[0]) if tables else None
    except _Unusable as error:
        problems.append(f"{tables[0].name} {error}")
        rows = None
    if rows is None:
        cases = list(_from_folders(found.images, Labels(task), problems))
    else:
        cases = list(_from_rows(rows, found.images, Labels(task), problems))
    if not cases and not problems:
        problems.append(f"There is no image; choose images, or a zip of images with {FORMAT}.")
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [f"There are {rest} more problems like these."]
    return CaseSet(tuple(cases), tuple(problems))


class Labels:
    """The ways to write a class: its id or its name, in capitals or not, with or without signs."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ids = {_plain(text): c.id for c in task.classes for text in (c.name, c.id)}

    def find(self, text: str) -> str | None:
        """The class id that is meant, or None."""
        return self._ids.get(_plain(text))

    def nearest(self, text: str) -> str | None:
        """The class id that may have been meant by a wrong label, or None."""
        close = difflib.get_close_matches(_plain(text), self._ids, n=1)
        return self._ids[close[0]] if close else None

    def advice(self, text: str) -> str:
        """Half a sentence on what to write instead of a wrong label."""
        nearest = self.nearest(text)
        known = ", ".join(self._task.class_ids)
        return f"did you mean {nearest}?" if nearest else f"the classes are {known}."


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text[:100].casefold())


class _Unusable(Exception):
    """The table cannot be read; the message completes a sentence that begins with its name."""


@dataclass(frozen=True)
class _Row:
    line: int
    file: str
    label: str
    note: str


def _read_table(table: Found) -> list[_Row]:
    with table.path.open("rb") as file:
        data = file.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise _Unusable(f"is larger than {MAX_TABLE_BYTES // 2**20} MB; shorten it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unusable("is not UTF-8 text; save it as “CSV UTF-8”.") from None
    heading = re.split(r"[\r\n]", text, maxsplit=1)[0]
    reader = csv.reader(StringIO(text, newline=""), delimiter=max(DELIMITERS, key=heading.count))
    try:
        return list(_rows(reader))
    except csv.Error as error:
        raise _Unusable(f"cannot be read from line {reader.line_num} on ({error}).") from None


def _rows(reader) -> Iterator[_Row]:
    """The rows that are not empty, with the line on which each begins."""
    columns = [name.strip().casefold() for name in next(reader, [])]
    if not {"file", "label"} <= set(columns):
        raise _Unusable(f"was not used: it must be {FORMAT}.")
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            row = dict(zip(columns, map(str.strip, cells), strict=False))
            yield _Row(line, row.get("file", ""), row.get("label", ""), row.get("note", ""))
        line = reader.line_num + 1


def _from_rows(
    rows: Iterable[_Row], files: Sequence[Found], labels: Labels, problems: list[str]
) -> Iterator[Case]:
    places = _Places(files)
    taken: dict[Found, int] = {}  # file -> line that names it first
    for row in rows:
        file, problem = places.find(row.file)
        if file and file in taken:
            problem = f"{_short(row.file)} is already on line {taken[file]}."
        elif file:
            taken[file] = row.line
        if file and not problem and row.label and not labels.find(row.label):
            problem = (
                f"“{_short(row.label)}” is not a class of this task; {labels.advice(row.label)}"
            )
        if problem:
            problems.append(f"Line {row.line}: {problem}")
        else:
            yield Case(file.name, file.path, labels.find(row.label), row.note)
    left = [file.place for file in files if file not in taken]
    if left:
        problems.append(f"In no row of the table, and so left out: {_listed(left)}.")


class _Places:
    """Finds the file that a row means: by its path, by the end of its path, or by its name."""

    def __init__(self, files: Iterable[Found]) -> None:
        self._by_end: dict[str, list[Found]] = defaultdict(list)
        for file in files:
            parts = _path(file.place).split("/")
            for start in range(len(parts)):
                self._by_end["/".join(parts[start:])].append(file)

    def find(self, written: str) -> tuple[Found | None, str]:
        """The file and no problem, or None and the problem."""
        if not written:
            return None, "the column file is empty."
        path = _path(written)
        files = self._by_end.get(path, [])
        if not files:  # single uploads have lost the folders that the row names
            named = self._by_end.get(path.rsplit("/", 1)[-1], [])
            files = [file for file in named if "/" not in file.place]
        exact = [file for file in files if _path(file.place) == path]
        if len(files) > 1 and len(exact) != 1:
            return (
                None,
                f"{len(files)} files are named {_short(written)}; write the path of the one meant.",
            )
        if not files:
            return None, f"there is no image {_short(written)} among the files."
        return (exact or files)[0], ""


def _path(written: str) -> str:
    parts = printable(written).casefold().replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _from_folders(files: Iterable[Found], labels: Labels, problems: list[str]) -> Iterator[Case]:
    """Cases labelled by the innermost folder that is named after a class."""
    strange: dict[str, list[Found]] = defaultdict(list)
    any_labelled = False
    for file in files:
        folders = file.place.split("/")[:-1]
        known = [labels.find(folder) for folder in folders if labels.find(folder)]
        any_labelled = any_labelled or bool(known)
        if folders and not known:
            strange[folders[-1]].append(file)
        yield Case(file.name, file.path, known[-1] if known else None)
    for folder, inside in strange.items():
        if any_labelled or labels.nearest(folder):
            problems.append(
                f"The folder {folder} is not named after a class, so its images ({len(inside)}) "
                f"have no label; {labels.advice(folder)}"
            )


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _listed(names: Sequence[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def order(cases: Sequence[Case], seed: int) -> tuple[Case, ...]:
    """The cases shuffled: the same order for the same seed."""
    return tuple(random.Random(seed).sample(list(cases), len(cases)))


def disagreements(
    cases: Iterable[Case], teacher: Mapping[str, str], student: Mapping[str, str]
) -> tuple[Case, ...]:
    """The cases on which the models' answers (class ids by `Case.name`) differ, in their order.

    A case that one of them has not answered yet is not among them.
    """
    return tuple(
        case
        for case in cases
        if case.name in teacher
        and case.name in student
        and teacher[case.name] != student[case.name]
    )
