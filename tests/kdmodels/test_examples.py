"""The pictures that the project shows are those that its index tells of."""

import hashlib
import json

import pytest
from PIL import Image

from kdmodels.examples import FOLDER, ExamplesError, examples
from kdmodels.tasks import TASKS

ALL = [example for task in TASKS for example in examples(task)]


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda t: t.id)
def test_each_class_has_two_or_three(task):
    found = [example.class_id for example in examples(task.id)]
    assert {found.count(class_id) for class_id in task.class_ids} <= {2, 3}
    assert found == sorted(found, key=task.class_ids.index)


@pytest.mark.parametrize("example", ALL, ids=lambda e: e.path.name)
def test_each_file_is_the_one_that_was_checked(example):
    data = example.path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == example.sha256
    with Image.open(example.path) as image:
        assert image.size == (256, 256)
        assert not image.getexif()


@pytest.mark.parametrize("example", ALL, ids=lambda e: e.path.name)
def test_each_says_what_it_is(example):
    assert example.caption.startswith("Synthetic example: ")
    assert "not a patient" in example.caption
    assert example.attribution
    if example.path.parent.name == "cxr":
        assert example.sources >= 12 and f"{example.sources} training films" in example.caption
        assert "CC BY" in example.attribution or "free use" in example.attribution


def test_none_is_closer_than_allowed_to_an_image_and_none_lacks_a_row():
    rows = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))["examples"]
    for row in rows:
        assert {"whole", "hash"} <= set(row["nearest"]) == set(row["allowed_from"])
        assert all(row["nearest"][name] >= limit for name, limit in row["allowed_from"].items())
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.jpg")}
    assert files == {row["file"] for row in rows}


def test_together_they_are_small():
    assert sum(example.path.stat().st_size for example in ALL) < 2_000_000


def test_a_damaged_index_is_told(tmp_path):
    (tmp_path / "index.json").write_text('{"examples": [{"task": "cxr"}]}')
    with pytest.raises(ExamplesError, match="damaged"):
        examples("cxr", tmp_path)


def test_no_examples_are_no_error(tmp_path):
    assert examples("cxr", tmp_path) == ()


def test_an_unknown_task_is_told():
    with pytest.raises(ValueError, match="the tasks are"):
        examples("mri")
