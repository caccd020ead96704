"""`python -m train tables`: every table and figure again, from the stored results."""

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    tables = commands.add_parser("tables", help="write the tables of README.md and RESULTS.md")
    tables.set_defaults(run=_run_tables)


def _run_tables(args: argparse.Namespace) -> None:
    from train.tables.write import write_tables

    write_tables()
