"""Options that commands of several rooms have."""

import argparse
import os

from kdmodels.tasks import TASKS

RUNS_HELP = "run folders of stored recipes with further seeds, or of recipes that are not stored"
DATA_HELP = (
    "data folder, or Parquet: a folder or file of it, a URL, or a data set's id on the Hugging Face "
    "Hub (default: $KD_DATA, else ../shared/data)"
)


def default_data() -> str:
    return os.environ.get("KD_DATA", "../shared/data")


def add_data(parser: argparse.ArgumentParser) -> None:
    """--task and --data, of every command that reads images."""
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--data", default=default_data(), help=DATA_HELP)
