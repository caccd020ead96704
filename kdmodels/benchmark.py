"""What the stored models cost on a CPU: latency, throughput, memory and cold start, by engine.

    python -m kdmodels benchmark --task cxr --csv runs/benchmark.csv

Each combination of a checkpoint and an engine is measured in a process of its own, one after the
other and all on the same number of threads. A round takes the models of a task in turn on one
engine, then on the next; every second round runs backwards, so that a machine that slows down does
so for all. Tables show the median of the rounds. Inputs are noise of the size that the network
takes: decoding and preprocessing are not in these times.
"""

import os
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from kdmodels.engines.base import Engine, EngineError, Precision, default_threads, gist
from kdmodels.engines.machine import describe_machine, write_measured
from kdmodels.engines.openvino import OpenVINOEngine, import_openvino, native_precision
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index
from kdmodels.models.zoo import STUDENTS, TEACHERS, get_spec
from kdmodels.predict import measure

MEGABYTE = 1e6


class Choice(NamedTuple):
    """An engine as the benchmark opens it. channels_last: memory format, of torch only."""

    title: str
    kind: str
    precision: Precision
    channels_last: bool = True


CHOICES = {
    "torch": Choice("PyTorch float32", "torch", "float32", channels_last=False),
    "torch-channels-last": Choice("PyTorch float32, channels last", "torch", "float32"),
    "torch-bf16": Choice("PyTorch bf16, channels last", "torch", "bf16"),
    "openvino": Choice("OpenVINO float32", "openvino", "float32"),
    "openvino-bf16": Choice("OpenVINO bf16", "openvino", "bf16"),
}


@dataclass(frozen=True)
class Job:
    """One checkpoint on one engine. seconds: least time of each measurement; cache: a folder."""

    index: Index
    checkpoint: Checkpoint
    engine: str
    threads: int
    batch: int
    seconds: float
    cache: str = ""


# --- in a process of its own -----------------------------------------------------------------


