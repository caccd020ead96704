"""Reading task files; and the tasks that there are: the shipped ones, whose files stand beside this
module, and a user's own.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from kdmodels.tasks.task import Card, CheapClassifier, ClassInfo, Reasons, Table, Task

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
        raise TaskError(f"{file}: {_mistake(error.errors()[0])}.") from error


def _mistake(error: dict[str, Any]) -> str:
    """What a file has wrong, in words, without a full stop."""
    place, kind, found = error["loc"], error["type"], error["input"]
    where = ".".join(str(p + 1) if isinstance(p, int) else str(p) for p in place)
    if kind == "extra_forbidden":
        known = _part_at(place[:-1]).model_fields
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.0)[0]
        return f"the key '{where}' is unknown; the nearest valid one is '{near}'"
    if kind == "missing":
        return f"the key '{where}' is missing"
    if kind == "literal_error":
        known = error["ctx"]["expected"].replace(" or ", ", ")
        return f"{where} is '{found}', which is unknown; there are: {known}"
    if kind == "value_error":
        said = str(error["ctx"]["error"])
        return f"{where}: {said}" if place[-1:] == ("colour",) else said
    if kind == "too_short":
        return f"{where} needs {error['ctx']['min_length']} entries or more"
    if kind == "string_pattern_mismatch":
        return f"{where} is '{found}'; write small letters, digits and underscores, a letter first"
    return f"{where} is {found!r}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _part_at(place: tuple) -> type[BaseModel]:
    """The model whose keys stand at a place in a task file."""
    parts = {"classes": ClassInfo, "table": Table, "leakage": CheapClassifier}
    return (parts | {"unfamiliar": Reasons, "card": Card}).get(place[0], Task) if place else Task


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
