"""How long the networks take, as `python -m kdmodels benchmark` measured it."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import median

from train.measure.kept import REPOSITORY

FILE = REPOSITORY / "benchmarks" / "results" / "engines.csv"
DIGITS = 12  # of a sha256 that the file has


def machine(file: Path = FILE) -> str:
    """Where that was, in words; empty where nothing was measured."""
    if not file.exists():
        return ""
    with file.open(encoding="utf-8") as opened:
        return opened.readline().removeprefix("#").strip()


def latency_ms(sha256: str, engine: str, file: Path = FILE) -> float | None:
    """Of one image, of the weights with that sha256 by an engine of that name: the median of the
    rounds; None where that was not measured.
    """
    return _latencies(file).get((sha256[:DIGITS], engine))


def _latencies(file: Path) -> dict[tuple[str, str], float]:
    if not file.exists():
        return {}
    found = defaultdict(list)
    with file.open(newline="", encoding="utf-8") as opened:
        for row in csv.DictReader(line for line in opened if not line.startswith("#")):
            if row["latency_ms"]:
                found[row["sha256"], row["engine_name"]].append(float(row["latency_ms"]))
    return {key: median(values) for key, values in found.items()}
