"""Many images through teacher and student: one row each, and the rows as a CSV file."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from io import StringIO

from PIL import Image

from kdmodels.doubts import doubts_of
from kdmodels.images import Found, ImageError, read_image
from kdmodels.predict import COMPUTE, Classifier, time_passes

RUNS = 3  # timed passes of each image, after one of warm-up
# A spreadsheet takes a cell that begins so for a formula, and may run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Row:
    """What both said of one file.

    teacher, student: class ids. *_probability: of that class, calibrated, in [0, 1]. agree: whether
    they are the same class. *_ms: median time of a pass, in milliseconds. doubt: sentences that
    speak against taking the answers at their word; often empty. problem: one sentence where the file
    is no usable image, and of all before it there is only the name; else empty.
    """

    file: str
    teacher: str | None = None
    teacher_probability: float | None = None
    student: str | None = None
    student_probability: float | None = None
    agree: bool | None = None
    teacher_ms: float | None = None
    student_ms: float | None = None
    doubt: str = ""
    problem: str = ""


COLUMNS = tuple(field.name for field in fields(Row))


def run(
    classifiers: Iterable[Classifier],
    files: Iterable[Found],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Classify files one after the other; a row comes as soon as both have answered.

    classifiers: a teacher and a student of one task, in any order. Tables among the files are
    passed over. Between images others may compute. check: called before each file and each pass;
    what it raises ends the work.

    Raises `EngineError` and `CheckpointError` as `predict` does.
    """
    by_role = {classifier.spec.role: classifier for classifier in classifiers}
    for file in files:
        if file.is_table:
            continue
        check()
        try:
            checked = read_image(file.path)
        except ImageError as error:
            yield Row(file.name, problem=str(error))
            continue
        teacher, student = (
            _answer(by_role[role], checked.pixels, check) for role in ("teacher", "student")
        )
        yield Row(
            file.name,
            *teacher[:2],
            *student[:2],
            agree=teacher[0] == student[0],
            teacher_ms=teacher[2],
            student_ms=student[2],
            doubt=" ".join(doubts_of(by_role["teacher"].task, checked)),
        )


def _answer(
    classifier: Classifier, pixels: Image.Image, check: Callable[[], None]
) -> tuple[str, float, float]:
    """Class id, its probability, and the median time of a pass in milliseconds."""
    with COMPUTE:
        check()
        images = classifier.prepare(pixels)
        logits, latency = time_passes(classifier.engine, images, RUNS, min_ms=0, check=check)
    shares = (logits[0].double() / classifier.checkpoint.temperature).softmax(0)
    index = int(shares.argmax())
    return classifier.task.class_ids[index], float(shares[index]), latency.median_ms


def to_csv(rows: Iterable[Row]) -> str:
    """A CSV table of `COLUMNS` with a heading; encode it as "utf-8-sig", so that Excel reads it.

    Probabilities have 4 decimals, times 2; agree is yes or no; what is not known is empty. A text
    that a spreadsheet would take for a formula begins with an apostrophe.
    """
    writer = csv.writer(text := StringIO())
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(_cell(name, getattr(row, name)) for name in COLUMNS)
    return text.getvalue()


def _cell(column: str, value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if column.endswith("probability") else f"{value:.2f}"
    return f"'{value}" if value.startswith(_FORMULA) else value
