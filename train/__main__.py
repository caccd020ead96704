"""`python -m train <command>`: train a teacher, distil a student, evaluate, store the weights."""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kdmodels.checkpoints import ENCODERS, CheckpointError
from kdmodels.tasks import TASKS
from kdmodels.zoo import STUDENTS, TEACHERS

if TYPE_CHECKING:
    from train.loop import Teacher
    from train.recipes import Recipe

DATA_HELP = "data folder (default: $KD_DATA, else ../shared/data)"


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data", type=Path, help=DATA_HELP)
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

    student = commands.add_parser("student", help="train the student on labels only (the control)")
    student.add_argument("--model", choices=STUDENTS, default=STUDENTS[0])
    _add_run_options(student)

    distill = commands.add_parser("distill", help="train the student on labels and a teacher")
    distill.add_argument("--teacher", choices=TEACHERS, required=True)
    distill.add_argument("--model", choices=STUDENTS, default=STUDENTS[0])
    _add_run_options(distill)

    evaluate = commands.add_parser("evaluate", help="evaluate the stored weights of a task")
    evaluate.add_argument("--task", choices=TASKS, required=True)
    evaluate.add_argument("--data", type=Path, help=DATA_HELP)
    evaluate.add_argument("--split", choices=("val", "test"), default="test")
    evaluate.add_argument("--write", action="store_true", help="store the results in weights/")

    store = commands.add_parser("store", help="store a run's best weights in weights/")
    store.add_argument("--task", choices=TASKS, required=True)
    store.add_argument("--data", type=Path, help=DATA_HELP)
    store.add_argument("--run", type=Path, required=True, help="run folder")
    store.add_argument(
        "--storage", choices=ENCODERS, help="default: int8 teachers, float16 students"
    )

    data = commands.add_parser("data", help="check a data folder and count its images")
    data.add_argument("--task", choices=TASKS, required=True)
    data.add_argument("--data", type=Path, help=DATA_HELP)

    commands.add_parser("tables", help="write the tables of README.md and weights/RESULTS.md")
    return parser


def default_data() -> Path:
    return Path(os.environ.get("KD_DATA", "../shared/data"))


def load_teacher(recipe: "Recipe") -> "Teacher":
    """The teacher of a recipe, from `weights/`: the weights that the page shows, fed images of
    `teacher_size` px, which may be fewer than on the page.
    """
    from kdmodels.checkpoints import Index
    from train.loop import Teacher

    index = Index.read()
    row = index.find(recipe.task, recipe.teacher)
    size = recipe.teacher_size or row.spec.input_size
    return Teacher(index.load(row), row.spec, row.sha256, size)


def run_training(args: argparse.Namespace) -> None:
    """`teacher`, `student` and `distill`: one recipe, one run folder."""
    import torch
    from accelerate import Accelerator

    from train.datasets import open_manifest
    from train.loop import Trainer, choose_precision
    from train.recipes import RecipeError, find_recipe, read_recipe
    from train.runs import RunFolder

    if args.threads:
        torch.set_num_threads(args.threads)
    teacher_id = getattr(args, "teacher", None)
    path = args.recipe or find_recipe(args.task, args.model, "labels", teacher_id)
    recipe = read_recipe(path, seed=args.seed)
    asked = (args.task, args.model, teacher_id)
    if (recipe.task, recipe.model, recipe.teacher) != asked:
        raise RecipeError(
            f"{path} is for task {recipe.task}, model {recipe.model} and teacher {recipe.teacher}, "
            f"not for {args.task}, {args.model} and {teacher_id} as the command says."
        )
    manifest = open_manifest(recipe.task, args.data or default_data())
    teacher = load_teacher(recipe) if recipe.teacher else None
    precision = choose_precision(args.precision)
    accelerator = Accelerator(mixed_precision=precision)
    folder = RunFolder(
        args.run or Path("runs") / f"{recipe.name}-seed{recipe.seed}",
        recipe,
        manifest.id,
        teacher and teacher.sha256,
        {"precision": precision, "compile": args.compile, "max_steps": args.max_steps},
    )
    handler = logging.FileHandler(folder.path / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("train").addHandler(handler)
    Trainer(
        recipe, manifest, folder, accelerator, teacher,
        workers=args.workers, max_steps=args.max_steps, compiled=args.compile,
    ).fit()  # fmt: skip


def run_evaluate(args: argparse.Namespace) -> None:
    from train.datasets import open_manifest
    from train.store import evaluate_task

    evaluate_task(open_manifest(args.task, args.data or default_data()), args.split, args.write)


def run_store(args: argparse.Namespace) -> None:
    from train.datasets import open_manifest
    from train.store import store_run

    store_run(args.run, open_manifest(args.task, args.data or default_data()), args.storage)


def run_data(args: argparse.Namespace) -> None:
    from train.datasets import SPLITS, open_manifest

    manifest = open_manifest(args.task, args.data or default_data())
    counts = manifest.counts()
    print(f"{manifest.id}: {len(manifest.samples):,} images")
    for split in SPLITS:
        cells = ", ".join(f"{name} {counts[split, name]:,}" for name in manifest.task.class_ids)
        print(f"  {split}: {cells}")
    for note in manifest.notes:
        print(f"  {note}")


def run_tables(args: argparse.Namespace) -> None:
    from train.tables import write_tables

    write_tables()


COMMANDS = {
    "teacher": run_training,
    "student": run_training,
    "distill": run_training,
    "evaluate": run_evaluate,
    "store": run_store,
    "data": run_data,
    "tables": run_tables,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; mistakes of the user end in one sentence on stderr and exit code 2."""
    from train.datasets import DataError
    from train.recipes import RecipeError
    from train.store import StoreError

    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        COMMANDS[args.command](args)
    except (DataError, RecipeError, StoreError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
