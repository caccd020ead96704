"""`python -m train <command>`: train a teacher, distil a student, evaluate, store the weights."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kdmodels.models.checkpoints import CheckpointError, Index
from kdmodels.models.zoo import TEACHERS, get_spec
from train.options import build_parser

if TYPE_CHECKING:
    from train.data.manifest import Manifest


def default_data() -> str:
    return os.environ.get("KD_DATA", "../shared/data")


def run_training(args: argparse.Namespace) -> None:
    """`teacher`, `student` and `distill`: one recipe, one run folder."""
    import torch

    from train.data.open import open_manifest
    from train.learn.guides import Guide
    from train.learn.loop import Trainer
    from train.learn.precision import choose_precision
    from train.learn.processes import main_first, start_processes
    from train.learn.recipes import RecipeError, find_recipe, read_recipe
    from train.learn.runs import RunFolder
    from train.learn.teachers import load_teachers

    if args.threads:
        torch.set_num_threads(args.threads)
    teacher_id = getattr(args, "teacher", None)
    teacher_id = "+".join(TEACHERS) if teacher_id == "all" else teacher_id
    objective = getattr(args, "objective", None)
    path = args.recipe or find_recipe(args.task, args.model, teacher_id, objective)
    recipe = read_recipe(path, seed=args.seed)
    asked = (args.task, args.model, teacher_id)
    if (recipe.task, recipe.model, recipe.teacher) != asked:
        raise RecipeError(
            f"{path} is for task {recipe.task}, model {recipe.model} and teacher {recipe.teacher}, "
            f"not for {args.task}, {args.model} and {teacher_id} as the command says."
        )
    if objective not in (None, recipe.objective):
        raise RecipeError(
            f"{path} has the objective '{recipe.objective}', not '{objective}' as the command says."
        )
    if args.guide and not recipe.guided:
        raise RecipeError(f"{path} has no phase of features; leave out --guide.")
    guide = Guide.load(args.guide) if recipe.guided else None
    precision = choose_precision(args.precision, get_spec(recipe.model))
    accelerator = start_processes(precision, recipe.batch_size)
    with main_first(accelerator):  # what it finds out is kept for the others
        manifest = open_manifest(recipe.task, args.data or default_data())
    teachers = load_teachers(recipe, Index.read(), args.precision) if recipe.teacher else ()
    settings = {"precision": precision, "compile": args.compile, "max_steps": args.max_steps}
    if guide:
        settings["guide"] = guide.sha256
    if manifest.skipped:
        settings["skipped"] = [sample.path.name for sample in manifest.skipped]
    with main_first(accelerator):
        folder = RunFolder(
            args.run or Path("runs") / f"{recipe.name}-seed{recipe.seed}",
            recipe,
            manifest.id,
            "+".join(t.sha256 for t in teachers) or None,
            settings,
            create=accelerator.is_main_process,
        )
    handler = logging.NullHandler()
    if accelerator.is_main_process:
        handler = logging.FileHandler(folder.path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("train").addHandler(handler)
    try:
        for note in manifest.notes:
            logging.getLogger("train").info(note)
        Trainer(
            recipe, manifest, folder, accelerator, teachers,
            workers=args.workers, max_steps=args.max_steps, compiled=args.compile, guide=guide,
        ).fit()  # fmt: skip
    finally:
        logging.getLogger("train").removeHandler(handler)
        handler.close()


def open_data(args: argparse.Namespace) -> "Manifest":
    """The data set that a command names; what is to be said of it goes to the log."""
    from train.data.open import open_manifest

    manifest = open_manifest(args.task, args.data or default_data())
    for note in manifest.notes:
        logging.getLogger("train").info(note)
    return manifest


def run_evaluate(args: argparse.Namespace) -> int:
    """Exit code: 1 when a stored number is not what the weights give."""
    from train.measure.evaluate import evaluate_all, evaluate_task

    if args.all:
        data, measure = args.data or default_data(), evaluate_all
    else:
        data, measure = open_data(args), evaluate_task
    other = measure(data, args.split, args.write, args.runs, args.times)
    return 1 if other else 0


def run_leakage(args: argparse.Namespace) -> None:
    from train.measure.leakage import write_leakage

    write_leakage(open_data(args))


def run_store(args: argparse.Namespace) -> None:
    from train.release.store import StoreError, store_again, store_run

    if args.run:
        store_run(args.run, open_data(args), args.storage)
    elif args.storage:
        store_again(args.file, open_data(args), args.storage)
    else:
        raise StoreError(f"Name the storage type that {args.file} is to have with --storage.")


def run_data(args: argparse.Namespace) -> None:
    from train.data.open import open_manifest

    _describe(open_manifest(args.task, args.data or default_data()))


def run_shards(args: argparse.Namespace) -> None:
    from kdmodels.tasks import get_task
    from train.data.open import open_manifest
    from train.data.shards import index_shards, write_shards

    if args.index:
        task = get_task(args.task)
        _describe(index_shards(args.index, args.out, task, args.name or f"shards-{task.id}"))
    else:
        manifest = open_manifest(args.task, args.data or default_data())
        _describe(write_shards(manifest, args.out, args.size))


def _describe(manifest: "Manifest") -> None:
    from train.data.manifest import SPLITS

    counts = manifest.counts()
    print(f"{manifest.id}: {len(manifest.samples):,} images")
    for split in SPLITS:
        cells = ", ".join(f"{name} {counts[split, name]:,}" for name in manifest.task.class_ids)
        print(f"  {split}: {cells}")
    for note in manifest.notes:
        print(f"  {note}")


def run_audit(args: argparse.Namespace) -> None:
    from train.measure.audit import audit_task

    audit_task(open_data(args), args.write, args.runs)


def run_agreement(args: argparse.Namespace) -> None:
    from train.measure.agreement import agreement_task

    agreement_task(open_data(args), args.images, args.runs, args.write)


def run_reference(args: argparse.Namespace) -> None:
    from train.measure.probe import measure_reference
    from train.release.store import update_results

    manifest = open_data(args)
    update_results(args.task, reference=measure_reference(manifest, args.guide))


def run_familiar(args: argparse.Namespace) -> None:
    from train.measure.familiar import familiar_task

    familiar_task(open_data(args), args.data or default_data(), args.write)


def run_tables(args: argparse.Namespace) -> None:
    from train.tables.write import write_tables

    write_tables()


def run_examples(args: argparse.Namespace) -> None:
    from train.examples.make import make_examples

    make_examples(open_data(args), Path(args.data or default_data()), args.write)


def run_publish(args: argparse.Namespace) -> None:
    from train.release.publish import publish
    from train.release.space import pin_space
    from train.release.store import read_results

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log each request
    publish(Index.read(), read_results(), args.repo, args.private, args.licence, args.dry_run)
    if not args.dry_run:
        pin_space(Index.read())


COMMANDS = {
    "teacher": run_training,
    "student": run_training,
    "distill": run_training,
    "evaluate": run_evaluate,
    "store": run_store,
    "data": run_data,
    "shards": run_shards,
    "audit": run_audit,
    "agreement": run_agreement,
    "leakage": run_leakage,
    "reference": run_reference,
    "familiar": run_familiar,
    "tables": run_tables,
    "examples": run_examples,
    "publish": run_publish,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; mistakes of the user end in one sentence on stderr and exit code 2."""
    from train.data.manifest import DataError
    from train.learn.recipes import RecipeError
    from train.learn.runs import RunError
    from train.release.publish import PublishError
    from train.release.store import StoreError

    args = build_parser(__doc__).parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return COMMANDS[args.command](args) or 0
    except (DataError, RecipeError, RunError, StoreError, PublishError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
