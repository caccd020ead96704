"""The About tab's texts: parts of the generated files, without what cannot be shown there."""

import pytest

from kdmodels.tasks import TASKS, Task
from page import about

RESULTS = """# Results

An introduction.

# Chest X-ray

**Bold**, see [the recipe](../train/recipes/x.yaml) and [a paper](https://doi.org/1).

## Calibration

![A figure](figures/a.png)
A table.

## VGG19, Chest X-ray

Its numbers.
"""
MODELS = "# Models\n\nIntro.\n\n# Chest X-ray\n\nFor teaching.\n\n## VGG19\n\n- A fact.\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Of the generated pages beside own weights."""
    monkeypatch.setattr(about, "index", lambda: type("Index", (), {"folder": tmp_path}))
    monkeypatch.setattr(about, "offered", lambda: list(TASKS.values()))
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_results_are_cut_into_parts_with_their_task(folder):
    (folder / "results.md").write_text(RESULTS)
    found = dict(about.results())
    assert list(found) == ["Chest X-ray: results", "Chest X-ray: calibration", "VGG19, Chest X-ray"]
    assert "see the recipe and [a paper](https://doi.org/1)" in found["Chest X-ray: results"]
    assert found["Chest X-ray: calibration"].strip() == "A table."


def test_models_are_one_part_a_task(folder):
    (folder / "models.md").write_text(MODELS)
    [(heading, text)] = about.models()
    assert heading == "Chest X-ray: data and models"
    assert "For teaching." in text and "- A fact." in text and "Intro." not in text


def test_without_the_files_there_is_nothing_to_show():
    assert about.results() == about.models() == []


def test_the_projects_own_weights_have_their_pages_in_docs(folder, monkeypatch):
    monkeypatch.setattr(about, "REPOSITORY", folder)
    monkeypatch.setattr(about, "index", lambda: type("Index", (), {"folder": folder / "weights"}))
    (folder / "docs").mkdir()
    (folder / "docs" / "results.md").write_text(RESULTS)
    assert "Chest X-ray: results" in dict(about.results())


def test_the_introduction_names_the_limits_of_the_tasks_that_are_offered(monkeypatch):
    text = about.introduction()
    assert "- Chest X-ray: class and hospital go together" in text
    assert "- Histopathology: LC25000 tiles are few originals" in text
    own = Task(id="shapes", name="Shapes", classes=["circle", "square"])
    monkeypatch.setattr(about, "offered", lambda: [own])
    text = about.introduction()
    assert "X-ray:" not in text and "LC25000" not in text and "{" not in text
