"""A task is data: its classes, names, colours and input rules."""

from kdmodels.tasks.task import TASKS, ClassInfo, Task, get_task

__all__ = ["TASKS", "ClassInfo", "Task", "get_task"]
