"""A task is data: one YAML file with its classes, names, colours, input rules and what else is special."""

from kdmodels.tasks.known import TASKS, TaskError, get_task, read_task
from kdmodels.tasks.task import ClassInfo, Task

__all__ = ["TASKS", "ClassInfo", "Task", "TaskError", "get_task", "read_task"]
