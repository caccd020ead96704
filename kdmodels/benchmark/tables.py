"""What was measured, as a table and as the students' speed against the fastest teacher's."""

import statistics
from collections.abc import Iterator

from kdmodels.benchmark.passes import CHOICES
from kdmodels.models.zoo import STUDENTS, TEACHERS, get_spec


def merged(rows: list[dict]) -> list[dict]:
    """One row for each checkpoint and engine, with the median of the rounds."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["checkpoint"], row["engine"]), []).append(row)
    return [
        {
            key: statistics.median(row[key] for row in group) if type(value) is float else value
            for key, value in group[0].items()
        }
        for group in groups.values()
    ]


def table(rows: list[dict], batch: int) -> Iterator[str]:
    """Lines of an aligned table, and below it the notes on what ran otherwise than was asked."""
    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    lines = [(
        "task", "model", "px", "engine", "ms, batch 1", "(quartiles)", f"images/s, batch {batch}",
        "peak MB", "(added)", "start s, empty cache", "filled",
    )]  # fmt: skip
    for row in rows:
        mark = f" [{notes.index(row['note']) + 1}]" if row["note"] else ""
        empty = row["start_empty_s"]
        lines.append((
            row["task"], row["name"], str(row["size_px"]), CHOICES[row["engine"]].title + mark,
            f"{row['latency_ms']:.2f}", f"({row['q1_ms']:.2f} to {row['q3_ms']:.2f})",
            f"{row['images_per_s']:.1f}", f"{row['peak_mb']:.0f}", f"(+{row['added_mb']:.0f})",
            "-" if empty is None else f"{empty:.2f}", f"{row['start_s']:.2f}",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = (0, 1, 3)  # to the left; numbers to the right
    for line in lines:
        cells = zip(line, widths, strict=True)
        yield "  ".join(
            cell.ljust(width) if at in words else cell.rjust(width)
            for at, (cell, width) in enumerate(cells)
        ).rstrip()
    for number, note in enumerate(notes, start=1):
        yield f"[{number}] {note}"


def _span(ratios: list[float]) -> str:
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return low if low == high else f"{low} to {high}"


def ratios(rows: list[dict]) -> Iterator[str]:
    """A line for each task and engine: the students against the fastest teacher there."""
    # What had to run in another precision than asked for is not compared with what did not.
    for task, engine, precision in dict.fromkeys(
        (row["task"], row["engine"], row["precision"]) for row in rows
    ):
        group = [
            row for row in rows
            if (row["task"], row["engine"], row["precision"]) == (task, engine, precision)
        ]  # fmt: skip
        teachers = [row for row in group if row["model"] in TEACHERS]
        students = [row for row in group if row["model"] in STUDENTS]
        if not (teachers and students):
            continue
        quick = min(teachers, key=lambda row: row["latency_ms"])
        busy = max(teachers, key=lambda row: row["images_per_s"])
        for model in dict.fromkeys(row["model"] for row in students):
            own = [row for row in students if row["model"] == model]
            latency = _span([quick["latency_ms"] / row["latency_ms"] for row in own])
            rate = _span([row["images_per_s"] / busy["images_per_s"] for row in own])
            other = "" if CHOICES[engine].precision == precision else f" (run in {precision})"
            yield (
                f"{task}, {CHOICES[engine].title}{other}: {get_spec(model).paper_name} is "
                f"{latency} times as fast as the fastest teacher at batch 1 ({quick['name']}), "
                f"and {rate} times in batches ({busy['name']})."
            )
