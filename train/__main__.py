"""`python -m train <command>`: train a teacher, distil a student, evaluate, store the weights."""

import argparse
import logging
import sys

from kdmodels.models.checkpoints import CheckpointError
from kdmodels.tasks import TaskError
from train.data import commands as data
from train.examples import commands as examples
from train.learn import commands as learn
from train.measure import commands as measure
from train.release import commands as release
from train.tables import commands as tables

ROOMS = (data, learn, measure, tables, release, examples)


def build_parser() -> argparse.ArgumentParser:
    """The command line. Every option's help says its unit and default."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for room in ROOMS:
        room.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; mistakes of the user end in one sentence on stderr and exit code 2."""
    from train.data.manifest import DataError
    from train.learn.finished import UnusableRun
    from train.learn.recipes import RecipeError
    from train.learn.runs import RunError
    from train.measure.kept import ResultsError
    from train.release.publish import PublishError
    from train.release.store import StoreError

    logging.basicConfig(format="%(message)s")
    logging.getLogger("train").setLevel(logging.INFO)  # others speak up from a warning on
    mistakes = (
        DataError, RecipeError, RunError, UnusableRun, ResultsError, StoreError, PublishError,
        CheckpointError, TaskError,
    )  # fmt: skip
    try:
        args = build_parser().parse_args(argv)
        return args.run(args) or 0
    except mistakes as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
