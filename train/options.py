"""Options that commands of several rooms have."""

import argparse
import os
from pathlib import Path

from kdmodels.tasks import TASKS, add_task, add_tasks, get_task

RUNS_HELP = "run folders of stored recipes with further seeds, or of recipes that are not stored"
DATA_HELP = (
    "data folder, or Parquet: a folder or file of it, a URL, or a data set's id on the Hugging Face "
    "Hub (default: $KD_DATA, else ../shared/data)"
)
TASK_HELP = (
    f"{', '.join(TASKS)}, or the path of a task file of yours (docs/own-task.md); its id will do "
    "where $KD_WEIGHTS names the folder that its weights are stored in"
)


def default_data() -> str:
    return os.environ.get("KD_DATA", "../shared/data")


def known_task(text: str) -> str:
    """The id of the task that `--task` names, which is known from now on. Raises `TaskError`."""
    if text.endswith((".yaml", ".yml")):
        return add_task(text).id
    if (own := os.environ.get("KD_WEIGHTS")) and text not in TASKS:
        add_tasks(Path(own) / "tasks")
    try:
        return get_task(text).id
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_data(parser: argparse.ArgumentParser) -> None:
    """--task and --data, of every command that reads images."""
    parser.add_argument("--task", type=known_task, required=True, help=TASK_HELP)
    parser.add_argument("--data", default=default_data(), help=DATA_HELP)
