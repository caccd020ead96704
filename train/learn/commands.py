"""`python -m train teacher`, `student` and `distill`: one recipe, one run folder; and `lungs`."""

import argparse
import logging
from pathlib import Path

from kdmodels.models.checkpoints import Index
from kdmodels.models.zoo import STUDENTS, TEACHERS, get_spec
from train.options import add_data, known_task

GUIDE_HELP = (
    "for recipes with phases of features: safetensors file of ImageNet's mobilenetv2_100 with "
    "'same' padding, for images in [-1, 1] (default: timm's own, from the Hub)"
)


def add(commands: argparse._SubParsersAction) -> None:
    teacher = commands.add_parser("teacher", help="train a teacher, without another")
    teacher.add_argument("--model", choices=TEACHERS, required=True)
    _add_run_options(teacher)

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
        "--objective",
        help="a name of train/learn/objectives.py (default: hybrid, or multi_teacher)",
    )
    distill.add_argument("--model", choices=STUDENTS, default=STUDENTS[0])
    _add_run_options(distill)
    _add_lungs(commands)


def _add_lungs(commands: argparse._SubParsersAction) -> None:
    lungs = commands.add_parser("lungs", help="train the network that finds lungs, on masked films")
    add_data(lungs)
    lungs.add_argument("--others-task", type=known_task, help="task whose images show no lungs")
    lungs.add_argument("--others", help="their data folder, for training to find none in them")
    lungs.add_argument("--seed", type=int, default=0)
    lungs.add_argument("--run", dest="folder", type=Path, help="default: runs/lungs-seed<seed>")
    lungs.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    lungs.set_defaults(run=_run_lungs)


def _run_lungs(args: argparse.Namespace) -> None:
    import torch

    from train.data.open import open_manifest
    from train.learn.lungs import LungSettings, train_lungs

    if args.threads:
        torch.set_num_threads(args.threads)
    manifest, others = open_manifest(args.task, args.data), ()
    if args.others_task:
        others = open_manifest(args.others_task, args.others or args.data).split("train")
    masked = ([s for s in manifest.split(name) if s.mask] for name in ("train", "val"))
    folder = args.folder or Path("runs") / f"lungs-seed{args.seed}"
    settings = LungSettings(seed=args.seed)
    best = train_lungs(*masked, others, manifest.task, folder, settings, manifest.id)
    logging.getLogger("train").info("Best validation Dice %.4f; it is in %s.", best, folder)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument(
        "--recipe", type=Path, help="recipe file (default: the one in train/recipes)"
    )
    parser.add_argument(
        "--run",
        dest="folder",
        type=Path,
        help="run folder (default: runs/<recipe name>-seed<seed>)",
    )
    parser.add_argument("--seed", type=int, help="overrides the recipe's seed")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the network in training"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare images")
    parser.add_argument("--guide", type=Path, help=GUIDE_HELP)
    parser.add_argument("--max-steps", type=int, help="steps per epoch, for a smoke test")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
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
    recipe = read_recipe(path, args.task, seed=args.seed)
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
        manifest = open_manifest(recipe.task, args.data)
    teachers = load_teachers(recipe, Index.read(), args.precision) if recipe.teacher else ()
    settings = {"precision": precision, "compile": args.compile, "max_steps": args.max_steps}
    if guide:
        settings["guide"] = guide.sha256
    if manifest.skipped:
        settings["skipped"] = [sample.path.name for sample in manifest.skipped]
    with main_first(accelerator):
        folder = RunFolder(
            args.folder or Path("runs") / f"{recipe.name}-seed{recipe.seed}",
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
