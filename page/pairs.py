"""The teachers and students that the page offers, opened once however many tabs ask."""

import threading
from functools import cache
from typing import NamedTuple

from kdmodels.models import STUDENTS, CheckpointError, Index, get_spec
from kdmodels.predict import Classifier, on_equal_terms, warm_up
from kdmodels.tasks import TASKS, Task

STUDENT = STUDENTS[0]
ROLES = ("teacher", "student")

_OPENING = threading.Lock()


class Pair(NamedTuple):
    """A teacher and the student distilled from it, on engines of one kind."""

    teacher: Classifier
    student: Classifier


@cache
def index() -> Index:
    """The stored checkpoints; the program ends with one sentence where they cannot be read."""
    try:
        found = Index.read()
    except CheckpointError as error:
        raise SystemExit(f"{error} Restore the folder weights/, or unset KD_WEIGHTS.") from None
    if not any(found.teachers(task) for task in TASKS):
        raise SystemExit(f"{found.folder} holds no teacher with its student; restore weights/.")
    return found


def offered() -> list[Task]:
    """The tasks that have at least one teacher with its student."""
    return [task for task in TASKS.values() if index().teachers(task.id)]


def teacher_choices(task: Task) -> list[tuple[str, str]]:
    """(name, model id) of each teacher of a task, the default one first."""
    return [(get_spec(model).paper_name, model) for model in index().teachers(task.id)]


@cache
def _opened(task: str, teacher: str) -> Pair:
    rows = index().find(task, teacher), index().find(task, STUDENT, teacher)
    return Pair(*on_equal_terms(*(Classifier.load(index(), row) for row in rows)))


def pair(task: str, teacher: str) -> Pair:
    """Raises `CheckpointError` for an unknown teacher, or weights that are not what they should be."""
    with _OPENING:
        return _opened(task, teacher)


def forget() -> None:
    """Open all anew when it is next asked for: this process has another device now."""
    _opened.cache_clear()


def warm_up_first() -> None:
    """Open the default pair and run it once, while the page loads."""
    task = offered()[0].id
    warm_up(*pair(task, index().teachers(task)[0]))
