"""One checkpoint on one engine, measured in a process of its own."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from kdmodels.engines.base import Engine, EngineError, Precision
from kdmodels.engines.openvino import OpenVINOEngine
from kdmodels.engines.pytorch import TorchEngine
from kdmodels.models.checkpoints import Checkpoint, Index
from kdmodels.predict import time_passes

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
    latency = time_passes(engine, images[:1], 10, shortest, 10 * shortest)[1]
    full = time_passes(engine, images, 3, shortest, 10 * shortest)[1]
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
