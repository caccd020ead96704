"""Reading task files; and the tasks that there are: the shipped ones, whose files stand beside this
module, and a user's own.
"""

from pathlib import Path

import yaml
from pydantic import ValidationError

from kdmodels.mistakes import describe_mistake
from kdmodels.tasks.task import Task

FOLDER = Path(__file__).parent


class TaskError(Exception):
    """A task that cannot be used; the message names the file, what is wrong and what to do."""


def read_task(file: str | Path) -> Task:
    """Read a task file. Raises `TaskError`: one sentence that names the file and what to do."""
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"The task file {file} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise TaskError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise TaskError(f"{file} must hold keys and values: id, name and classes at least.")
    try:
        return Task(**content)
    except ValidationError as error:
        raise TaskError(f"{file}: {describe_mistake(error, Task)}.") from error


TASKS: dict[str, Task] = {task.id: task for task in map(read_task, sorted(FOLDER.glob("*.yaml")))}
"""All known tasks: the shipped ones, and those that `add_task` added in this process."""

SHIPPED = frozenset(TASKS)


def get_task(task_id: str) -> Task:
    """Look a task up by id. Raises `ValueError` that lists the known ids."""
    try:
        return TASKS[task_id]
    except KeyError:
        known = ", ".join(TASKS)
        raise ValueError(f"There is no task '{task_id}'; the tasks are: {known}.") from None


def add_task(file: str | Path) -> Task:
    """Read a user's own task file and make the task known. The first file of an id stays.

    Raises `TaskError` for a bad file, the id of a shipped task, and other classes than the known
    ones of that id.
    """
    task = read_task(file)
    if task.id in SHIPPED:
        raise TaskError(
            f"{file}: '{task.id}' is the id of a task that comes with this project; give yours another."
        )
    known = TASKS.setdefault(task.id, task)
    if (known.class_ids, known.greyscale) != (task.class_ids, task.greyscale):
        raise TaskError(
            f"{file}: the task '{task.id}' is known with other classes or another 'greyscale' "
            f"({', '.join(known.class_ids)}); give the changed task another id."
        )
    return known


def add_tasks(folder: Path) -> None:
    """`add_task` for each task file of a folder; nothing where there is none."""
    for file in sorted(folder.glob("*.yaml")):
        add_task(file)


def keep_task(task: Task, folder: Path) -> None:
    """Write a user's own task as `<folder>/<id>.yaml`, for `add_tasks`; shipped ones are known."""
    if task.id not in SHIPPED:
        folder.mkdir(parents=True, exist_ok=True)
        content = task.model_dump(mode="json", exclude_unset=True)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (folder / f"{task.id}.yaml").write_text(text, encoding="utf-8")
