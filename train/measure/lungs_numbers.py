"""How well lungs are found, from what is kept of each picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.measure.kept_rows import LungRow
from train.measure.resampling import Estimate, mean_estimate


@dataclass(frozen=True)
class Found:
    """On films of one version or source: the mean Dice, its 5th percentile, and in how many of the
    films (`doubted` of `films`) something was said against the lungs that were found.
    """

    name: str
    films: int
    dice: Estimate
    least: float
    doubted: int


@dataclass(frozen=True)
class Refused:
    """Of pictures of one kind that should be refused or told of: how many were, and why most often."""

    name: str
    pictures: int
    refused: int
    reason: str


@dataclass(frozen=True)
class LungNumbers:
    """sha256: of the weights, the first digits. The first of `versions` are the films as they are."""

    sha256: str
    versions: tuple[Found, ...]
    sources: tuple[Found, ...]
    refused: tuple[Refused, ...]


def lung_numbers(rows: Sequence[LungRow]) -> LungNumbers | None:
    """None where nothing is kept."""
    if not rows:
        return None
    scored = [row for row in rows if not np.isnan(row.dice)]
    plain = [row for row in scored if row.version == scored[0].version]
    others = [row for row in rows if np.isnan(row.dice)]
    return LungNumbers(
        rows[0].sha256,
        tuple(_found(name, scored, "version") for name in _names(scored, "version")),
        tuple(_found(name, plain, "source") for name in sorted(_names(plain, "source"))),
        tuple(_refused(name, others) for name in _names(others, "version")),
    )


def _names(rows: Sequence[LungRow], column: str) -> list[str]:
    return list(dict.fromkeys(getattr(row, column) for row in rows))


def _found(name: str, rows: Sequence[LungRow], column: str) -> Found:
    mine = [row for row in rows if getattr(row, column) == name]
    scores = np.array([row.dice for row in mine])
    mean = mean_estimate(scores, tuple(row.group for row in mine))
    return Found(
        name, len(mine), mean, float(np.percentile(scores, 5)), sum(bool(r.reason) for r in mine)
    )


def _refused(name: str, rows: Sequence[LungRow]) -> Refused:
    reasons = Counter(row.reason for row in rows if row.version == name)
    said = Counter({reason: number for reason, number in reasons.items() if reason})
    return Refused(name, reasons.total(), said.total(), said.most_common(1)[0][0] if said else "")
