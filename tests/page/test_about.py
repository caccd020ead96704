"""The About tab's texts: parts of the generated files, without what cannot be shown there."""

import pytest

from kdmodels.tasks import TASKS
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
CARDS = "# Model cards\n\nIntro.\n\n# Chest X-ray\n\nFor teaching.\n\n## VGG19\n\n- A fact.\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(about, "index", lambda: type("Index", (), {"folder": tmp_path}))
    monkeypatch.setattr(about, "offered", lambda: list(TASKS.values()))
    return tmp_path


def test_results_are_cut_into_parts_with_their_task(folder):
    (folder / "RESULTS.md").write_text(RESULTS)
    found = dict(about.results())
    assert list(found) == ["Chest X-ray: results", "Chest X-ray: calibration", "VGG19, Chest X-ray"]
    assert "see the recipe and [a paper](https://doi.org/1)" in found["Chest X-ray: results"]
    assert found["Chest X-ray: calibration"].strip() == "A table."


def test_cards_are_one_part_a_task(folder):
    (folder / "CARDS.md").write_text(CARDS)
    [(heading, text)] = about.cards()
    assert heading == "Chest X-ray: data and model cards"
    assert "For teaching." in text and "- A fact." in text and "Intro." not in text


def test_without_the_files_there_is_nothing_to_show():
    assert about.results() == about.cards() == []
