"""`train.options`: what `--task` takes."""

import argparse

import pytest

from kdmodels.tasks import TASKS, Task, TaskError, keep_task
from train.options import known_task

OWN = Task(id="shapes", name="Shapes", classes=["circle", "square"])


def test_the_id_of_a_shipped_task_is_itself():
    assert [known_task(task_id) for task_id in TASKS] == list(TASKS)


@pytest.mark.parametrize("name", ["shapes.yaml", "shapes.yml"])
def test_a_task_file_makes_its_task_known(tmp_path, name):
    keep_task(OWN, tmp_path)
    (tmp_path / "shapes.yaml").rename(tmp_path / name)
    assert known_task(str(tmp_path / name)) == "shapes"
    assert TASKS["shapes"] == OWN


def test_the_id_will_do_where_its_weights_are_stored(tmp_path, monkeypatch):
    keep_task(OWN, tmp_path / "tasks")
    monkeypatch.delenv("KD_WEIGHTS", raising=False)
    with pytest.raises(argparse.ArgumentTypeError, match="no task 'shapes'; the tasks are: cxr, "):
        known_task("shapes")
    monkeypatch.setenv("KD_WEIGHTS", str(tmp_path))
    assert known_task("shapes") == "shapes"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TaskError, match="cannot be read"):
        known_task(str(tmp_path / "none.yaml"))
