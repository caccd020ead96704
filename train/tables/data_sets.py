"""What is told of each data set in words, from `data_sets.yaml`."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml

from kdmodels.models.checkpoints import Checkpoint

FILE = Path(__file__).with_name("data_sets.yaml")
RESEARCH_ONLY = "for research, under the terms of the data that they were trained on"


@cache
def data_sets() -> dict[str, dict]:
    """By the name of the data set: description, sources with their terms, and biases."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def data_set_of(row: Checkpoint) -> dict | None:
    """The one that a checkpoint was trained on; None of a user's own."""
    return data_sets().get(row.data.partition("@")[0])


def data_sets_of(rows: Iterable[Checkpoint]) -> list[dict]:
    """All that checkpoints were trained on, once each."""
    found = {row.data.partition("@")[0]: data_set_of(row) for row in rows}
    return [data_set for data_set in found.values() if data_set]
