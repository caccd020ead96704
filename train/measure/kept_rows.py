"""Tables in `results/<task>/` that hold no logits: CSV files, a dataclass for the rows of each.

agreement.csv  how alike the heatmaps of a student and a teacher are, a row an image
lungs.csv      how the stored finder does on the test films, a row a film and version
leakage.csv    what cheap classifiers reach by way of splitting, a row a split
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from train.measure.kept import ResultsError

DIGITS = 12  # of a sha256 that rows repeat


@dataclass(frozen=True)
class AgreementRow:
    """The heatmaps of the true class of one test image, by a student and by a teacher.

    student: key of the run. sha256s: their first `DIGITS` digits. teacher: model id. correlation,
    overlap: see `kdmodels.explain.similarity.agreement`; NaN where a map is flat.
    """

    student: str
    student_sha256: str
    teacher: str
    teacher_sha256: str
    image: str
    group: str
    correlation: float
    overlap: float


@dataclass(frozen=True)
class LeakageRow:
    """One cheap classifier on one split.

    way: `as_stored`, `by_group` or `by_image`. trained, tested: images of the split. right: of the
    tested images, those classified correctly. seen: those with a training image of their group.
    """

    classifier: str
    way: str
    seed: int
    trained: int
    tested: int
    right: int
    seen: int


@dataclass(frozen=True)
class LungRow:
    """What the stored lung finder found on one picture.

    sha256: of its weights, the first `DIGITS` digits. version: of `train.measure.lungs`. image: the
    first digits of its name. dice: with the mask; NaN where the picture is to be refused. sureness,
    reason: see `kdmodels.lungs.find.Lungs`; the reason is empty where two plausible lungs were found.
    """

    sha256: str
    version: str
    image: str
    source: str
    group: str
    dice: float
    sureness: float
    reason: str


Row = TypeVar("Row", AgreementRow, LeakageRow, LungRow)


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Floats get five digits."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, [f.name for f in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = asdict(row).items()
            writer.writerow({k: f"{v:.5f}" if isinstance(v, float) else v for k, v in cells})


def read_rows(file: Path, kind: type[Row]) -> tuple[Row, ...]:
    """Empty where there is no such file. Raises `ResultsError` for one that is no such table."""
    if not file.exists():
        return ()
    names = [f.name for f in fields(kind)]
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            reader = csv.DictReader(opened)
            if reader.fieldnames != names:
                raise ValueError(f"its columns are {reader.fieldnames}")
            rows = list(reader)
        return tuple(kind(**{f.name: f.type(row[f.name]) for f in fields(kind)}) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"{file} is no table of {', '.join(names)} ({error}); delete it and measure it again."
        ) from error


def unlike_rows(
    file: Path, kept: Sequence[Row], found: Sequence[Row], tolerances: Mapping[str, float]
) -> list[str]:
    """A sentence for each row that is not as it is kept.

    tolerances: by column, how far its numbers may lie apart; NaN is like NaN alone.
    """
    again = "the same command with --write keeps what is found now"

    def by_key(rows: Sequence[Row]) -> dict[tuple, Row]:
        return {
            tuple(v for k, v in asdict(row).items() if k not in tolerances): row for row in rows
        }

    known, now = by_key(kept), by_key(found)
    lines = [
        f"{file} holds {known[k]}, which is not found; {again}." for k in known if k not in now
    ]
    lines += [f"{file} lacks {now[k]}; {again}." for k in now if k not in known]
    for key in now.keys() & known.keys():
        for column, tolerance in tolerances.items():
            before, after = (getattr(rows[key], column) for rows in (known, now))
            same = np.isclose(before, after, atol=tolerance, rtol=0, equal_nan=True)
            if not same:
                lines.append(
                    f"{file}: {column} of {key} is kept as {before}, not {after}; {again}."
                )
    return sorted(lines)
