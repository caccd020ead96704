"""The command line of `python -m train`: every option's help says its unit and default."""

import argparse
from pathlib import Path

from kdmodels.models.codecs import ENCODERS
from kdmodels.models.zoo import STUDENTS, TEACHERS
from kdmodels.tasks import TASKS

RUNS_HELP = "run folders of stored recipes with further seeds, or of recipes that are not stored"
GUIDE_HELP = (
    "for recipes with phases of features: safetensors file of ImageNet's mobilenetv2_100 with "
    "'same' padding, for images in [-1, 1] (default: timm's own, from the Hub)"
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
    parser.add_argument("--guide", type=Path, help=GUIDE_HELP)
    parser.add_argument("--max-steps", type=int, help="steps per epoch, for a smoke test")


def build_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; `description` of them together."""
    parser = argparse.ArgumentParser(prog="python -m train", description=description)
    commands = parser.add_subparsers(dest="command", required=True)

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
    evaluate.add_argument(
        "--times", action="store_true",
        help="with --write: measure the time of every network again, on a quiet machine",
    )  # fmt: skip
    evaluate.add_argument("--runs", type=Path, nargs="+", default=[], metavar="DIR", help=RUNS_HELP)

    store = commands.add_parser("store", help="store a run's best weights in weights/")
    store.add_argument("--task", choices=TASKS, required=True)
    store.add_argument("--data", help=DATA_HELP)
    which = store.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", type=Path, help="run folder")
    which.add_argument("--file", type=Path, help="stored already, to be stored as --storage says")
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
        "--guide", type=Path, help="safetensors of MobileNetV2 (default: timm's, from the Hub)"
    )

    familiar = commands.add_parser(
        "familiar", help="fit and measure the check that a picture is of the task's kind"
    )
    familiar.add_argument("--task", choices=TASKS, required=True)
    familiar.add_argument("--data", help=DATA_HELP)
    familiar.add_argument(
        "--write", action="store_true", help="store it in kdmodels/familiar/stored/"
    )

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
