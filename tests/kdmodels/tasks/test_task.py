"""`kdmodels.tasks`: ids and their order are what checkpoints and pages were made for."""

import re

import pytest

from kdmodels.tasks import TASKS, get_task


def test_the_order_of_classes_is_the_order_of_the_stored_logits():
    assert {task.id: task.class_ids for task in TASKS.values()} == {
        "cxr": ("covid", "pneumonia", "normal"),
        "histopathology": ("lung_n", "lung_aca", "lung_scc", "colon_n", "colon_aca"),
    }
    assert [(key == task.id, task.num_classes) for key, task in TASKS.items()] == [
        (True, 3),
        (True, 5),
    ]


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_classes_can_be_told_apart_by_name_and_by_colour(task):
    names, colours = task.class_names, [c.colour for c in task.classes]
    assert len(set(names)) == len(set(colours)) == task.num_classes
    assert all(re.fullmatch(r"#[0-9A-F]{6}", colour) for colour in colours)


def test_only_chest_x_rays_are_without_colour():
    assert [task.id for task in TASKS.values() if task.greyscale] == ["cxr"]


def test_an_unknown_task_is_answered_with_the_known_ones():
    assert get_task("cxr") is TASKS["cxr"]
    with pytest.raises(ValueError, match=r"no task 'mri'; the tasks are: cxr, histopathology\."):
        get_task("mri")
