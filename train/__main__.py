"""`python -m train <command>`: train a teacher, distil a student, evaluate, store the weights."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kdmodels.checkpoints import CheckpointError, Index
from kdmodels.codecs import ENCODERS
from kdmodels.tasks import TASKS
from kdmodels.zoo import STUDENTS, TEACHERS, get_spec

if TYPE_CHECKING:
    from train.datasets import Manifest

RUNS_HELP = "run folders of stored recipes with further seeds, or of recipes that are not stored"
GUIDE_HELP = (
    "safetensors file of ImageNet's mobilenetv2_100, for recipes that start from its features "
    "(default: timm's own, from the Hub)"
)
DATA_HELP = "data folder, or URL of a folder of shards (default: $KD_DATA, else ../shared/data)"


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data", help=DATA_HELP)
    parser.add_argument(
        "--recipe", type=Path, help="recipe file (default: the one in train/recipes)"
    )
    parser.add_argument(
        "--run", type=Path, help="run folder (default: runs/<recipe name>-seed<seed>)"
    )
    parser.add_argument("--seed", type=int, help="overrides the recipe's seed")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the network in training"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare images")
    parser.add_argument("--max-steps", type=int, help="steps per epoch, for a smoke test")


def build_parser() -> argparse.ArgumentParser:
    """The command line. Every option's help says its unit and default."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    teacher = commands.add_parser("teacher", help="train a teacher on labels")
    teacher.add_argument("--model", choices=TEACHERS, required=True)
    _add_run_options(teacher)
    teacher.add_argument("--guide", type=Path, help=GUIDE_HELP)

    student = commands.add_parser("student", help="train the student on labels only (the control)")
    student.add_argument("--model", choices=STUDENTS, default=STUDENTS[0])
    _add_run_options(student)

    distill = commands.add_parser("distill", help="train the student on labels and a teacher")
    distill.add_argument(
        "--teacher",
        choices=(*TEACHERS, "all"),
        required=True,
        help="'all': the mean of the softened outputs of all of them",
    )
    distill.add_argument(
        "--objective", help="a name of train/objectives.py (default: hybrid, or multi_teacher)"
    )
    distill.add_argument("--model", choices=STUDENTS, default=STUDENTS[0])
    _add_run_options(distill)

    evaluate = commands.add_parser(
        "evaluate", help="compute every number of the tables from the stored weights; exit code 1 "
        "when the index says another",
    )  # fmt: skip
    which = evaluate.add_mutually_exclusive_group(required=True)
    which.add_argument("--task", choices=TASKS)
    which.add_argument("--all", action="store_true", help="every task that has weights and data")
    evaluate.add_argument("--data", help=DATA_HELP)
    evaluate.add_argument("--split", choices=("val", "test"), default="test")
    evaluate.add_argument("--write", action="store_true", help="store the results in weights/")
    evaluate.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)

    store = commands.add_parser("store", help="store a run's best weights in weights/")
    store.add_argument("--task", choices=TASKS, required=True)
    store.add_argument("--data", help=DATA_HELP)
    store.add_argument("--run", type=Path, required=True, help="run folder")
    store.add_argument("--storage", choices=ENCODERS, help="default: int6 teachers, int8 students")

    data = commands.add_parser("data", help="check a data folder and count its images")
    data.add_argument("--task", choices=TASKS, required=True)
    data.add_argument("--data", help=DATA_HELP)

    shards = commands.add_parser("shards", help="copy a data set into tar shards, or index some")
    shards.add_argument("--task", choices=TASKS, required=True)
    shards.add_argument("--data", help=DATA_HELP)
    shards.add_argument("--out", type=Path, required=True, help="folder for shards and index")
    shards.add_argument("--size", type=float, default=512, help="of a shard, in MB (default: 512)")
    shards.add_argument(
        "--index",
        metavar="PATTERN",
        help="only index these, such as 'https://host/a-{000..012}.tar'",
    )
    shards.add_argument("--name", help="of the data set, with --index (default: shards-<task>)")

    audit = commands.add_parser("audit", help="ask what the stored weights know without the lungs")
    audit.add_argument("--task", choices=TASKS, required=True)
    audit.add_argument("--data", help=DATA_HELP)
    audit.add_argument("--write", action="store_true", help="store results and figure in weights/")
    audit.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)

    looks = commands.add_parser("agreement", help="compare students' heatmaps with their teachers'")
    looks.add_argument("--task", choices=TASKS, required=True)
    looks.add_argument("--data", help=DATA_HELP)
    looks.add_argument("--images", type=int, default=100, help="of the test split (default: 100)")
    looks.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)
    looks.add_argument("--write", action="store_true", help="store the results in weights/")

    leakage = commands.add_parser(
        "leakage", help="measure what a split by image gains cheap classifiers, into weights/"
    )
    leakage.add_argument("--task", choices=TASKS, required=True)
    leakage.add_argument("--data", help=DATA_HELP)

    reference = commands.add_parser(
        "reference", help="a linear probe on a frozen ImageNet network, into weights/"
    )
    reference.add_argument("--task", choices=TASKS, required=True)
    reference.add_argument("--data", help=DATA_HELP)
    reference.add_argument(
        "--weights", type=Path, help="safetensors of MobileNetV2 (default: timm's, from the Hub)"
    )

    familiar = commands.add_parser(
        "familiar", help="fit and measure the check that a picture is of the task's kind"
    )
    familiar.add_argument("--task", choices=TASKS, required=True)
    familiar.add_argument("--data", help=DATA_HELP)
    familiar.add_argument("--write", action="store_true", help="store it in kdmodels/familiarity/")

    commands.add_parser("tables", help="write the tables of README.md and weights/RESULTS.md")

    examples = commands.add_parser(
        "examples", help="make pictures that show nobody, and check that they do not"
    )
    examples.add_argument("--task", choices=TASKS, required=True)
    examples.add_argument("--data", help=DATA_HELP)
    examples.add_argument("--write", action="store_true", help="store them in kdmodels/examples")

    publish = commands.add_parser("publish", help="put the stored weights on the Hugging Face Hub")
    publish.add_argument("--repo", required=True, help="owner/name; made if it is not there")
    publish.add_argument("--private", action="store_true", help="for you and your group alone")
    publish.add_argument("--licence", help="the Hub's id of one, such as cc-by-4.0")
    publish.add_argument(
        "--dry-run", type=Path, metavar="DIR", help="write all that would go up into a new folder"
    )
    return parser


