"""`python -m train examples`: pictures that show nobody."""

import argparse
from pathlib import Path

from train.data.commands import open_data
from train.options import add_data


def add(commands: argparse._SubParsersAction) -> None:
    examples = commands.add_parser(
        "examples", help="make pictures that show nobody, and check that they do not"
    )
    add_data(examples)
    examples.add_argument("--write", action="store_true", help="store them in kdmodels/examples")
    examples.set_defaults(run=_run_examples)


def _run_examples(args: argparse.Namespace) -> None:
    from train.examples.make import make_examples

    make_examples(open_data(args), Path(args.data), args.write)
