"""`python -m train tables`: every table and figure again, from `results/` alone."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    tables = commands.add_parser(
        "tables", help="write README.md's tables, docs/results.md and docs/models.md from results/"
    )
    tables.set_defaults(run=_run_tables)


def _run_tables(args: argparse.Namespace) -> None:
    from train.tables.write import write_tables

    write_tables()