def memory() -> tuple[float, float]:
    """Memory that this process holds now, and the most it ever held, in MB (10^6 bytes).

    Linux: its own peak. The one of `getrusage`, used elsewhere, counts there what the parent held
    when it started the process; both values are that peak then, or NaN without `getrusage`.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines)
        return tuple(int(fields[key].split()[0]) * 1024 / MEGABYTE for key in ("VmRSS", "VmHWM"))
    except (OSError, KeyError):
        try:
            import resource
        except ImportError:
            return float("nan"), float("nan")
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE
        return peak, peak


def open_choice(job: Job) -> Engine:
    """The engine itself, which raises where the page would go on with another one."""
    choice, spec = CHOICES[job.engine], job.checkpoint.spec
    job.index.locate(job.checkpoint)
    if choice.kind == "openvino":
        return OpenVINOEngine(
            lambda: job.index.load(job.checkpoint),
            spec,
            job.checkpoint.sha256,
            choice.precision,
            job.threads,
        )
    model = job.index.load(job.checkpoint)
    if not choice.channels_last:
        model = model.to(memory_format=torch.contiguous_format)
    return TorchEngine(
        model, spec, choice.precision, job.threads, channels_last=choice.channels_last
    )


def start(job: Job) -> tuple[Engine, torch.Tensor, float]:
    """(engine after its first answer, a batch of images, the seconds that this took)."""
    os.environ["KD_CACHE"] = job.cache
    torch.set_num_threads(job.threads)
    side = job.checkpoint.spec.input_size
    images = torch.randn(job.batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    started = time.perf_counter()
    engine = open_choice(job)
    engine(images[:1])
    seconds = time.perf_counter() - started
    engine.batch = job.batch
    return engine, images, seconds


def start_with_empty_cache(job: Job) -> dict:
    """The cold start where everything has to be compiled; fills the cache for later ones."""
    engine, images, seconds = start(job)
    engine(images)
    return {"start_empty_s": seconds, "peak_empty_mb": memory()[1]}


def measure_all(job: Job) -> dict:
    """All that is measured with a filled cache (which torch has no use for)."""
    before = memory()[0]
    engine, images, seconds = start(job)
    shortest = 1000 * job.seconds
    latency = measure(engine, images[:1], 10, shortest, 10 * shortest)[1]
    full = measure(engine, images, 3, shortest, 10 * shortest)[1]
    peak = memory()[1]
    notes = [engine.note] if engine.note else []
    if engine.batch < job.batch:
        notes.append(f"Memory did not suffice for {job.batch} images at once.")
    return {
        "engine_name": engine.name,
        "precision": engine.precision,
        "threads": engine.threads,
        "latency_ms": latency.median_ms,
        "q1_ms": latency.q1_ms,
        "q3_ms": latency.q3_ms,
        "runs": latency.runs,
        "batch": engine.batch,
        "images_per_s": 1000 * job.batch / full.median_ms,
        "batch_runs": full.runs,
        "peak_mb": peak,
        "added_mb": peak - before,
        "start_s": seconds,
        "note": " ".join(notes),
    }


# --- one after the other ---------------------------------------------------------------------


def _answer(function: Callable[[Job], dict], job: Job, writer: Connection) -> None:
    try:
        writer.send(function(job))
    except Exception as error:
        writer.send(error)


def in_a_process(function: Callable[[Job], dict], job: Job) -> dict:
    """Run a function in a fresh process. Raises `EngineError` where that process is killed."""
    fresh = get_context("spawn")
    reader, writer = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_answer, args=(function, job, writer), daemon=True)
    process.start()
    writer.close()  # here, so that the end of the process is the end of the pipe
    try:
        result = reader.recv()
    except EOFError:
        raise EngineError(
            "The process was killed, for lack of memory perhaps: close other programs, or choose "
            "a smaller --batch."
        ) from None
    except BaseException:  # Ctrl-C
        process.kill()
        raise
    finally:
        process.join()
        reader.close()
    if isinstance(result, Exception):
        raise result
    return result


def row_of(job: Job, turn: int) -> dict:
    """Measure one combination, first with an empty cache where the engine has one."""
    checkpoint = job.checkpoint
    row = {
        "task": checkpoint.task,
        "checkpoint": checkpoint.stem,
        "model": checkpoint.model,
        "name": checkpoint.name,
        "sha256": checkpoint.sha256[:12],
        "size_px": checkpoint.spec.input_size,
        "engine": job.engine,
        "round": turn + 1,
        "start_empty_s": None,
        "peak_empty_mb": None,
    }
    with TemporaryDirectory(prefix="kd-benchmark-") as cache:
        job = Job(**vars(job) | {"cache": cache})
        if CHOICES[job.engine].kind == "openvino":
            row |= in_a_process(start_with_empty_cache, job)
        return row | in_a_process(measure_all, job)


def chosen(index: Index, tasks: list[str] | None, models: list[str] | None) -> list[Checkpoint]:
    """Stored checkpoints of these tasks and of these model ids or file stems, teachers first.

    Raises `CheckpointError` for a name without a checkpoint.
    """
    for task in tasks or ():
        if task not in (known := dict.fromkeys(c.task for c in index.checkpoints)):
            raise CheckpointError(
                f"No checkpoint is stored for --task {task}; choose from: {', '.join(known) or 'none'}."
            )
    rows = [c for c in index.checkpoints if not tasks or c.task in tasks]
    for model in models or ():
        if not any(model in (c.model, c.stem) for c in rows):
            known = ", ".join(dict.fromkeys([*(c.model for c in rows), *(c.stem for c in rows)]))
            raise CheckpointError(
                f"No checkpoint is stored for --model {model}; choose from: {known or 'none'}."
            )
    rows = [c for c in rows if not models or c.model in models or c.stem in models]
    if not rows:
        raise CheckpointError(f"{index.folder} holds no checkpoint to measure.")
    return sorted(rows, key=lambda c: (c.task, c.model in STUDENTS))


def usable_choices() -> list[str]:
    """All engines; of OpenVINO's only those that it has, and bf16 where the processor has it."""
    try:
        native = native_precision(import_openvino().Core())
    except Exception as error:  # a missing or broken installation has many faces
        print(f"OpenVINO is left out ({gist(error)}).", file=sys.stderr)
        return [name for name, choice in CHOICES.items() if choice.kind == "torch"]
    return [name for name in CHOICES if name != "openvino-bf16" or native == "bf16"]


# --- tables ----------------------------------------------------------------------------------


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


# --- command ---------------------------------------------------------------------------------


def run(args: Namespace) -> int:
    """The options of `python -m kdmodels benchmark`: measure, print a line as each part is done, then the table and the ratios.

    1 where a part failed. Raises `CheckpointError` when there is nothing to measure, and `OSError`
    when the CSV file cannot be written.
    """
    index = Index.read()
    checkpoints = chosen(index, args.task, args.model)
    engines = args.engines or usable_choices()
    threads = args.threads or default_threads()
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    about = f"{describe_machine()}, {threads} threads{load}"
    print(about)
    if args.csv:
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        args.csv.open("a").close()  # now rather than after an hour
    plan = [
        Job(index, checkpoint, engine, threads, args.batch, args.seconds)
        for task in dict.fromkeys(c.task for c in checkpoints)
        for engine in dict.fromkeys(engines)
        for checkpoint in checkpoints
        if checkpoint.task == task
    ]
    rows: list[dict] = []
    failed = False
    for turn in range(args.rounds):
        for job in plan[:: -1 if turn % 2 else 1]:
            what = f"{job.checkpoint.stem}, {CHOICES[job.engine].title}"
            try:
                rows.append(row_of(job, turn))
            except Exception as error:  # of one combination; the others go on
                failed = True
                print(f"{what}: {error}", file=sys.stderr)
                continue
            print(f"{what}: {rows[-1]['latency_ms']:.2f} ms", flush=True)
            if args.csv:
                write_measured(args.csv, rows, about)
    if rows:
        print("", *table(merged(rows), args.batch), sep="\n")
        print("", *ratios(merged(rows)), sep="\n")
    return int(failed)
