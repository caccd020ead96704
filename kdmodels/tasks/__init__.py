"""A task is data: one YAML file with its classes, names, colours, input rules and what else is special."""

from kdmodels.tasks.known import (
    TASKS,
    TaskError,
    add_task,
    add_tasks,
    get_task,
    keep_task,
    read_task,
)
from kdmodels.tasks.task import ClassInfo, Task

__all__ = [
    "TASKS",
    "ClassInfo",
    "Task",
    "TaskError",
    "add_task",
    "add_tasks",
    "get_task",
    "keep_task",
    "read_task",
]
