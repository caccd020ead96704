"""Further seeds: runs of recipes that are not stored, or that are stored with another seed."""

import logging
from collections.abc import Sequence
from pathlib import Path

from kdmodels.models.checkpoints import Checkpoint
from train.learn.finished import read_runs as read_finished

log = logging.getLogger("train")


def control_of(row: Checkpoint, rows: Sequence[Checkpoint]) -> Checkpoint | None:
    """What a row is compared with, if it is there: the plain student on labels only, or for a
    teacher with a variant the same teacher without.
    """
    if row.teacher is None and not row.variant:
        return None
    key = (row.task, row.model, None, "")
    return next((c for c in rows if (c.task, c.model, c.teacher, c.variant) == key), None)


def read_runs(
    runs: Sequence[Path], data_id: str, stored: Sequence[Checkpoint]
) -> list[tuple[Path, Checkpoint]]:
    """Each run folder with its row, without those whose seed `weights/` holds."""
    known = {(c.stem, c.seed) for c in stored}
    found = ((run, row) for run, row, _ in read_finished(runs, data_id))
    return [(run, row) for run, row in found if (row.stem, row.seed) not in known]
