"""`python -m kdmodels benchmark`: which models and engines, one after the other, and what is printed."""

import os
import sys
from argparse import Namespace

from kdmodels.benchmark.passes import CHOICES, Job, row_of
from kdmodels.benchmark.tables import merged, ratios, table
from kdmodels.engines.base import default_threads, gist
from kdmodels.engines.machine import describe_machine, write_measured
from kdmodels.engines.openvino import import_openvino, native_precision
from kdmodels.models.checkpoints import Checkpoint, CheckpointError, Index
from kdmodels.models.zoo import STUDENTS


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