def default_data() -> str:
    return os.environ.get("KD_DATA", "../shared/data")


def run_training(args: argparse.Namespace) -> None:
    """`teacher`, `student` and `distill`: one recipe, one run folder."""
    import torch

    from train.datasets import open_manifest
    from train.guides import Guide
    from train.loop import Trainer
    from train.precision import choose_precision
    from train.processes import main_first, start_processes
    from train.recipes import RecipeError, find_recipe, read_recipe
    from train.runs import RunFolder
    from train.teachers import load_teachers

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
    precision = choose_precision(args.precision, get_spec(recipe.model))
    accelerator = start_processes(precision, recipe.batch_size)
    with main_first(accelerator):  # what it finds out is kept for the others
        manifest = open_manifest(recipe.task, args.data or default_data())
    teachers = load_teachers(recipe, Index.read(), args.precision) if recipe.teacher else ()
    guide = Guide.load(args.guide) if recipe.guided else None
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
    from train.datasets import open_manifest

    manifest = open_manifest(args.task, args.data or default_data())
    for note in manifest.notes:
        logging.getLogger("train").info(note)
    return manifest


def run_evaluate(args: argparse.Namespace) -> int:
    """Exit code: 1 when a stored number is not what the weights give."""
    from train.measurements import evaluate_all, evaluate_task

    if args.all:
        other = evaluate_all(args.data or default_data(), args.split, args.write, args.runs)
    else:
        other = evaluate_task(open_data(args), args.split, args.write, args.runs)
    return 1 if other else 0


def run_leakage(args: argparse.Namespace) -> None:
    from train.leakage import write_leakage

    write_leakage(open_data(args))


def run_store(args: argparse.Namespace) -> None:
    from train.store import store_run

    store_run(args.run, open_data(args), args.storage)


def run_data(args: argparse.Namespace) -> None:
    from train.datasets import open_manifest

    _describe(open_manifest(args.task, args.data or default_data()))


def run_shards(args: argparse.Namespace) -> None:
    from kdmodels.tasks import get_task
    from train.datasets import open_manifest
    from train.shards import index_shards, write_shards

    if args.index:
        task = get_task(args.task)
        _describe(index_shards(args.index, args.out, task, args.name or f"shards-{task.id}"))
    else:
        manifest = open_manifest(args.task, args.data or default_data())
        _describe(write_shards(manifest, args.out, args.size))


def _describe(manifest: "Manifest") -> None:
    from train.datasets import SPLITS

    counts = manifest.counts()
    print(f"{manifest.id}: {len(manifest.samples):,} images")
    for split in SPLITS:
        cells = ", ".join(f"{name} {counts[split, name]:,}" for name in manifest.task.class_ids)
        print(f"  {split}: {cells}")
    for note in manifest.notes:
        print(f"  {note}")


def run_audit(args: argparse.Namespace) -> None:
    from train.audit import audit_task

    audit_task(open_data(args), args.write, args.runs)


def run_agreement(args: argparse.Namespace) -> None:
    from train.agreement import agreement_task

    agreement_task(open_data(args), args.images, args.runs, args.write)


def run_reference(args: argparse.Namespace) -> None:
    from train.reference import measure_reference
    from train.store import update_results

    manifest = open_data(args)
    update_results(args.task, reference=measure_reference(manifest, args.weights))


def run_familiar(args: argparse.Namespace) -> None:
    from train.familiar import familiar_task

    familiar_task(open_data(args), args.data or default_data(), args.write)


def run_tables(args: argparse.Namespace) -> None:
    from train.tables import write_tables

    write_tables()


def run_examples(args: argparse.Namespace) -> None:
    from train.examples import make_examples

    make_examples(open_data(args), Path(args.data or default_data()), args.write)


def run_publish(args: argparse.Namespace) -> None:
    from train.publish import publish
    from train.space import pin_space
    from train.store import read_results

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
    from train.datasets import DataError
    from train.publish import PublishError
    from train.recipes import RecipeError
    from train.runs import RunError
    from train.store import StoreError

    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return COMMANDS[args.command](args) or 0
    except (DataError, RecipeError, RunError, StoreError, PublishError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
